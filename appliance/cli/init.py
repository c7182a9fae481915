"""``appliance init``"""

import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from appliance import config, keys, wiring
from appliance.audit.verify import KEY_FILE
from appliance.cli.options import read_site
from appliance.errors import ConfigError
from appliance.site import Site
from appliance.state import State

_TEMPLATE = """\
# The configuration of this site. Every setting is shown in deploy/appliance.toml; relative paths start at this file.

[site]
name = {name}

[server]
address = "0.0.0.0:8443"
certificate = "tls/server.crt"     # from your CA, for the request tls/server.csr
key = "tls/server.key"
client_ca = "tls/clients-ca.crt"   # the CA that signs your clients' certificates

[metrics]
address = "127.0.0.1:9464"

[keys]
passphrase_file = "secrets/passphrase"

# Who may do what. Whoever is not named here may do nothing.
# [[access]]
# caller = "DNS:reading-room-1.hospital.example"   # a name in the client's certificate
# roles = ["predict"]                              # predict, observe, administer
# models = ["*"]
"""


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", required=True, help="The hospital's name for this site, at most 200 characters.")
@click.option("--dns", required=True, help="The name clients will connect to, for the certificate request.")
def command(directory: Path, name: str, dns: str) -> None:
    """Make a site directory. In it: configuration, keys, passphrase, certificate request, an empty audit log."""
    if not (1 <= len(name) <= 200 and name.isprintable()):
        raise ConfigError("--name must be 1 to 200 printable characters")
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", dns):
        raise ConfigError("--dns must be a DNS name in its ASCII form, of at most 64 characters")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} exists and is not empty")
    config.operators_socket(directory)
    for folder in ("keys", "secrets", "tls", "trust", "models", "audit"):
        (directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    (directory / "appliance.toml").write_text(_TEMPLATE.format(name=_toml_string(name)))
    keys.write_private(directory / "secrets" / "passphrase", secrets.token_urlsafe(32).encode() + b"\n")
    provider = wiring.key_provider(read_site(directory))
    for purpose in (keys.APPLIANCE_SEED, keys.AUDIT_KEY, keys.PSEUDONYM_KEY):
        provider.create(purpose)
    Site(directory).remember(State(latest=datetime.now(UTC)), provider.get(keys.APPLIANCE_SEED))
    (directory / "audit" / KEY_FILE).write_text(wiring.log_key(provider).verifier.encode() + "\n")
    _certificate_request(directory / "tls", dns)
    click.echo(f"Made the site {directory}. Next:")
    click.echo(f"  1. have your CA sign {directory}/tls/server.csr, and put the certificate at tls/server.crt")
    click.echo("  2. put the CA of your clients' certificates at tls/clients-ca.crt")
    click.echo(f"  3. run: appliance trust update --site {directory} DIRECTORY, with the vendor's trust repository")
    click.echo(f"  4. run: appliance enroll --site {directory}")
    click.echo("Keep a copy of audit/log.vkey elsewhere: with it anyone can check this appliance's log.")


def _toml_string(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    import json

    return json.dumps(text, ensure_ascii=False)


def _certificate_request(folder: Path, dns: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    keys.write_private(folder / "server.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "server.csr").write_bytes(request.public_bytes(Encoding.PEM))
