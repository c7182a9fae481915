"""Receipts: a record, its place and the log's signed word for it, as a C2SP tlog-proof.

::

    c2sp.org/tlog-proof@v1
    extra <the record, base64>
    index 42
    <the inclusion proof's hashes, base64, the leaf's sibling first>

    appliance-audit/5f0c…      the checkpoint: audit-format section 4
    43
    <root, base64>

    — appliance-audit/5f0c… <signature>

Whoever has the log's public key checks one offline, without the log.
"""

import base64
from collections.abc import Sequence

from appliance.audit.checkpoint import VerifierKey
from appliance.audit.tree import leaf_hash, root_from
from appliance.errors import AuditLogError

_HEAD = "c2sp.org/tlog-proof@v1"
BYTES_MAX = 1 << 18


def encode(index: int, path: Sequence[bytes], note: bytes, record: bytes) -> bytes:
    """The proof that ``record`` stands at ``index`` of the tree whose checkpoint ``note`` is."""
    lines = [_HEAD, f"extra {_base64(record)}", f"index {index}", *map(_base64, path), "", ""]
    return "\n".join(lines).encode() + note


def decode(data: bytes, key: VerifierKey) -> tuple[int, bytes]:
    """The index and the record that a receipt proves.

    Raises:
        AuditLogError: it is not a receipt, not of this log, or proves nothing.
    """
    try:
        if len(data) > BYTES_MAX:
            raise ValueError("too long")
        head, _, note = data.partition(b"\n\n")
        first, extra, place, *path = head.decode("ascii").split("\n")
        index = int(place.removeprefix("index "))
        if first != _HEAD or place != f"index {index}" or not extra.startswith("extra "):
            raise ValueError("lines")
        record = base64.b64decode(extra.removeprefix("extra "), validate=True)
        hashes = [base64.b64decode(line, validate=True) for line in path]
        checkpoint = key.open(note)
        if root_from(index, checkpoint.size, leaf_hash(record), hashes) != checkpoint.root:
            raise ValueError("root")
    except ValueError as error:
        raise AuditLogError("This is not a receipt of this log.") from error
    return index, record


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
