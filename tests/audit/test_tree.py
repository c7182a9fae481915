"""The Merkle tree, against RFC 6962 section 2.1 as it is written there."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit.tree import Tree, leaf_hash

# The leaves of Certificate Transparency's own tests, and the root over the first n of them.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def merkle_tree_hash(entries: list[bytes]) -> bytes:
    """MTH, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + merkle_tree_hash(entries[:k]) + merkle_tree_hash(entries[k:])).digest()


def grown(entries: list[bytes]) -> Tree:
    tree = Tree()
    for entry in entries:
        tree.append(leaf_hash(entry))
    return tree


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_those_of_certificate_transparencys_own_tests(size: int) -> None:
    assert grown(LEAVES[:size]).root().hex() == ROOTS[size]


@settings(deadline=None, max_examples=60)
@given(size=st.integers(0, 300), salt=st.binary(max_size=8))
def test_every_root_is_the_rfcs(size: int, salt: bytes) -> None:
    entries = [salt + bytes([i % 256]) * (i % 5) + b"%d" % i for i in range(size)]
    assert grown(entries).root() == merkle_tree_hash(entries)


@settings(deadline=None, max_examples=60)
@given(first=st.integers(0, 200), more=st.integers(0, 100))
def test_a_tree_goes_on_from_its_frontier_as_if_it_had_never_stopped(first: int, more: int) -> None:
    entries = [b"%d" % i for i in range(first + more)]
    whole, stopped = grown(entries), grown(entries[:first])
    resumed = Tree(stopped.size, stopped.frontier)
    for entry in entries[first:]:
        resumed.append(leaf_hash(entry))
    assert (resumed.size, resumed.root(), resumed.frontier) == (whole.size, whole.root(), whole.frontier)
    assert len(resumed.frontier) == resumed.size.bit_count()


@pytest.mark.parametrize(("size", "hashes"), [(0, 1), (1, 0), (3, 1), (4, 2)])
def test_a_frontier_of_another_size_is_refused(size: int, hashes: int) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Tree(size, (bytes(32),) * hashes)
