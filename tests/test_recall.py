"""From one start to the next: an older state catches up, an older log shows, and only a person's word goes past that."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from appliance import canonical, config, wiring
from appliance.access import OPERATOR
from appliance.audit import journal as journals
from appliance.audit import segment
from appliance.audit.record import Entry
from appliance.errors import AuditLogError, StateError
from appliance.override import AS_SIGNED, Override
from appliance.registry import Registry
from appliance.site import Site
from appliance.state import trust_detail
from tests.forge import Forge, ForgedSite
from tests.running import records

Work = Callable[[Registry], Awaitable[object]]


def at_rest(site: ForgedSite, work: Work, *, accepting: bool = False) -> Registry:
    """Does something at a site whose appliance is stopped, as the command line does."""

    async def run() -> Registry:
        async with wiring.registry_at_rest(config.read(site.config), accepting=accepting) as registry:
            await work(registry)
            return registry

    return asyncio.run(run())


def activate(version: int) -> Work:
    return lambda registry: registry.activate(OPERATOR, "forged", version)


def roll_back(version: int) -> Work:
    return lambda registry: registry.roll_back(OPERATOR, "forged", version, "a reason")


async def nothing(registry: Registry) -> None:
    pass


def remembered(site: ForgedSite) -> list[int]:
    return [version.version for version in site.state.models["forged"].serving]


@pytest.fixture
def site(tmp_path: Path) -> ForgedSite:
    """Versions 1 to 4 are installed, and none was ever active."""
    vendor = Forge()
    bundles = [vendor.version(number) for number in (1, 2, 3, 4)]
    made = vendor.site(tmp_path)
    for bundle in bundles:
        made.install(bundle)
    return made


def backup(site: ForgedSite, *names: str) -> Path:
    """A copy of some of a site's files, taken now."""
    folder = Path(str(site.root) + ".backup")
    for name in names:
        source, target = site.root / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder


def restore(site: ForgedSite, folder: Path) -> None:
    for path in folder.iterdir():
        target = site.root / path.name
        if path.is_dir():
            shutil.rmtree(target)
            shutil.copytree(path, target)
        else:
            shutil.copy(path, target)


def test_state_that_was_put_back_to_an_older_copy_catches_up_from_the_log(site: ForgedSite) -> None:
    """An attack by an old disk image undoes nothing: floors, the active version and trust are those of the log."""
    at_rest(site, activate(2))
    old = backup(site, "state.json")
    at_rest(site, activate(3))
    at_rest(site, roll_back(2))
    at_rest(site, activate(4))
    restore(site, old)
    assert remembered(site) == [2]
    registry = at_rest(site, nothing)
    assert [version.version for version in registry.acts.state.models["forged"].serving] == [4, 2]
    assert registry.acts.state.highest("forged") == 4
    assert (records(site)[-1]["event"], records(site)[-1]["detail"]) == ("state.recall", {"acts": 3})


def test_state_that_was_put_back_brings_no_earlier_time_back_with_it(site: ForgedSite) -> None:
    """Or whoever also sets the clock back could activate what has expired. Every record counts, an act or not."""
    old = backup(site, "state.json")
    at_rest(site, activate(2))
    later = records(site)[-1]["time"]
    restore(site, old)
    assert at_rest(site, nothing).acts.state.latest >= datetime.fromisoformat(later).replace(microsecond=0)
    restore(site, old)
    with asyncio.Runner() as runner:
        settings = config.read(site.config)
        with wiring.journal(settings, wiring.key_provider(settings)) as journal:
            runner.run(_append(journal, "call"))
    later = records(site)[-1]["time"]
    assert at_rest(site, nothing).acts.state.latest >= datetime.fromisoformat(later).replace(microsecond=0)


def test_what_nobody_has_signed_is_no_act(site: ForgedSite) -> None:
    """Whoever can write the disk of a stopped appliance knows the format, and no key."""
    at_rest(site, activate(2))
    (path,) = (site.root / "audit").glob("*.log")
    data, whole = path.read_bytes(), records(site)
    end = [frame.end for frame in segment.frames(data)][-1]
    vendor = trust_detail("forge", site.state.vendors["forge"])
    forged = b""
    for event, model, detail in (
        (
            "model.activate",
            {"id": "forged", "version": 4, "digest": "00" * 32},
            {"vendor": "forge", "min_supported_version": 1},
        ),
        ("trust.update", None, vendor | {"policy": "00" * 32}),
        ("state.accept", None, None),
    ):
        entry = {"event": event, "index": len(whole), "outcome": "done", "time": whole[-1]["time"], "v": 1}
        whole.append(entry | {name: said for name, said in (("model", model), ("detail", detail)) if said})
        forged += segment.frame(segment.RECORD, canonical.encode(whole[-1]))
    path.write_bytes(data[:end] + forged + data[end + len(forged) :])
    before = site.state
    registry = at_rest(site, nothing)
    assert (registry.acts.state.models, registry.acts.state.vendors) == (before.models, before.vendors)
    assert [record["event"] for record in records(site)] == [record["event"] for record in whole[:-3]]


def test_crash_between_the_record_and_the_state_is_made_good(site: ForgedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Site, "remember", lambda *_: None)
        at_rest(site, activate(2))
    assert site.state.models == {}
    at_rest(site, roll_back(1))
    assert remembered(site) == [1]
    assert site.state.highest("forged") == 2


def test_a_threshold_between_the_record_and_the_state_is_made_good(
    site: ForgedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rest(site, activate(2))
    set_threshold: Work = lambda registry: registry.set_threshold(  # noqa: E731
        OPERATOR, "forged", 2, Override(800_000), "a reason"
    )
    with monkeypatch.context() as patched:
        patched.setattr(Site, "remember", lambda *_: None)
        at_rest(site, set_threshold)
    assert [version.override for version in site.state.models["forged"].serving] == [AS_SIGNED]
    registry = at_rest(site, nothing)
    assert [version.override for version in registry.acts.state.models["forged"].serving] == [Override(800_000)]
    assert (records(site)[-1]["event"], records(site)[-1]["detail"]) == ("state.recall", {"acts": 1})


def test_a_removal_between_the_record_and_the_state_is_made_good(site: ForgedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 3):
        at_rest(site, activate(version))
    assert remembered(site) == [3, 2, 1]
    with monkeypatch.context() as patched:
        patched.setattr(Site, "remember", lambda *_: None)
        at_rest(site, lambda registry: registry.remove(OPERATOR, "forged", 1))
    assert remembered(site) == [3, 2, 1]
    registry = at_rest(site, nothing)
    assert [version.version for version in registry.acts.state.models["forged"].serving] == [3, 2]


def test_log_that_was_put_back_to_an_older_copy_shows(site: ForgedSite) -> None:
    at_rest(site, activate(2))
    old = backup(site, "audit")
    at_rest(site, activate(3))
    restore(site, old)
    with pytest.raises(StateError, match="lacks what this site remembers"):
        at_rest(site, nothing)


def test_log_of_the_same_length_with_other_records_shows(site: ForgedSite) -> None:
    """Whoever holds the audit key can write another log, and not make the site remember it."""
    empty = backup(site, "audit")
    at_rest(site, activate(2))
    restore(site, empty)
    with asyncio.Runner() as runner:
        settings = config.read(site.config)
        with wiring.journal(settings, wiring.key_provider(settings)) as journal:
            runner.run(_append(journal))
    with pytest.raises(StateError, match="lacks"):
        at_rest(site, nothing)


async def _append(journal: journals.Journal, event: str = "start") -> None:
    for _ in range(5):
        await journal.append(Entry(event, outcome="done"))


def test_both_put_back_to_one_moment_is_what_a_machine_cannot_know(site: ForgedSite) -> None:
    """The limit, written down in the threat model: only a size and root noted elsewhere show it."""
    at_rest(site, activate(2))
    old = backup(site, "audit", "state.json")
    at_rest(site, activate(3))
    restore(site, old)
    at_rest(site, nothing)
    assert remembered(site) == [2]


def test_acceptance_goes_on_with_what_the_state_knows_where_the_log_is_older(site: ForgedSite) -> None:
    """And says so in the log: versions that were seen stay seen."""
    at_rest(site, activate(2))
    old = backup(site, "audit")
    at_rest(site, activate(3))
    restore(site, old)
    accept: Work = lambda registry: registry.acts.accept(OPERATOR, "the log's disk was replaced")  # noqa: E731
    at_rest(site, accept, accepting=True)
    registry = at_rest(site, nothing)
    assert (registry.acts.state.highest("forged"), remembered(site)) == (3, [3, 2])
    assert records(site)[-1]["detail"] == {"reason": "the log's disk was replaced"}


@pytest.mark.parametrize("damage", ["missing", "altered", "of another appliance"])
def test_state_that_cannot_be_believed_stops_everything_until_it_is_accepted_from_the_log(
    site: ForgedSite, damage: str, tmp_path: Path
) -> None:
    at_rest(site, activate(2))
    at_rest(site, activate(3))
    at_rest(site, roll_back(1))
    path = site.root / "state.json"
    if damage == "missing":
        path.unlink()
    elif damage == "altered":
        path.write_bytes(path.read_bytes().replace(b'"highest":3', b'"highest":1'))
    else:
        path.write_bytes((Forge().site(tmp_path / "other").root / "state.json").read_bytes())
    with pytest.raises(StateError):
        at_rest(site, nothing)
    at_rest(site, lambda registry: registry.acts.accept(OPERATOR, "a reason"), accepting=True)
    assert (remembered(site), site.state.highest("forged")) == ([1], 3)


def test_acceptance_does_not_paper_over_a_damaged_log(site: ForgedSite) -> None:
    at_rest(site, activate(2))
    (segment,) = (site.root / "audit").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(b"model.activate")] ^= 1
    segment.write_bytes(data)
    for accepting in (False, True):
        with pytest.raises((AuditLogError, StateError)):
            at_rest(site, nothing, accepting=accepting)


def test_acts_are_found_in_whichever_segment_they_lie(site: ForgedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small segments, a state from the middle of them, and every number of them in between."""
    original = journals.Journal.__init__

    def tiny(self: journals.Journal, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options | {"segment_bytes": 2048})

    monkeypatch.setattr(journals.Journal, "__init__", tiny)
    copies = []
    for number in (1, 2, 3, 4):
        copies.append((site.root / "state.json").read_bytes())
        at_rest(site, activate(number))
    assert len(list((site.root / "audit").glob("*.log"))) > 3
    for copy in copies:
        (site.root / "state.json").write_bytes(copy)
        assert at_rest(site, nothing).acts.state.highest("forged") == 4
    (site.root / "state.json").unlink()
    at_rest(site, lambda registry: registry.acts.accept(OPERATOR, "a reason"), accepting=True)
    assert site.state.highest("forged") == 4
