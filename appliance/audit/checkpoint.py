"""Checkpoints: the tree's size and root, signed (C2SP tlog-checkpoint and signed-note).

appliance-audit/3f9c2a1b0d4e5f60
42
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— appliance-audit/3f9c2a1b0d4e5f60 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp…
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.bundle.signature import decode_base64, encode_base64
from appliance.errors import AuditLogError

NOTE_BYTES_MAX = 16 * 1024
_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a log's key, and the log's name: what an auditor needs."""

    name: str
    key: Ed25519PublicKey

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key.public_bytes_raw()).digest()[:4]

    def encode(self) -> str:
        """The vkey line of signed-note."""
        return f"{self.name}+{self.id.hex()}+{encode_base64(_ED25519 + self.key.public_bytes_raw())}"

    @classmethod
    def decode(cls, text: str) -> "VerifierKey":
        """Raises AuditLogError where the text is not a vkey for Ed25519."""
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            material = decode_base64(encoded)
            key = cls(name, Ed25519PublicKey.from_public_bytes(material[1:]))
            if not name or any(c.isspace() for c in name) or material[:1] != _ED25519 or key.id.hex() != key_id:
                raise ValueError("not an Ed25519 verifier key")
        except ValueError as error:
            raise AuditLogError("The log's verifier key is not valid.") from error
        return key

    def open(self, note: bytes) -> Checkpoint:
        """The checkpoint of a note that this key signed.

        Raises:
            AuditLogError: not a checkpoint of this log, or its signature does not verify.
        """
        try:
            if len(note) > NOTE_BYTES_MAX:
                raise ValueError("too long")
            text, signatures = note.decode().rsplit("\n\n", 1)
            text += "\n"
            origin, size, root, rest = text.split("\n")
            if origin != self.name or rest or not signatures.endswith("\n"):
                raise ValueError("not of this log")
            self._verify(text, signatures[:-1].split("\n"))
            checkpoint = Checkpoint(int(size), decode_base64(root))
            if str(checkpoint.size) != size or len(checkpoint.root) != hashlib.sha256().digest_size:
                raise ValueError("not canonical")
        except (ValueError, InvalidSignature) as error:
            raise AuditLogError("A checkpoint of the log is not valid.") from error
        return checkpoint

    def _verify(self, text: str, signatures: list[str]) -> None:
        ours = 0
        for line in signatures:
            name, _, encoded = line.removeprefix(_DASH).partition(" ")
            if not line.startswith(_DASH):
                raise ValueError("not a signature line")
            signature = decode_base64(encoded)
            if name == self.name and signature[:4] == self.id:
                self.key.verify(signature[4:], text.encode())
                ours += 1
        if not ours:
            raise ValueError("not signed by this key")


@dataclass(frozen=True, slots=True)
class LogKey:
    """The private half."""

    name: str
    key: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.key.public_key())

    def sign(self, checkpoint: Checkpoint, key_id: bytes) -> bytes:
        """The signed note. ``key_id`` is the verifier's id, which the writer computes once."""
        text = f"{self.name}\n{checkpoint.size}\n{encode_base64(checkpoint.root)}\n"
        signature = encode_base64(key_id + self.key.sign(text.encode()))
        return f"{text}\n{_DASH}{self.name} {signature}\n".encode()
