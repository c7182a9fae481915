"""A throw-away certificate authority for the demo. A hospital uses its own."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)


class Authority:
    """Signs certificates for as long as this object lives; its key is never written anywhere."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Throw-away CA of the demo")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(Encoding.PEM)

    def sign(self, request: bytes) -> bytes:
        """A server's certificate, PEM, for the names of a certificate request."""
        csr = x509.load_pem_x509_csr(request)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        loopback = x509.IPAddress(ip_address("127.0.0.1"))
        alternative = x509.SubjectAlternativeName([*names, loopback])
        return self._issue(csr.subject, csr.public_key(), alternative, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, folder: Path, *names: x509.GeneralName) -> None:
        """Writes ``ca.crt``, ``client.crt`` and ``client.key`` for a client of these names, perhaps none, to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Demo client")])
        alternative = x509.SubjectAlternativeName(names) if names else None
        certificate = self._issue(subject, key.public_key(), alternative, ExtendedKeyUsageOID.CLIENT_AUTH)
        (folder / "ca.crt").write_bytes(self.certificate)
        (folder / "client.crt").write_bytes(certificate)
        (folder / "client.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "client.key").chmod(0o600)

    def _issue(
        self,
        subject: x509.Name,
        key: CertificatePublicKeyTypes,
        alternative: x509.SubjectAlternativeName | None,
        usage: x509.ObjectIdentifier,
    ) -> bytes:
        builder = self._builder(subject, key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternative is not None:
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _builder(self, subject: x509.Name, key: CertificatePublicKeyTypes) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + LIFETIME)
        )
