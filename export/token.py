"""Signing keys that never leave their PKCS#11 token. The only importer of pkcs11.

A key is named by an RFC 7512 URI; of its attributes we read these::

    pkcs11:token=vendor;object=exporter?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/vendor.pin

Ed25519 alone: it is the algorithm that bundles always need, and tokens do not sign with ML-DSA yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.errors import ConfigError, KeyUnavailable

SCHEME = "pkcs11:"
_ED25519_PARAMETERS = bytes.fromhex("06032b6570")  # the OID 1.3.101.112 in DER (RFC 8410)
_OCTET_STRING = bytes.fromhex("0420")  # PKCS#11 wraps a point of 32 bytes in this


@dataclass(frozen=True)
class TokenKey:
    """A private key in a token. Implements ``SigningKey``; each use is a session of its own."""

    uri: str

    @cached_property
    def _public(self) -> Ed25519PublicKey:
        with _session(self.uri) as (pkcs11, session, label):
            key = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=label)
            point = bytes(key[pkcs11.Attribute.EC_POINT])
        return Ed25519PublicKey.from_public_bytes(point.removeprefix(_OCTET_STRING) if len(point) == 34 else point)

    def public_key(self) -> Ed25519PublicKey:
        """Raises ConfigError, KeyUnavailable."""
        return self._public

    def sign(self, data: bytes, /) -> bytes:
        """Raises ConfigError, KeyUnavailable."""
        with _session(self.uri) as (pkcs11, session, label):
            key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=label)
            return bytes(key.sign(data, mechanism=pkcs11.Mechanism.EDDSA))


def generate(uri: str, label: str) -> Ed25519PublicKey:
    """Makes a key pair in the token of a URI, and returns its public half.

    Raises:
        ConfigError: the URI cannot be used, or the extra ``hsm`` is not installed.
        KeyUnavailable: there is a key of this label, or the token refuses.
    """
    with _session(uri, writes=True) as (pkcs11, session, _):
        if any(session.get_objects({pkcs11.Attribute.LABEL: label})):
            raise KeyUnavailable(f"The token has a key {label} already.")
        parameters = {pkcs11.Attribute.EC_PARAMS: _ED25519_PARAMETERS}
        curve = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, parameters, local=True)
        curve.generate_keypair(mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label)
    path, _, query = uri.partition("?")
    return TokenKey(f"{path};object={label}?{query}").public_key()


@contextmanager
def _session(uri: str, *, writes: bool = False) -> Iterator[tuple[Any, Any, str]]:
    """The library, a session with the token of a URI, logged in, and the label of the object that the URI names."""
    attributes = _attributes(uri)
    try:
        import pkcs11
        from pkcs11.exceptions import PKCS11Error
    except ImportError:
        raise ConfigError("a key in a token needs the extra hsm (python-pkcs11)") from None
    try:
        pin = Path(attributes["pin-source"].removeprefix("file:")).read_text().strip()
        token = pkcs11.lib(attributes["module-path"]).get_token(token_label=attributes["token"])
        with token.open(rw=writes, user_pin=pin) as session:
            yield pkcs11, session, attributes.get("object", "")
    except (PKCS11Error, RuntimeError) as error:  # the second where the module cannot be loaded
        raise KeyUnavailable(f"The token {attributes['token']} cannot be used: {type(error).__name__}.") from error
    except OSError:
        raise ConfigError("the URI's pin-source cannot be read") from None


def _attributes(uri: str) -> dict[str, str]:
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    pairs = [pair.partition("=") for pair in [*path.split(";"), *query.split("&")]]
    attributes = {name: unquote(value) for name, _, value in pairs}
    missing = [name for name in ("token", "module-path", "pin-source") if not attributes.get(name)]
    if missing or not uri.startswith(SCHEME):
        raise ConfigError(f"a token's URI needs {', '.join(missing or [SCHEME])}")
    return attributes
