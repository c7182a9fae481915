"""Our logs and receipts, checked by Go's own implementation of the same published formats."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.audit import stored, tiles
from appliance.audit.record import Entry
from tests.audit import logs

HERE, PACKAGES = Path(__file__).parent, Path("/usr/share/gocode")
pytestmark = pytest.mark.skipif(
    shutil.which("go") is None or not (PACKAGES / "src/golang.org/x/mod/sumdb/tlog").exists(),
    reason="golang-go and golang-golang-x-mod-dev are not installed",
)
RECORDS = 700


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("go") / "independent"
    settings = os.environ | {"GO111MODULE": "off", "GOPATH": str(PACKAGES), "GOCACHE": str(built.parent / "cache")}
    subprocess.run(["go", "build", "-o", built, HERE / "independent.go"], env=settings, check=True, cwd=built.parent)
    return built


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several segments and of groups of all sizes: its key, its records as they are exported, every receipt."""
    folder = tmp_path_factory.mktemp("evidence")

    async def run() -> None:
        journal = logs.journal(folder / "log", segment_bytes=1 << 15)
        for group in range(1, RECORDS):
            if journal.position.size + group > RECORDS:
                break
            await asyncio.gather(*[journal.append(Entry("call", "done", method="/ä")) for _ in range(group)])
        journal.close()

    asyncio.run(run())
    found = list(stored.read(folder / "log"))
    (folder / "log.vkey").write_text(logs.VERIFIER.encode() + "\n")
    (folder / "records.jsonl").write_bytes(b"".join(one.data + b"\n" for one in found))
    for one in found:
        (folder / f"{one.index:06d}.receipt").write_bytes(one.receipt())
    assert tiles.write(folder / "log", folder / "tiles") == len(found)
    return folder


def check(checker: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    receipts = sorted(folder.glob("*.receipt"))
    command = [checker, folder / "log.vkey", folder / "records.jsonl", folder / "tiles", *receipts]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_receipt_and_every_tree_is_what_go_says(checker: Path, evidence: Path) -> None:
    count = len(list(evidence.glob("*.receipt")))
    assert count > RECORDS * 0.9
    ran = check(checker, evidence)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{count} records, {count} receipts, tree of {count}\n"


@pytest.mark.parametrize(
    "broken",
    ["records.jsonl", "log.vkey", "000007.receipt", "tiles/checkpoint", "tiles/tile/0/000", "tiles/tile/entries/000"],
)
def test_go_finds_what_was_changed(checker: Path, evidence: Path, tmp_path: Path, broken: str) -> None:
    folder = shutil.copytree(evidence, tmp_path / "copy")
    data = bytearray((folder / broken).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / broken).write_bytes(data)
    assert check(checker, folder).returncode == 1
