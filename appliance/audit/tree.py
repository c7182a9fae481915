"""The Merkle tree of RFC 6962 section 2.1, as an appender needs it: the roots of the perfect subtrees, largest first."""

import hashlib
from collections.abc import Sequence

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

    def copy(self) -> "Tree":
        """A tree that grows by itself."""
        return Tree(self.size, self.frontier)

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

    def path(self, index: int, appended: Sequence[bytes]) -> list[bytes]:
        """The inclusion proof of one of the leaves ``appended`` behind this tree, in the tree they make (section 2.1.1).

        The roots of the perfect subtrees are enough: a later leaf's path has nothing smaller of the older ones.
        """
        return self._path(index, 0, self.size + len(appended), appended)

    def _path(self, index: int, start: int, stop: int, appended: Sequence[bytes]) -> list[bytes]:
        if stop - start == 1:
            return []
        middle = start + split(stop - start)
        if index < middle:
            return [*self._path(index, start, middle, appended), self._hash(middle, stop, appended)]
        return [*self._path(index, middle, stop, appended), self._hash(start, middle, appended)]

    def _hash(self, start: int, stop: int, appended: Sequence[bytes]) -> bytes:
        """The hash of the leaves ``start`` to ``stop``, which begin where a subtree of ours does, or behind all of them."""
        if start >= self.size and stop - start == 1:
            return appended[start - self.size]
        if stop <= self.size and (stop - start).bit_count() == 1:
            place = 0
            for i, bit in enumerate(b for b in range(self.size.bit_length() - 1, -1, -1) if self.size >> b & 1):
                if (place, 1 << bit) == (start, stop - start):
                    return self._frontier[i]
                place += 1 << bit
        middle = start + split(stop - start)
        return node_hash(self._hash(start, middle, appended), self._hash(middle, stop, appended))


def split(size: int) -> int:
    """The largest power of two below ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def root_from(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2). Raises ValueError where it leads nowhere."""
    if not 0 <= index < size:
        raise ValueError("the index is not inside the tree")
    place, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ValueError("the path is too long")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ValueError("the path is too short")
    return found
