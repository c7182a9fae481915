"""What the last segment of a log really holds (audit-format section 5): a function of its bytes.

A torn write and tampering are told apart by what stands behind them. Nothing after the last checkpoint was ever
acknowledged, so a broken frame there is a crash; a broken frame with a valid checkpoint behind it is damage. Whole records
there are no better: nobody has signed them, and whoever can write the disk could have put them there.
"""

from dataclasses import dataclass

from appliance.audit import segment
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.signed import walk
from appliance.audit.tree import Tree
from appliance.errors import AuditLogError


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where to go on: the tree, and the end, of what is signed; the end of the segment's head. What is behind is to be cut:
    so many whole records, and so many bytes with what is torn.
    """

    tree: Tree
    end: int
    head_end: int
    cut_records: int
    cut_bytes: int


def resume(data: bytes, verifier: VerifierKey) -> Resumed | None:
    """Reads a segment. None where a crash came before its head was whole, so that it never held anything acknowledged.

    Raises:
        AuditLogError: the segment is damaged.
    """
    tree: Tree | None = None
    end = signed_end = head_end = records = 0
    for count, (frame, grown) in enumerate(walk(data, verifier)):
        end = frame.end
        if frame.kind == segment.RECORD:
            records += 1
        elif count:
            tree, signed_end, records = grown.copy(), end, 0
            head_end = head_end or end
    if any(_opens(verifier, frame) for frame in segment.checkpoints_after(data, end, verifier.name)):
        raise AuditLogError("The audit log is damaged: a record before a signed checkpoint is broken.")
    if tree is None:
        return None
    return Resumed(tree, signed_end, head_end, records, len(data[signed_end:].rstrip(b"\x00")))


def _opens(verifier: VerifierKey, frame: segment.Frame) -> bool:
    try:
        verifier.open(frame.payload)
    except AuditLogError:
        return False
    return True
