"""Who is at the other end: the names of the client certificate that TLS has verified."""

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeAlias

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.access import LOCAL_PEER, OPERATOR_PEER, Peer

PeerOf: TypeAlias = Callable[["grpc.aio.ServicerContext[Any, Any]"], Peer]
NAMES_MAX = 32
NAME_CHARACTERS_MAX = 255  # of DNS; a longer name is one that no rule could name, and would fill the record


def peer_of(context: "grpc.aio.ServicerContext[Any, Any]") -> Peer:
    """The peer of a call. Only the loopback listener accepts connections without TLS, so no certificate means local."""
    certificates = list(context.auth_context().get("x509_pem_cert", ()))
    return _peer_of_certificate(certificates[0]) if certificates else LOCAL_PEER


def operator_of(context: "grpc.aio.ServicerContext[Any, Any]") -> Peer:
    """The peer of a call on the socket in the site directory: the file system has let them in."""
    return OPERATOR_PEER


@lru_cache(maxsize=1024)
def _peer_of_certificate(pem: bytes) -> Peer:
    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    known = [name for name in map(_name, names) if 0 < len(name) <= NAME_CHARACTERS_MAX]
    return Peer(tuple(known[:NAMES_MAX]), sha256(key).hexdigest())


def _name(name: x509.GeneralName) -> str:
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"URI:{name.value}"
        case x509.RFC822Name():
            return f"EMAIL:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case _:
            return ""  # other kinds name nobody a rule could name
