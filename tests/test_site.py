"""The site directory: what is installed, what the vendors say, what is remembered; and what a stray file does not change."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.errors import ConfigError, NotAdmitted, StateError
from appliance.site import Site
from appliance.state import State
from tests.forge import Forge, ForgedSite

SEED = bytes(32)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("models", "trust"):
        (tmp_path / name).mkdir()
    return Site(tmp_path)


def install(site: Site, name: str, version: int, bundle: bytes = b"bundle", grant: bytes = b"grant") -> None:
    incoming = site.incoming / "x"
    incoming.write_bytes(bundle)
    site.install(name, version, incoming, grant)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_installed_is_listed_by_name_and_number(site: Site) -> None:
    for name, version in (("chest", 10), ("skin", 1), ("chest", 9)):
        install(site, name, version)
    assert [(found.name, found.version) for found in site.installed()] == [("chest", 9), ("chest", 10), ("skin", 1)]
    found = site.find("chest", 10)
    assert (found.read(), found.permit()) == (b"bundle", b"grant")
    with pytest.raises(ConfigError, match="version 8 of chest is not installed"):
        site.find("chest", 8)


def test_stray_folders_are_passed_over(site: Site, tmp_path: Path) -> None:
    install(site, "chest", 1)
    for stray in ("chest/old", "chest/2.bak", "chest/-1"):
        (tmp_path / "models" / stray).mkdir()
        (tmp_path / "models" / stray / "model.bundle").write_bytes(b"x")
    (tmp_path / "models" / "chest" / "3").mkdir()
    assert [found.version for found in site.installed()] == [1]


def test_grant_is_renewed_beside_its_bundle(site: Site) -> None:
    install(site, "chest", 1)
    install(site, "chest", 1, b"bundle", b"grant 2")
    found = site.find("chest", 1)
    assert found.permit() == b"grant 2"
    site.renew(found, b"grant 3")
    assert (found.read(), found.permit()) == (b"bundle", b"grant 3")


def test_what_is_missing_is_said_in_a_sentence(site: Site) -> None:
    install(site, "chest", 1)
    found = site.find("chest", 1)
    for path, read in ((found.grant, found.permit), (found.bundle, found.read), (found.bundle, found.head)):
        path.unlink(missing_ok=True)
        with pytest.raises(NotAdmitted, match="cannot be read"):
            read()


def test_removed_version_is_gone(site: Site, tmp_path: Path) -> None:
    install(site, "chest", 1)
    install(site, "chest", 2)
    site.remove(site.find("chest", 1))
    assert [found.version for found in site.installed()] == [2]
    assert files(tmp_path) == ["model.bundle", "model.grant"]


def test_nothing_half_written_is_left(site: Site, tmp_path: Path) -> None:
    install(site, "chest", 1)
    site.remember(State(NOW), SEED)
    assert files(tmp_path) == ["model.bundle", "model.grant", "state.json"]
    (site.incoming / "left by a crash").write_bytes(b"x")
    assert list(site.empty_incoming().iterdir()) == []


def test_what_is_remembered_is_read_back(site: Site) -> None:
    with pytest.raises(StateError, match="missing"):
        site.remembered(SEED)
    site.remember(State(NOW), SEED)
    assert site.remembered(SEED) == State(NOW)


@pytest.fixture
def forged(tmp_path: Path) -> ForgedSite:
    return Forge().site(tmp_path)


def test_policies_are_those_that_were_verified(forged: ForgedSite) -> None:
    (policy,) = forged.site.policies(forged.state)
    assert (policy.vendor, list(policy.exporter.keys)) == ("forge", list(forged.vendor.policy.exporter.keys))


@pytest.mark.parametrize(
    "change", [lambda data: data + b" ", lambda data: data.replace(b"forge", b"forgf"), lambda data: b""]
)
def test_altered_policy_is_never_gone_by(forged: ForgedSite, change: object) -> None:
    (path,) = forged.root.glob("trust/*/*.policy.json")
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StateError, match="policy of forge"):
        forged.site.policies(forged.state)
    path.unlink()
    with pytest.raises(StateError):
        forged.site.policies(forged.state)


def test_the_policy_before_stays_until_what_is_remembered_names_the_new_one(forged: ForgedSite) -> None:
    """A crash between the two leaves a site that still knows whom it trusts."""
    known = forged.state.vendors["forge"]
    newer = replace(known, policy="00" * 32)
    forged.site.write_policy("forge", newer, b"newer")
    assert forged.site.policies(forged.state)
    forged.site.drop_old_policies("forge", newer)
    assert files(forged.root / "trust").count(f"{newer.policy}.policy.json") == 1
    assert [name for name in files(forged.root / "trust") if name.endswith("policy.json")] == [f"{newer.policy}.policy.json"]
