"""Reading the log: the same of a running appliance, a stopped one and a copy, and of a site never without a record of it."""

import asyncio
import csv
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from appliance import config, wiring
from appliance.audit import segment
from appliance.audit.journal import Journal
from appliance.audit.record import Entry, Origin
from appliance.client import CallFailed
from tests import forge
from tests.audit import logs
from tests.cli.running import Ran, run
from tests.forge import Forge, ForgedSite
from tests.running import records, running

AUDITOR = '[[access]]\ncaller = "DNS:auditor"\nroles = ["audit"]\n'


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> ForgedSite:
    """A site whose appliance has answered one call about two images, refused another, and ended."""
    folder = tmp_path_factory.mktemp("answered")
    vendor = Forge()
    site = vendor.site(folder, [vendor.bundle()], AUDITOR)
    for seed in (1, 2):
        (folder / f"{seed}.png").write_bytes(forge.png(forge.image(seed)))
    with running(site) as found, found.client("reader") as client:
        images = [(folder / f"{seed}.png").read_bytes() for seed in (1, 2)]
        client.classify("forged", images, client_reference="study-9")
        with pytest.raises(CallFailed):
            client.classify("forged", [b"no image"])
    return site


@pytest.fixture(params=["stopped", "running", "copied"])
def log(request: pytest.FixtureRequest, answered: ForgedSite, tmp_path: Path) -> Iterator[Path]:
    if request.param == "copied":
        yield Path(shutil.copytree(answered.root / "audit", tmp_path / "copy"))
        return
    with running(answered) if request.param == "running" else nullcontext():
        yield answered.root


def answer_of(site: ForgedSite) -> dict[str, object]:
    return next(r for r in records(site) if r.get("client_reference") == "study-9")


def test_tail_show_and_search_find_the_same_record(log: Path, answered: ForgedSite) -> None:
    record = answer_of(answered)
    shown = run("audit", "show", record["index"], log)
    assert (shown.code, json.loads(shown.out)) == (0, record)
    line = run("audit", "search", log, "--reference", "study-9").out
    assert line.count("\n") == 1
    for word in (str(record["index"]), str(record["time"]), "Classify", "answered", "DNS:reader", "forged"):
        assert word in line
    assert line in run("audit", "tail", log, "-n", 1000).out
    assert run("audit", "tail", log, "-n", 1).out.count("\n") == 1


def test_search_by_anything_and_export_the_exact_bytes(log: Path, answered: ForgedSite) -> None:
    def found(*arguments: object) -> list[dict[str, object]]:
        ran = run("audit", "search", log, "--format", "jsonl", *arguments)
        assert (ran.code, ran.err) == (0, "")
        return [json.loads(line) for line in ran.out.splitlines()]

    record = answer_of(answered)
    index, when = int(str(record["index"])), str(record["time"])
    everything = run("audit", "search", log, "--format", "jsonl").out.encode().splitlines()
    assert everything[index] == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert [json.loads(line)["index"] for line in everything] == list(range(len(everything)))
    assert record in found("--caller", "DNS:reader", "--model", "forged", "--event", "call", "--outcome", "answered")
    assert next(r["index"] for r in found("--first", index, "--until", "2200-01-01")) == index
    assert found("--since", when)[0] == record
    assert record not in found("--until", when)
    assert found("--outcome", "invalid", "--until", "2200-01-01")[0]["error"] == "invalid_input"
    letters = str(record["output"]["decisions"])  # type: ignore[index]
    words = {"A": "accept", "B": "abstain", "O": "out-of-distribution"}
    assert all((record in found("--decision", word)) == (letter in letters) for letter, word in words.items())
    rows = list(csv.DictReader(io.StringIO(run("audit", "search", log, "--format", "csv").out)))
    assert (rows[index]["method"], rows[index]["rows"], rows[index]["decisions"]) == (record["method"], "2", letters)
    [event] = run("audit", "search", log, "--format", "fhir", "--reference", "study-9").out.splitlines()
    said = json.loads(event)
    assert said["source"]["observer"]["identifier"]["value"].startswith("appliance-audit/")
    assert (said["recorded"], len(said["entity"])) == (when, 3)
    [message] = run("audit", "search", log, "--format", "dicom", "--reference", "study-9").out.splitlines()
    assert message.startswith("<AuditMessage><EventIdentification ")
    assert (when in message, message.count("<ParticipantObjectIdentification ")) == (True, 4)
    assert run("audit", "search", log, "--since", "yesterday").code == 2


def test_that_a_site_was_read_is_on_record_before_the_next_thing(answered: ForgedSite) -> None:
    before = len(records(answered))
    assert run("audit", "tail", answered.root).code == 0
    read = [(r["event"], r["outcome"], r["caller"]["name"]) for r in records(answered)[before:]]
    assert read == [("audit.read", "done", "LOCAL:operator")]


def test_a_receipt_is_checked_with_the_public_key_alone(log: Path, answered: ForgedSite, tmp_path: Path) -> None:
    record, key = answer_of(answered), answered.root / "audit" / "log.vkey"
    receipt = tmp_path / "receipt"
    assert run("audit", "prove", record["index"], log, "-o", receipt) == Ran(0, "", "")
    checked = run("audit", "receipt", receipt, "--key", key, "--json")
    assert checked.code == 0
    assert json.loads(checked.out)["record"] == record
    assert f"record {record['index']}" in run("audit", "receipt", receipt, "--key", key).out
    receipt.write_bytes(receipt.read_bytes().replace(b"index ", b"index 1"))
    assert run("audit", "receipt", receipt, "--key", key).code == 4
    assert run("audit", "prove", 10**9, log).code == 4


def test_the_file_that_was_scored_is_known_and_no_other(answered: ForgedSite, tmp_path: Path) -> None:
    record, folder = answer_of(answered), answered.root.parent
    for row in (0, 1):
        ran = run("audit", "prove", record["index"], answered.root, "--image", folder / f"{row + 1}.png")
        assert ran.code == 0
        assert ran.err.startswith(f"The file is row {row} of record {record['index']}")
        assert "forged version 1" in ran.err
    other = tmp_path / "other.png"
    other.write_bytes(forge.png(forge.image(3)))
    assert run("audit", "prove", record["index"], answered.root, "--image", other).code == 4
    copy = shutil.copytree(answered.root / "audit", tmp_path / "copy")
    ran = run("audit", "prove", record["index"], copy, "--image", other)
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_an_auditor_reads_over_the_network_and_does_nothing_else(answered: ForgedSite) -> None:
    with running(answered) as found, found.client("auditor") as auditor, found.client("reader") as ward:
        newest = list(auditor.read_audit(newest=3, receipts=True))
        assert len(newest) == 3
        assert all(record.receipt.startswith(b"c2sp.org/tlog-proof@v1\n") for record in newest)
        assert [r.index for r in auditor.read_audit(2, limit=2)] == [2, 3]
        assert json.loads(next(iter(auditor.read_audit(newest=1))).record)["method"].endswith("/ReadAudit")
        for forbidden in (
            lambda: list(ward.read_audit()),
            lambda: auditor.list_models(),
            lambda: auditor.classify("forged", [b""]),
        ):
            with pytest.raises(CallFailed) as caught:
                forbidden()
            assert caught.value.status == "PERMISSION_DENIED"
    assert np.all([r.get("outcome") != "failed" for r in records(answered)])


def test_a_damaged_log_stops_the_appliance_until_its_gap_is_accepted(answered: ForgedSite, tmp_path: Path) -> None:
    site = Path(shutil.copytree(answered.root, tmp_path / "site"))
    assert run("audit", "accept-gap", "--site", site, "--reason", "none").code == 2, "nothing is damaged"
    path = next((site / "audit").glob("*.log"))
    data = path.read_bytes()
    place = data.index(b"study-9")
    path.write_bytes(data[:place] + b"S" + data[place + 1 :])
    stopped = run("serve", "--config", site / "appliance.toml")
    assert (stopped.code, "damaged" in stopped.err) == (4, True)
    assert run("audit", "accept-gap", "--site", site, "--reason", "").code == 2
    key = (site / "audit" / "log.vkey").read_text()
    (site / "audit" / "log.vkey").write_text(logs.VERIFIER.encode())
    ran = run("audit", "accept-gap", "--site", site, "--reason", "a key of another backup")
    assert (ran.code, "put the right one back" in ran.err) == (2, True)
    (site / "audit" / "log.vkey").write_text(key)
    assert path.read_bytes()[place : place + 1] == b"S", "nothing was touched for a reason that is none"
    ran = run("audit", "accept-gap", "--site", site, "--reason", "the disk had a bad sector")
    assert (ran.code, ran.err) == (0, "")
    assert run("audit", "verify", site).code == 0
    newest = json.loads(run("audit", "search", site / "audit", "--event", "audit.accept-gap", "--format", "jsonl").out)
    assert newest["detail"]["reason"] == "the disk had a bad sector"
    assert newest["detail"]["size"] == newest["index"]
    assert f"begins at record 0 and goes on with record {newest['index']}" in ran.out
    assert run("audit", "tail", site).code == 0
    assert run("check", "--site", site).code == run("check", "--site", answered.root).code


def test_once_an_epochs_key_is_erased_nobody_can_say_which_file_it_was(answered: ForgedSite, tmp_path: Path) -> None:
    record, image = answer_of(answered), answered.root.parent / "1.png"
    root = Path(shutil.copytree(answered.root, tmp_path / "site"))
    site = ForgedSite(root, answered.authority, answered.root.parent, answered.vendor, answered.repository)
    where = ("--site", site.root, "--reason", "the retention of 2026 is over")
    assert run("audit", "erase-epoch", 1, *where).code == 2, "it is not over"
    assert run("audit", "new-epoch", *where) == Ran(0, "Epoch 2 begins when the appliance starts.\n", "")
    with running(site) as found, found.client("reader") as client:
        client.classify("forged", [image.read_bytes()], client_reference="study-10")
    assert run("audit", "prove", record["index"], site.root, "--image", image).code == 0, "an old epoch's key is still there"
    assert run("audit", "erase-epoch", 1, *where).code == 0
    ran = run("audit", "prove", record["index"], site.root, "--image", image)
    assert (ran.code, "was erased" in ran.err) == (2, True)
    ran = run("audit", "erase", record["index"], *where)
    assert (ran.code, "was erased" in ran.err) == (2, True)
    ran = run("audit", "prove", 0, site.root, "--image", image)
    assert (ran.code, "was erased" in ran.err) == (4, False), "a record without images has no epoch that could be erased"
    ran = run("audit", "erase", 0, *where)
    assert (ran.code, "no such image" in ran.err) == (2, True)
    later = next(r for r in records(site) if r.get("client_reference") == "study-10")
    assert (record["input"]["epoch"], later["input"]["epoch"]) == (1, 2)  # type: ignore[index]
    assert later["input"]["pseudonyms"][0] not in str(record)
    assert run("audit", "prove", later["index"], site.root, "--image", image).code == 0
    assert run("audit", "verify", site.root).code == 0, "every proof is valid still"
    assert run("audit", "prove", record["index"], site.root, "-o", tmp_path / "receipt").code == 0
    for wrong in (1, 2, 3):
        assert run("audit", "erase-epoch", wrong, *where).code == 2
    acts = [(r["event"], r["detail"]["epoch"]) for r in records(site) if r["event"].startswith("epoch.")]
    assert acts == [("epoch.begin", 2), ("epoch.erase", 1)]
    assert run("check", "--site", site.root).code == run("check", "--site", answered.root).code


def test_a_row_that_was_erased_is_never_matched_again_and_every_other_row_is(answered: ForgedSite, tmp_path: Path) -> None:
    record, folder = answer_of(answered), answered.root.parent
    index, root = record["index"], Path(shutil.copytree(answered.root, tmp_path / "site"))
    site = ForgedSite(root, answered.authority, folder, answered.vendor, answered.repository)
    where = ("--site", site.root, "--reason", "a patient has asked for it")

    def proved(row: int) -> Ran:
        return run("audit", "prove", index, site.root, "--image", folder / f"{row + 1}.png")

    assert run("audit", "prove", index, site.root, "-o", tmp_path / "receipt").code == 0
    for wrong in ((index, "--row", 2), (0,), (10**9,)):
        assert run("audit", "erase", *wrong, *where).code in (2, 4)
    assert run("audit", "erase", index, "--site", site.root, "--reason", "").code == 2
    assert (proved(0).code, proved(1).code) == (0, 0), "nothing was erased for a reason that is none"
    key, old = root / "keys" / "pseudonym-key.key", root / "keys" / "pseudonym-key.key.old"
    whole = key.read_bytes()
    erased = run("audit", "erase", index, "--row", 0, *where)
    assert erased == Ran(0, f"The keys of 1 images of record {index} are erased. Erase their backups too.\n", "")
    assert (proved(0).code, "1 of the 2 images" in proved(0).err, "were erased" in proved(0).err) == (2, True, True)
    assert (proved(1).code, "The file is row 1" in proved(1).err) == (0, True)
    old.write_bytes(whole)  # a crash before it was overwritten
    assert run("audit", "erase", index, "--row", 0, *where).code == 2, "it was erased already"
    assert not old.exists(), "what a crash left is erased before anybody is told so"
    with running(site) as found, found.client("reader") as client:
        client.classify("forged", [(folder / "1.png").read_bytes()], client_reference="study-11")
    later = next(r for r in records(site) if r.get("client_reference") == "study-11")
    ran = run("audit", "prove", later["index"], site.root, "--image", folder / "1.png")
    assert (ran.code, "The file is row 0" in ran.err) == (0, True), "the same image, in another call"
    assert run("audit", "erase", index, *where).out.startswith("The keys of 1 images")
    assert (proved(1).code, "2 of the 2 images" in proved(1).err) == (2, True)
    assert run("audit", "verify", site.root).code == 0
    assert run("audit", "receipt", tmp_path / "receipt", "--key", site.root / "audit" / "log.vkey").code == 0
    acts = [r["detail"] for r in records(site) if (r["event"], r["outcome"]) == ("audit.erase", "done")]
    reason = {"reason": "a patient has asked for it"}
    assert acts == [reason | {"index": index, "row": 0}, reason | {"index": index}]
    assert run("check", "--site", site.root).code == run("check", "--site", answered.root).code


def test_a_record_that_was_altered_proves_nothing_and_erases_nothing(answered: ForgedSite, tmp_path: Path) -> None:
    record, root = answer_of(answered), Path(shutil.copytree(answered.root, tmp_path / "site"))
    keys = {path: path.read_bytes() for path in (root / "keys").iterdir()}
    path = next((root / "audit").glob("*.log"))
    data = path.read_bytes()
    frame = next(f for f in segment.frames(data) if b"study-9" in f.payload)
    other = segment.frame(segment.RECORD, frame.payload.replace(b"study-9", b"study-8"))
    path.write_bytes(data[: frame.end - len(other)] + other + data[frame.end :])
    for act in ("prove", "--image", answered.root.parent / "1.png"), ("erase", "--reason", "none"):
        command, *options = act
        where = ("--site", root) if command == "erase" else (root,)
        assert run("audit", command, record["index"], *where, *options).code == 4
    assert keys == {path: path.read_bytes() for path in (root / "keys").iterdir()}


def test_what_is_old_is_deleted_as_whole_files_and_the_site_goes_on(answered: ForgedSite, tmp_path: Path) -> None:
    root = Path(shutil.copytree(answered.root, tmp_path / "site"))
    site = ForgedSite(root, answered.authority, answered.root.parent, answered.vendor, answered.repository)
    where = ("--site", site.root, "--reason", "six years are over")
    assert run("audit", "prune", "--before", "2001-01-01", *where) == Ran(0, "No file is old enough as a whole.\n", "")
    asyncio.run(_fill(site))
    before = len(list((site.root / "audit").glob("*.log")))
    ran = run("audit", "prune", "--before", "2200-01-01", *where)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{before - 1} files are deleted; the log begins at record ")
    assert run("audit", "verify", site.root).code == 0
    with running(site) as found, found.client("reader") as client:
        client.classify("forged", [(answered.root.parent / "1.png").read_bytes()])
    assert run("audit", "verify", site.root).code == 0
    assert records(site)[-1]["event"] == "stop"


async def _fill(site: ForgedSite) -> None:
    """So many records that some segments are full."""
    settings = config.read(site.config, to_serve=False)
    keys = wiring.key_provider(settings)
    journal = Journal(settings.audit, wiring.log_key(keys), Origin.here(settings.digest, "0"), segment_bytes=1 << 16)
    await asyncio.gather(*[journal.append(Entry("call", "answered")) for _ in range(600)])
    journal.close()
