"""What is written about a call or an act (audit-format section 2).

An ``Entry`` is filled in while the call runs; ``encode`` turns it into the record's exact bytes, once. About 700 bytes::

    {"boot":"5f…","build":"0.1.0","caller":{"name":"DNS:ward-7","roles":["predict"],"spki":"ab…"},"config":"1c…",
     "event":"call","index":42,"input":{"bytes":812,"form":"encoded","pseudonyms":["9a…"],"rows":1},
     "method":"/appliance.v1.Classification/Classify","model":{"digest":"77…","id":"digits","version":1},
     "mono_us":81234567,"outcome":"answered","output":{"confidence_e6":[993124],"decisions":"A","top":[7]},
     "request_id":"01KAT…","run":{"decode_us":210,"provider":"CPUExecutionProvider","queue_us":35,"run_us":480},
     "time":"2026-11-24T03:45:31.123456Z","v":1}
"""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance import canonical, errors
from appliance.audit.segment import PAYLOAD_BYTES_MAX

TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # UTC; as text, times compare as they should
_REFERENCE = re.compile(r"[A-Za-z0-9-]{1,64}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SHIFTS = range(125, -1, -5)

_OUTCOMES: dict[type[BaseException], str] = {
    errors.InvalidInput: "invalid",
    errors.UnknownModel: "invalid",
    errors.Unauthenticated: "denied",
    errors.PermissionDenied: "denied",
    errors.Overloaded: "shed",
    errors.DeadlinePassed: "expired",
    errors.NotReady: "unavailable",
    asyncio.CancelledError: "cancelled",
}


@dataclass(slots=True)
class Entry:
    """One record being made. What is not known, or does not apply, stays None and is left out."""

    event: str
    outcome: str = "failed"
    error: str | None = None
    method: str | None = None
    request_id: str | None = None
    client_reference: str | None = None
    caller: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    input: dict[str, Any] | None = None
    output: dict[str, Any] | None = None
    run: dict[str, Any] | None = None
    detail: dict[str, Any] | None = None
    receipt: "Receipt | None" = field(default=None, repr=False)
    wants_proof: bool = False

    def refer(self, reference: str) -> None:
        """Takes the caller's reference, if it is one that cannot hold a name."""
        if _REFERENCE.fullmatch(reference):
            self.client_reference = reference

    def tell(self, **detail: int | str) -> None:
        """Says more of an act."""
        self.detail = (self.detail or {}) | detail

    def blame(self, error: BaseException) -> None:
        """Takes the outcome from what was raised."""
        self.outcome = next((_OUTCOMES[kind] for kind in type(error).__mro__ if kind in _OUTCOMES), "failed")
        if isinstance(error, errors.ApplianceError):
            self.error = error.code
        elif self.outcome == "failed":
            self.error = "internal"


_SAID = tuple(name for name in Entry.__slots__ if name not in ("receipt", "wants_proof"))


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a record stands: its index in the log, its leaf hash (32 bytes), and a proof of it where one was wanted."""

    index: int
    leaf_hash: bytes
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class Origin:
    """What stands in every record of this process: digest of the configuration, version of the product, boot id."""

    config: str
    build: str
    boot: str

    @classmethod
    def here(cls, config_digest: str, build: str) -> "Origin":
        return cls(config_digest, build, Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def encode(entry: Entry, index: int, origin: Origin) -> bytes:
    """The record's bytes.

    Raises:
        ValueError, TypeError: the entry has no canonical form, or is over the limit; a mistake of ours, never a caller's.
    """
    said = {name: value for name in _SAID if (value := getattr(entry, name)) is not None}
    record = canonical.encode(
        said
        | {
            "v": 1,
            "index": index,
            "time": datetime.now(UTC).strftime(TIME),
            "mono_us": time.monotonic_ns() // 1000,
            "boot": origin.boot,
            "config": origin.config,
            "build": origin.build,
        }
    )
    if len(record) > PAYLOAD_BYTES_MAX:
        raise ValueError("a record is over its limit")
    return record


def new_request_id() -> str:
    """A ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32, 26 characters."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join([_CROCKFORD[number >> shift & 31] for shift in _SHIFTS])
