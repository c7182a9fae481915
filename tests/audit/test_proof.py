"""Receipts: each record of any group can be proved with the log's public key alone, and nothing else can."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit import proof
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.tree import Tree, leaf_hash, root_from
from appliance.errors import AuditLogError
from tests.audit import logs


@settings(max_examples=200)
@given(before=st.integers(0, 300), group=st.integers(1, 40))
def test_every_leaf_of_a_group_leads_to_the_root(before: int, group: int) -> None:
    tree = Tree()
    for i in range(before):
        tree.append(leaf_hash(b"%d" % i))
    leaves = [leaf_hash(b"new %d" % i) for i in range(group)]
    grown = Tree(tree.size, tree.frontier)
    for leaf in leaves:
        grown.append(leaf)
    for i, leaf in enumerate(leaves):
        path = tree.path(before + i, leaves)
        assert root_from(before + i, before + group, leaf, path) == grown.root()
        for wrong in (path[1:], [*path, bytes(32)]):
            assert wrong == path or leads_elsewhere(before + i, before + group, leaf, wrong, grown.root())


def leads_elsewhere(index: int, size: int, leaf: bytes, path: list[bytes], root: bytes) -> bool:
    try:
        return root_from(index, size, leaf, path) != root
    except ValueError:
        return True


def made(folder: Path, count: int) -> list[bytes]:
    """The receipts of so many records that were wanted, of a log that has others before them."""

    async def run() -> list[bytes]:
        journal = logs.journal(folder)
        try:
            receipts = []
            for i in range(count):
                async with journal.entry("call", request_id=f"r{i}") as entry:
                    entry.wants_proof = i % 2 == 0
                assert entry.receipt is not None
                assert bool(entry.receipt.proof) == entry.wants_proof
                receipts.append(entry.receipt.proof)
            return [receipt for receipt in receipts if receipt]
        finally:
            journal.close()

    return asyncio.run(run())


def test_a_receipt_proves_its_own_record_offline(tmp_path: Path) -> None:
    records = None
    for receipt in made(tmp_path, 7):
        index, record = proof.decode(receipt, logs.VERIFIER)
        records = records or logs.records(tmp_path)
        assert records[index]["request_id"] in record.decode()
        assert receipt.startswith(b"c2sp.org/tlog-proof@v1\nextra ")


def test_a_receipt_that_was_changed_in_any_byte_proves_nothing(tmp_path: Path) -> None:
    receipt = made(tmp_path, 3)[1]
    good = proof.decode(receipt, logs.VERIFIER)
    for place in range(len(receipt)):
        damaged = bytearray(receipt)
        damaged[place] ^= 1
        try:
            found = proof.decode(bytes(damaged), logs.VERIFIER)
        except AuditLogError:
            continue
        assert found == good  # a signature line of somebody else's, say: what is proved is the same


def test_a_receipt_of_another_log_proves_nothing(tmp_path: Path) -> None:
    tree = Tree()
    tree.append(leaf_hash(b"forged"))
    note = logs.OTHER_KEY.sign(Checkpoint(1, tree.root()), logs.OTHER_KEY.verifier.id)
    with pytest.raises(AuditLogError):
        proof.decode(proof.encode(0, [], note, b"forged"), logs.VERIFIER)
    assert proof.decode(proof.encode(0, [], note, b"forged"), logs.OTHER_KEY.verifier) == (0, b"forged")
