"""A segment's frames in their order, each checkpoint held to the records before it (audit-format sections 3 and 5).

Who recovers a log, verifies one, or looks for the end of what is whole, walks in the same way.
"""

from collections.abc import Iterator
from itertools import islice

from appliance.audit import segment
from appliance.audit.checkpoint import Checkpoint, VerifierKey
from appliance.audit.segment import Frame
from appliance.audit.tree import HASH_BYTES, Tree, leaf_hash
from appliance.errors import AuditLogError


def walk(data: bytes, verifier: VerifierKey, tree: Tree | None = None) -> Iterator[tuple[Frame, Tree]]:
    """Each whole frame, and the tree with it: ``tree``, which grows, or without one that of the segment's own first frames.

    The tree that comes with a first frame alone is not known yet.

    Raises:
        AuditLogError: the next frame has no place there, or does not say what was signed.
    """
    signed, grown = Checkpoint(0, b""), tree or Tree()
    for count, frame in enumerate(segment.frames(data)):
        if frame.kind == segment.CHECKPOINT and count != 1:
            signed = verifier.open(frame.payload)
            if count or tree is not None:
                require_signed(grown, signed)
        elif frame.kind == segment.TREE and count == 1:
            head = read_tree(signed, frame.payload)
            grown = head if tree is None else tree
        elif frame.kind == segment.RECORD and count > 1:
            grown.append(leaf_hash(frame.payload))
        else:
            raise AuditLogError(f"The audit log is damaged at record {grown.size}: its frames are out of order.")
        yield frame, grown


def head_tree(data: bytes, verifier: VerifierKey) -> Tree | None:
    """The tree that a segment begins with, by the word of its first two frames; None where those are others.

    Raises:
        AuditLogError: they contradict each other, or are not signed.
    """
    head = list(islice(segment.frames(data), 2))
    if [frame.kind for frame in head] != [segment.CHECKPOINT, segment.TREE]:
        return None
    return read_tree(verifier.open(head[0].payload), head[1].payload)


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


def require_signed(tree: Tree, signed: Checkpoint) -> None:
    """Raises AuditLogError unless the checkpoint is of exactly this tree."""
    if (signed.size, signed.root) != (tree.size, tree.root()):
        raise AuditLogError(f"The audit log is damaged at record {tree.size}: its records are not what was signed.")
