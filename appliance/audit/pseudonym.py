"""Pseudonyms of images, and how one row's is forgotten (audit-format section 2.2).

An epoch's secret is the root of a tree of keys, after Goldreich, Goldwasser and Micali (1986). Each call has a place in it,
and below that a key for each row::

    ''  ─  3  ─  3f  ─  …  ─  3f02a71c9d00e4b8  ─┬─  3f02a71c9d00e4b8/0
    the secret                  the call          └─  3f02a71c9d00e4b8/1

A step down is a hash, and there is none up. So a row is erased by keeping, in the place of every key above it, the keys
beside its way: all others can be derived as before, and it cannot. Nothing is written when a record is made.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance import canonical
from appliance.bundle.signature import decode_base64, encode_base64
from appliance.errors import ConfigError
from appliance.keys import KeyProvider, pseudonym_key

PSEUDONYM_BYTES = 16
CALL_DIGITS = 16  # 64 bits: of a thousand million calls, one that is erased shares its place with a chance of 10⁻¹⁰
_DIGITS = "0123456789abcdef"
_ROOT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Epoch:
    """The keys that are left of an epoch, by their place in the tree; the root alone, where nothing was erased."""

    number: int
    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def decode(cls, number: int, secret: bytes) -> "Epoch":
        """The epoch of a secret of the site's, which only its passphrase could have made."""
        if len(secret) == _ROOT_BYTES:
            return cls(number, {"": secret})
        return cls(number, {place: decode_base64(key) for place, key in canonical.decode(secret).items()})

    def encode(self) -> bytes:
        """The secret: 32 bytes, or canonical JSON of what is left, which never has that length."""
        if "" in self.keys:
            return self.keys[""]
        return canonical.encode({place: encode_base64(key) for place, key in self.keys.items()})

    def row_keys(self, request_id: str, rows: int) -> list[bytes | None]:
        """The key of each row of a call; None for one that was erased."""
        call = _place(request_id)
        above = self._above(call)
        if above is None:
            return [self.keys.get(f"{call}/{row}") for row in range(rows)]
        key = self.keys[above]
        for digit in call[len(above) :]:
            key = _below(key, digit)
        return [_below(key, f"/{row}") for row in range(rows)]

    def without(self, request_id: str, rows: int, row: int | None = None) -> "Epoch":
        """The epoch after a call of so many rows, or one of them, was erased."""
        call = _place(request_id)
        left = {place: key for place, key in self.keys.items() if not place.startswith(f"{call}/")}
        for other, key in enumerate(self.row_keys(request_id, rows)):
            if key is not None and row not in (None, other):
                left[f"{call}/{other}"] = key
        if (above := self._above(call)) is not None:
            way = left.pop(above)
            for depth in range(len(above), CALL_DIGITS):
                left |= {call[:depth] + digit: _below(way, digit) for digit in _DIGITS if digit != call[depth]}
                way = _below(way, call[depth])
        return Epoch(self.number, left)

    def _above(self, call: str) -> str | None:
        """The place from which a call's key can be derived, its own or one above it."""
        return next((call[:depth] for depth in range(CALL_DIGITS + 1) if call[:depth] in self.keys), None)


def of_record(said: Mapping[str, Any], kept: KeyProvider) -> tuple[Epoch | None, list[bytes | None]]:
    """The epoch of what a record says, and the key of each of its rows, None for one that was erased; no epoch where it
    has no rows.

    Raises:
        ConfigError: the epoch was erased as a whole.
    """
    given = said.get("input", {})
    if not (rows := len(given.get("pseudonyms", ()))):
        return None, []
    purpose = pseudonym_key(given["epoch"])
    if not kept.has(purpose):
        raise ConfigError(f"the {purpose} was erased: nobody can say any more which files were scored with it")
    epoch = Epoch.decode(given["epoch"], kept.get(purpose))
    return epoch, epoch.row_keys(said["request_id"], rows)


def pseudonyms(keys: Iterable[bytes], rows: Iterable[Sequence[bytes | memoryview]]) -> list[str]:
    """HMAC-SHA-256 of each row's bytes as received under the row's key, the first 16 bytes in hex.

    A row is what was given to each input, in the manifest's order.
    """
    return [
        hmac.digest(key, parts[0] if len(parts) == 1 else b"".join(parts), "sha256")[:PSEUDONYM_BYTES].hex()
        for key, parts in zip(keys, rows, strict=True)
    ]


def _place(request_id: str) -> str:
    """Where a call stands, however few bits of its id are random."""
    return hashlib.sha256(request_id.encode()).hexdigest()[:CALL_DIGITS]


def _below(key: bytes, step: str) -> bytes:
    """SHA-256 and not HMAC: the key's length is fixed and the step a few bytes, so nothing can be appended, and a call takes
    seventeen of them.
    """
    return hashlib.sha256(key + step.encode()).digest()
