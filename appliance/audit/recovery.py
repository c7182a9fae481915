"""What the last segment of a log really holds (audit-format section 5): a function of its bytes.

A torn write and tampering are told apart by what stands behind them. Nothing after the last checkpoint was ever
acknowledged, so a broken frame there is a crash; a broken frame with a valid checkpoint behind it is damage. Whole records
there are no better: nobody has signed them, and whoever can write the disk could have put them there.
"""

from dataclasses import dataclass
from itertools import islice

from appliance.audit import segment
from appliance.audit.checkpoint import Checkpoint, VerifierKey
from appliance.audit.tree import HASH_BYTES, Tree, leaf_hash
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
    signed: Checkpoint | None = None
    end = signed_end = head_end = 0
    waiting: list[bytes] = []
    for frame in segment.frames(data):
        match frame.kind:
            case segment.CHECKPOINT:
                signed = verifier.open(frame.payload)
                if tree is not None:
                    for leaf in waiting:
                        tree.append(leaf)
                    require_signed(tree, signed)
                    waiting, signed_end = [], frame.end
            case segment.TREE if tree is None and signed is not None:
                tree, head_end, signed_end = read_tree(signed, frame.payload), frame.end, frame.end
            case segment.RECORD if tree is not None:
                waiting.append(leaf_hash(frame.payload))
            case _:
                raise AuditLogError("The audit log is damaged: its frames are out of order.")
        end = frame.end
    if any(_opens(verifier, frame) for frame in segment.checkpoints_after(data, end, verifier.name)):
        raise AuditLogError("The audit log is damaged: a record before a signed checkpoint is broken.")
    if tree is None:
        return None
    return Resumed(tree, signed_end, head_end, len(waiting), len(data[signed_end:].rstrip(b"\x00")))


def read_tree(signed: Checkpoint, payload: bytes) -> Tree:
    """The tree of a segment's first two frames. Raises AuditLogError where they contradict each other."""
    tree = tree_of(signed.size, payload)
    require_signed(tree, signed)
    return tree


def tree_of(size: int, payload: bytes) -> Tree:
    """The tree of a tree frame. Raises AuditLogError where it has not the hashes of this size."""
    try:
        return Tree(size, tuple(payload[i : i + HASH_BYTES] for i in range(0, len(payload), HASH_BYTES)))
    except ValueError:
        raise AuditLogError("The audit log is damaged: a tree frame is not valid.") from None


def head_tree(data: bytes, verifier: VerifierKey) -> Tree | None:
    """The tree that a segment begins with, by the word of its first two frames; None where those are others.

    Raises:
        AuditLogError: they contradict each other, or are not signed.
    """
    head = list(islice(segment.frames(data), 2))
    if [frame.kind for frame in head] != [segment.CHECKPOINT, segment.TREE]:
        return None
    return read_tree(verifier.open(head[0].payload), head[1].payload)


def require_signed(tree: Tree, signed: Checkpoint) -> None:
    """Raises AuditLogError unless the checkpoint is of exactly this tree."""
    if (signed.size, signed.root) != (tree.size, tree.root()):
        raise AuditLogError("The audit log is damaged: its records are not what was signed.")


def _opens(verifier: VerifierKey, frame: segment.Frame) -> bool:
    try:
        verifier.open(frame.payload)
    except AuditLogError:
        return False
    return True
