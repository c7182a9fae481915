"""A throw-away certificate authority for the demo and the tests. A hospital uses its own."""

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

    def server(self, folder: Path) -> None:
        """Writes ``server.crt``, ``server.key`` and ``clients-ca.crt`` for a server on localhost to a folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = self._issue(subject, key.public_key(), names, ExtendedKeyUsageOID.SERVER_AUTH)
        (folder / "server.crt").write_bytes(certificate)
        (folder / "clients-ca.crt").write_bytes(self.certificate)
        _write_key(folder / "server.key", key)

    def client(self, folder: Path, *names: x509.GeneralName) -> None:
        """Writes ``ca.crt``, ``client.crt`` and ``client.key`` for a client of these names, perhaps none, to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Demo client")])
        alternative = x509.SubjectAlternativeName(names) if names else None
        certificate = self._issue(subject, key.public_key(), alternative, ExtendedKeyUsageOID.CLIENT_AUTH)
        (folder / "ca.crt").write_bytes(self.certificate)
        (folder / "client.crt").write_bytes(certificate)
        _write_key(folder / "client.key", key)

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


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
