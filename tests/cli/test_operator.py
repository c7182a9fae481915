"""The same commands, whether the appliance is running or stopped: the same effect, sentences and exit codes."""

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import pytest

from tests.cli.running import Ran, run
from tests.forge import CARD, Forge, ForgedSite, parts
from tests.running import records, running


@pytest.fixture(params=["stopped", "running"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForgedSite]:
    """Version 1 is active; 2 and 3 are published, and lie beside the site with their grants."""
    vendor = Forge()
    bundles = {number: vendor.version(number) for number in (1, 2, 3)}
    made = vendor.site(tmp_path, [bundles[1]])
    for number, bundle in bundles.items():
        (tmp_path / f"{number}.bundle").write_bytes(bundle)
        (tmp_path / f"{number}.grant").write_bytes(vendor.grant_today(bundle))
    with running(made) if request.param == "running" else nullcontext():
        yield made


def command(site: ForgedSite, *arguments: object) -> Ran:
    return run(*arguments, "--site", site.root)


def install(site: ForgedSite, number: int) -> Ran:
    folder = site.root.parent
    return command(site, "models", "install", "--bundle", folder / f"{number}.bundle", "--grant", folder / f"{number}.grant")


def states(site: ForgedSite) -> dict[int, str]:
    return {row["version"]: row["state"] for row in json.loads(command(site, "models", "list", "--json").out)}


def test_life_of_three_versions(site: ForgedSite) -> None:
    for number in (2, 3):
        assert install(site, number).code == 0
        ran = command(site, "models", "activate", "forged", number)
        assert (ran.code, ran.err) == (0, "")
    assert states(site) == {1: "", 2: "kept", 3: "active"}
    ran = command(site, "models", "activate", "forged", 2)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "appliance: Version 2 is older than version 3, the lowest that may serve here.\n"
    assert command(site, "models", "rollback", "forged", 2, "--reason", "misses small nodules").code == 0
    assert states(site) == {1: "kept", 2: "active", 3: ""}
    ran = command(site, "models", "remove", "forged", 1)
    assert (ran.code, ran.err) == (2, "appliance: version 1 of forged serves\n"), "a version that is kept too"
    assert command(site, "models", "remove", "forged", 3).code == 0
    assert command(site, "models", "remove", "forged", 2).code == 2
    assert states(site) == {1: "kept", 2: "active"}
    assert command(site, "models", "deactivate", "forged", "--reason", "recalled").code == 0
    assert states(site) == {1: "", 2: ""}
    assert list(site.site.incoming.iterdir()) == []
    events = [record["event"] for record in records(site) if record["event"].startswith("model.") and "caller" in record]
    assert events == [
        "model.install", "model.activate", "model.install", "model.activate", "model.activate", "model.rollback",
        "model.remove", "model.remove", "model.remove", "model.deactivate",
    ]  # fmt: skip


def test_card_of_any_installed_version_is_shown_and_the_reading_is_on_record(site: ForgedSite) -> None:
    """Of one that answers, and of one that nobody has activated yet: that is when a card is wanted most."""
    digests = {row["version"]: row["digest"] for row in json.loads(command(site, "models", "list", "--json").out)}
    ran = command(site, "models", "card", "forged")
    assert (ran.code, ran.out) == (0, CARD.decode() + "\n")
    assert ran.err == f"forged version 1, digest {digests[1]}\n"
    assert install(site, 2).code == 0
    said = json.loads(command(site, "models", "card", "forged", 2, "--json").out)
    assert (said["name"], said["version"], said["card"]) == ("forged", 2, CARD.decode())
    assert states(site) == {1: "active", 2: ""}
    *_, last = [record for record in records(site) if record["event"] == "model.card"]
    assert last["model"] == {"id": "forged", "version": 2, "digest": said["digest"]}
    assert (last["caller"]["name"], last["outcome"]) == ("LOCAL:operator", "done")


def test_card_of_a_bundle_that_is_not_good_is_not_shown(site: ForgedSite) -> None:
    assert install(site, 2).code == 0
    path = site.root / "models" / "forged" / "2" / "model.bundle"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ran = command(site, "models", "card", "forged", 2)
    assert (ran.code, ran.out, ran.err) == (3, "", "appliance: A part of the bundle is not what was signed.\n")
    site.vendor.publish((site.root.parent / "2.bundle").read_bytes(), "Wrong for children.")
    site.vendor.say(site.repository)
    assert command(site, "trust", "update", site.medium).code == 0
    ran = command(site, "models", "card", "forged", 2)
    assert (ran.code, ran.out, "revoked" in ran.err) == (3, "", True)


def test_card_cannot_speak_to_a_terminal(tmp_path: Path) -> None:
    """A vendor's words stay words: no sequence of theirs clears a screen or renames a window."""
    vendor = Forge()
    hidden = "\u202e\u2066\u2069\u200f\u061c\u2028\U000e0041"  # what turns words round, breaks lines, or is not seen
    text = f"# A\x1b[2J model\r\n\tof\x9b31m\x07{hidden} Zürich\u00a08001, \u05d0\u05d1\n"
    site = vendor.site(tmp_path, [vendor.bundle(None, parts() | {"card": text.encode()})])
    assert command(site, "models", "card", "forged").out == "# A[2J model\n\tof31m Zürich\u00a08001, \u05d0\u05d1\n\n"
    printed = command(site, "models", "card", "forged", "--json").out
    assert json.loads(printed)["card"] == text, "a script gets all of it"
    assert printed.replace("\n", "").isprintable()
    assert "Zürich" in printed


def thresholds(site: ForgedSite) -> dict[int, dict[str, int]]:
    return {row["version"]: row["override"] for row in json.loads(command(site, "models", "list", "--json").out)}


def test_threshold_is_set_shown_and_taken_back(site: ForgedSite) -> None:
    which = ("models", "threshold", "forged", 1)
    ran = command(site, *which, "--accept-at-least", "0.8", "--reason", "until the next version")
    assert (ran.code, ran.out, ran.err) == (0, "forged version 1 accepts at 0.8 or more.\n", "")
    assert thresholds(site) == {1: {"accept_at_least_e6": 800_000}}
    assert "accepts" in command(site, "models", "list").out
    assert (
        "forged 1: by an operator's act, and not as its vendor has signed, it accepts at 0.8" in command(site, "check").out
    )
    ran = command(site, *which, "--as-signed", "--reason", "the next version is on its way")
    assert (ran.code, ran.out, ran.err) == (0, "forged version 1 decides as signed.\n", "")
    assert thresholds(site) == {1: {}}
    acts = [record for record in records(site) if record["event"] == "model.threshold"]
    assert [(act["outcome"], act["caller"]["name"]) for act in acts] == [("done", "LOCAL:operator")] * 2


def test_threshold_of_a_version_that_no_longer_answers_is_shown_nowhere_and_can_be_taken_back(site: ForgedSite) -> None:
    which = ("models", "threshold", "forged", 1)
    assert command(site, *which, "--accept-at-least", "0.8", "--reason", "x").code == 0
    for number in (2, 3):
        assert install(site, number).code == 0
        assert command(site, "models", "activate", "forged", number).code == 0
    assert thresholds(site) == {1: {}, 2: {}, 3: {}}
    assert "an operator's act" not in command(site, "check").out
    ran = command(site, *which, "--as-signed", "--reason", "it is over")
    assert (ran.code, ran.out, ran.err) == (0, "forged version 1 decides as signed.\n", "")


@pytest.mark.parametrize("given", [
    (), ("--as-signed", "--accept-at-least", "0.5"), ("--accept-at-least", "0.1234567"), ("--accept-at-least", "nan"),
    ("--accept-at-least", "inf"), ("--accept-at-least", "half"), ("--reject-above", "1e99"),
    ("--reject-above", "1e999999"), ("--accept-at-least", "1_0"), ("--accept-at-least", "٥"),
])  # fmt: skip
def test_what_is_no_threshold_is_refused_before_anything_is_on_record(site: ForgedSite, given: tuple[str, ...]) -> None:
    before = len(records(site))
    ran = command(site, "models", "threshold", "forged", 1, *given, "--reason", "x")
    assert (ran.code, ran.out) == (2, "")
    assert len(records(site)) == before


def test_grant_is_renewed(site: ForgedSite) -> None:
    vendor, bundle = site.vendor, (site.root.parent / "1.bundle").read_bytes()
    later = vendor.terms(bundle).not_after.replace(year=2040)
    path = site.root.parent / "newer.grant"
    path.write_bytes(vendor.grant_today(bundle, not_after=later))
    ran = command(site, "models", "renew", "--grant", path)
    assert (ran.code, ran.out) == (0, f"forged version 1 is granted until {later:%Y-%m-%dT%H:%M:%SZ}.\n")
    (row,) = json.loads(command(site, "models", "list", "--json").out)
    assert row["granted_until"] == f"{later:%Y-%m-%d}"


@pytest.mark.parametrize(("arguments", "code", "sentence"), [
    (("models", "activate", "forged", 9), 2, "version 9 of forged is not installed"),
    (("models", "activate", "x" * 70_000, 1), 2, "is not installed"),
    (("models", "rollback", "forged", 1, "--reason", "x"), 2, "activate it instead"),
    (("models", "card", "forged", 9), 2, "version 9 of forged is not installed"),
    (("models", "card", "other"), 2, "other is not active: give a version that is installed"),
    (("models", "card", "x" * 70_000, 1), 2, "is not installed"),
    (("models", "rollback", "forged", 1, "--reason", "x" * 201), 2, "a reason has 1 to 200"),
    (("models", "remove", "forged", 1), 2, "serves"),
    (("models", "threshold", "forged", 1, "--reject-above", "3", "--reason", "x"), 2, "does not tell unknown inputs"),
    (("models", "threshold", "forged", 1, "--accept-at-least", "1.1", "--reason", "x"), 2, "is from 0 to 1"),
    (("models", "threshold", "forged", 2, "--accept-at-least", "1", "--reason", "x"), 2, "2 of forged does not serve"),
    (("models", "deactivate", "other", "--reason", "x"), 2, "other is not active"),
])  # fmt: skip
def test_what_is_refused_is_refused_alike(site: ForgedSite, arguments: tuple[object, ...], code: int, sentence: str) -> None:
    ran = command(site, *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert sentence in ran.err
    assert states(site) == {1: "active"}


def test_bundle_of_a_stranger_is_exit_three(site: ForgedSite) -> None:
    stranger = Forge()
    bundle = stranger.version(2)
    (site.root.parent / "2.bundle").write_bytes(bundle)
    ran = install(site, 2)
    assert (ran.code, ran.err) == (3, "appliance: The file is not signed by a key that is trusted for it here.\n")


def test_trust_is_updated_shown_and_never_taken_back(site: ForgedSite) -> None:
    shutil.copytree(site.medium, site.root.parent / "old")
    site.vendor.publish((site.root.parent / "1.bundle").read_bytes(), "Wrong for children.")
    site.vendor.say(site.repository)
    ran = command(site, "trust", "update", site.medium)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("forge is trusted as of this repository, which is fresh until ")
    (row,) = json.loads(command(site, "trust", "show", "--json").out)
    shown = (row["vendor"], row["timestamp"], row["bundles"], row["revoked_bundles"], row["fresh"])
    assert shown == ("forge", 3, 3, 1, True)
    assert "forge" in command(site, "trust", "show").out
    ran = command(site, "trust", "update", site.root.parent / "old")
    assert (ran.code, ran.err) == (3, "appliance: The trust repository is older than one that this site has seen.\n")
    (row,) = json.loads(command(site, "models", "list", "--json").out)
    assert (row["state"], row["revoked"]) == ("active", "Wrong for children.")
    ran = command(site, "models", "activate", "forged", 1)
    assert (ran.code, ran.err) == (3, "appliance: The vendor has revoked this bundle: Wrong for children.\n")
    assert "PROBLEM  forged 1: The vendor has revoked this bundle: Wrong for children." in command(site, "check").out


def test_new_vendor_is_asked_about(site: ForgedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a wrong fingerprint, or a no, changes nothing."""
    other = Forge("other")
    folder = site.root.parent / "other"
    repository = other.repository(folder)
    ran = command(site, "trust", "update", folder, "--fingerprint", "0000")
    assert (ran.code, repository.root_fingerprint in ran.err) == (3, True)
    for answer, code in (("n\n", 130), ("y\n", 0)):
        monkeypatch.setattr("sys.stdin", StringIO(answer))
        ran = command(site, "trust", "update", folder)
        assert (ran.code, repository.root_fingerprint in ran.out) == (code, True)
    assert {row["vendor"] for row in json.loads(command(site, "trust", "show", "--json").out)} == {"forge", "other"}


def test_state_is_accepted_with_a_reason(site: ForgedSite) -> None:
    assert command(site, "state", "accept", "--reason", "the clock was wrong").code == 0
    (record,) = [record for record in records(site) if record["event"] == "state.accept"]
    assert record["detail"] == {"reason": "the clock was wrong"}


def test_calls_of_an_operator_are_on_record_with_the_acts_they_led_to(tmp_path: Path) -> None:
    vendor = Forge()
    site = vendor.site(tmp_path, [vendor.version(1)])
    with running(site):
        assert command(site, "models", "activate", "forged", 1).code == 0
    call = next(record for record in records(site) if record["event"] == "call")
    act = next(record for record in records(site) if record["event"] == "model.activate")
    assert call["method"] == "/appliance.v1.Administration/ActivateModel"
    assert (call["caller"]["name"], call["outcome"]) == ("LOCAL:operator", "answered")
    assert call["request_id"] == act["request_id"]
