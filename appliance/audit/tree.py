"""The Merkle tree of RFC 6962 section 2.1, as an appender needs it: the roots of the perfect subtrees, largest first."""

import hashlib

HASH_BYTES = 32


def leaf_hash(record: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that only grows. ``frontier`` has one 32-byte hash for each 1 bit of ``size``."""

    def __init__(self, size: int = 0, frontier: tuple[bytes, ...] = ()) -> None:
        if len(frontier) != size.bit_count():
            raise ValueError("a frontier has one hash for each 1 bit of the size")
        self.size = size
        self._frontier = list(frontier)

    @property
    def frontier(self) -> tuple[bytes, ...]:
        return tuple(self._frontier)

    def append(self, leaf: bytes) -> None:
        """Adds a leaf's hash."""
        size = self.size
        while size & 1:  # a full subtree stands to the left: the two become one
            leaf = node_hash(self._frontier.pop(), leaf)
            size >>= 1
        self._frontier.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self._frontier:
            return hashlib.sha256(b"").digest()
        root = self._frontier[-1]
        for left in reversed(self._frontier[:-1]):
            root = node_hash(left, root)
        return root
