"""What an operator may do, what is refused, and that whatever is refused leaves what serves as it was."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import config, memory, trust, wiring
from appliance import registry as registries
from appliance.access import OPERATOR
from appliance.acts import Acts
from appliance.alarms import Alarm
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.manifest import ModelId
from appliance.bundle.opening import Opened
from appliance.engine.batcher import Batcher
from appliance.engine.session import Hardware
from appliance.errors import (
    ApplianceError,
    AuditUnavailable,
    ConfigError,
    CorruptPayload,
    FailedGoldenCase,
    MalformedBundle,
    NewVendor,
    NotAdmitted,
    Overloaded,
    PermissionDenied,
    Revoked,
    RolledBack,
    StateError,
    UnknownModel,
    UntrustedSignature,
    WrongKey,
)
from appliance.load import LoadedModel
from appliance.override import AS_SIGNED, Override
from appliance.recall import recall
from appliance.registry import Registry
from appliance.servables import Servables
from appliance.server.metrics import Metrics
from appliance.server.run import Ends
from appliance.state import State
from export import seal
from export.trust import without_key
from tests import forge
from tests.forge import Forge, ForgedSite
from tests.running import records

DAY = timedelta(days=1)
WRONG = forge.golden(1).encode()


@dataclass
class Desk:
    """A registry at work: its site, and a clock that the test sets."""

    site: ForgedSite
    registry: Registry
    servables: Servables
    told: list[list[Alarm]] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def vendor(self) -> Forge:
        return self.site.vendor

    async def install(self, bundle: bytes, permit: bytes | None = None) -> None:
        incoming = self.site.site.incoming / "x"
        incoming.write_bytes(bundle)
        await self.registry.install(OPERATOR, incoming, permit or self.vendor.grant_today(bundle))

    async def activate(self, version: int, name: str = "forged") -> None:
        await self.registry.activate(OPERATOR, name, version)

    async def roll_back(self, version: int, name: str = "forged", reason: str = "a reason") -> None:
        await self.registry.roll_back(OPERATOR, name, version, reason)

    async def set_threshold(
        self, version: int, wanted: Override, reason: str = "a reason", *, as_signed: bool = False
    ) -> None:
        await self.registry.set_threshold(OPERATOR, "forged", version, wanted, reason, as_signed=as_signed)

    def override(self, version: int) -> Override:
        """What a version decides by now; what is remembered of it says the same."""
        model = self.servables.find("forged", version).model
        known = self.registry.acts.state.models["forged"].serving
        assert [v.override for v in known if v.version == version] == [model.override]
        assert model.judge.rule == model.override.over(model.manifest.decision)
        return model.override

    async def take_in(self, repository: Path | None = None, fingerprint: str = "") -> None:
        medium = trust.read_medium(repository or self.site.medium)
        await self.registry.update_trust(OPERATOR, medium, fingerprint)

    async def publish(self) -> None:
        """The vendor says what it has sealed by now, and the site takes that in."""
        self.vendor.say(self.site.repository)
        await self.take_in()

    async def alarms(self) -> list[tuple[str, str]]:
        await self.registry.acts.tick()
        return [(alarm.kind, alarm.subject) for alarm in self.told[-1]]

    @property
    def serving(self) -> list[int]:
        """The versions that answer, the active one first."""
        found = sorted((s.model.version for s in self.servables), reverse=True)
        active = self.servables.active.get("forged")
        return found if active is None else [active, *(version for version in found if version != active)]


@asynccontextmanager
async def desk_of(
    site: ForgedSite, versions_max: int = 2, clock: Callable[[], datetime] | None = None
) -> AsyncIterator[Desk]:
    settings = config.read(site.config)
    with wiring.journal(settings, wiring.key_provider(settings)) as journal:
        servables = Servables(lambda model: wiring._batcher(settings, model, Metrics(), Ends()))
        known = recall(site.site, site.vendor.seed, journal)
        made: Desk
        acts = Acts(
            site.site, site.vendor.seed, journal, known,
            versions_max=versions_max, clock=clock or (lambda: made.now), serving=lambda: servables.active,
            tell=lambda on, state, now: made.told.append(list(on)),
        )  # fmt: skip
        key, hardware = RecipientKey.of(site.vendor.seed), wiring.hardware(settings)
        registry = Registry(acts, site.site, key, hardware, servables=servables)
        made = Desk(site, registry, servables)
        yield made
        await servables.drain()


def on_desk(
    tmp_path: Path, work: Callable[[Desk], Awaitable[None]], *bundles: bytes, vendor: Forge | None = None
) -> ForgedSite:
    """Lets a test work at a site where these bundles are installed and published, and none is active."""
    vendor = vendor or Forge()
    for bundle in bundles:
        vendor.publish(bundle)
    site = vendor.site(tmp_path)
    for bundle in bundles:
        site.install(bundle)

    async def run() -> None:
        async with desk_of(site) as desk:
            await work(desk)

    asyncio.run(run())
    return site


def acts(site: ForgedSite, event: str) -> list[dict[str, Any]]:
    return [record for record in records(site) if record["event"] == event]


# --- activation -----------------------------------------------------------------------------------------------------


def test_versions_are_activated_one_after_the_other_and_the_newest_few_answer(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        for version, expected in ((1, [1]), (2, [2, 1]), (4, [4, 2])):
            await desk.activate(version)
            assert desk.serving == expected
        with pytest.raises(UnknownModel):
            desk.servables.find("forged", 1)

    site = on_desk(tmp_path, work, *(vendor.version(n) for n in (1, 2, 4)), vendor=vendor)
    assert [record["model"]["version"] for record in acts(site, "model.activate")] == [1, 2, 4]
    record = acts(site, "model.activate")[-1]
    assert record["caller"] == {"name": "LOCAL:operator", "roles": ["administer"], "spki": ""}
    assert record["detail"]["vendor"] == "forge"


def test_older_version_than_one_that_was_active_is_never_activated(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(2)
        with pytest.raises(RolledBack, match="older than version 2"):
            await desk.activate(1)
        assert desk.serving == [2]
        await desk.activate(2)  # the same again is no rollback

    site = on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)
    refused = acts(site, "model.activate")[1]
    assert (refused["outcome"], refused["error"]) == ("failed", "rolled_back")


def test_rollback_is_a_deliberate_act_with_a_reason_on_record(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.activate(2)
        await desk.roll_back(1, reason="version 2 misses small nodules")
        assert desk.serving == [1], "nobody is answered by the version that was gone back from"
        await desk.activate(2)
        assert desk.serving == [2, 1]

    site = on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)
    (record,) = acts(site, "model.rollback")
    assert record["detail"]["reason"] == "version 2 misses small nodules"


@pytest.mark.parametrize("reason", ["", "x" * 201, "two\nlines", "\x00"])
def test_rollback_without_a_proper_reason_is_refused(tmp_path: Path, reason: str) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(2)
        with pytest.raises(ConfigError, match="a reason has 1 to 200"):
            await desk.roll_back(1, reason=reason)
        assert desk.serving == [2]

    site = on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)
    assert "detail" not in acts(site, "model.rollback")[0]


def test_nobody_rolls_back_below_what_the_vendor_supports(tmp_path: Path) -> None:
    """The floor is that of every version that was ever active, not of the one that is."""
    vendor = Forge()

    async def work(desk: Desk) -> None:
        for version in (1, 2, 3):
            await desk.activate(version)
        await desk.roll_back(2)
        with pytest.raises(RolledBack, match="older than version 2"):
            await desk.roll_back(1)
        assert desk.serving[0] == 2

    on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor.version(3, minimum=2), vendor=vendor)


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_not_older_is_no_rollback(tmp_path: Path, version: int) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(2)
        with pytest.raises(ConfigError, match="activate it instead"):
            await desk.roll_back(version)

    on_desk(tmp_path, work, vendor.version(2), vendor.version(3), vendor=vendor)


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_a_threshold_is_a_deliberate_act_with_a_reason_on_record(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        found = desk.servables.find("forged").model
        await desk.set_threshold(1, Override(800_000), "too sure of portable images")
        assert desk.override(1) == Override(800_000)
        assert found.judge.rule == forge.RULE, "a call that is under way is decided as it began"
        assert ("threshold_overridden", "forged 1") in await desk.alarms()
        (sentence,) = [alarm.sentence for alarm in desk.told[-1] if alarm.kind == "threshold_overridden"]
        assert "accepts at 0.8 or more" in sentence
        await desk.set_threshold(1, AS_SIGNED, as_signed=True)
        assert desk.override(1) == AS_SIGNED
        assert await desk.alarms() == []

    site = on_desk(tmp_path, work, vendor.version(1), vendor=vendor)
    first, second = acts(site, "model.threshold")
    assert first["detail"] == {"reason": "too sure of portable images", "accept_at_least_e6": 800_000}
    assert second["detail"] == {"reason": "a reason"}
    (activation,) = acts(site, "model.activate")
    assert first["model"] == second["model"] == activation["model"]
    assert [record["detail"]["on"] for record in acts(site, "alarm")] == [1, 0]


def test_the_signed_threshold_set_by_hand_is_no_override(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.set_threshold(1, Override(forge.RULE.accept.at_least_e6))
        assert desk.override(1) == AS_SIGNED

    on_desk(tmp_path, work, vendor.version(1), vendor=vendor)


def test_a_threshold_ends_with_its_version_and_another_versions_stays(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.set_threshold(1, Override(800_000))
        await desk.activate(2)
        assert (desk.override(2), desk.override(1)) == (AS_SIGNED, Override(800_000))
        await desk.set_threshold(2, Override(700_000))
        await desk.roll_back(1)
        assert desk.override(1) == AS_SIGNED
        await desk.activate(2)
        assert desk.override(2) == AS_SIGNED

    on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)


def test_a_threshold_of_a_version_that_no_longer_answers_is_no_alarm_and_can_be_taken_back(tmp_path: Path) -> None:
    """Whoever lets more versions answer, later, is not to find it on again."""
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.set_threshold(1, Override(800_000))
        await desk.activate(2)
        assert await desk.alarms() == [("threshold_overridden", "forged 1")], "a version that is kept answers"
        await desk.activate(3)
        assert desk.serving == [3, 2]
        assert await desk.alarms() == []
        with pytest.raises(ConfigError, match="does not serve"):
            await desk.set_threshold(1, Override(700_000))
        await desk.set_threshold(1, AS_SIGNED, as_signed=True)
        with pytest.raises(ConfigError, match="does not serve"):
            await desk.set_threshold(9, AS_SIGNED, as_signed=True)

    site = on_desk(tmp_path, work, *(vendor.version(n) for n in (1, 2, 3)), vendor=vendor)
    assert [version.override for version in site.state.models["forged"].serving] == [AS_SIGNED] * 3
    taken_back = acts(site, "model.threshold")[2]
    assert (taken_back["outcome"], taken_back["model"]) == ("done", acts(site, "model.activate")[0]["model"])


def test_a_threshold_ends_with_the_removal_of_its_version(tmp_path: Path) -> None:
    """Installed again, and with more versions kept, it does not serve, let alone by the old threshold."""
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.set_threshold(1, Override(800_000))
        await desk.activate(2)
        await desk.activate(3)
        await desk.registry.remove(OPERATOR, "forged", 1)
        assert await desk.alarms() == []

    site = on_desk(tmp_path, work, first := vendor.version(1), vendor.version(2), vendor.version(3), vendor=vendor)
    site.install(first)

    async def again() -> None:
        async with desk_of(site, versions_max=3) as desk:
            assert await desk.registry.resume() == []
            assert desk.serving == [3, 2]

    asyncio.run(again())


@pytest.mark.parametrize(("wanted", "version", "reason", "as_signed", "sentence"), [
    (Override(1_000_001), 1, "x", False, "a threshold of max_probability is from 0 to 1"),
    (Override(None, 5_000_000), 1, "x", False, "this model does not tell unknown inputs, so it has no threshold for them"),
    (Override(800_000), 2, "x", False, "version 2 of forged does not serve"),
    (Override(800_000), 9, "x", False, "version 9 of forged does not serve"),
    (Override(800_000), 1, "", False, "a reason has 1 to 200"),
    (Override(800_000), 1, "x", True, "say which thresholds are to count"),
    (AS_SIGNED, 1, "x", False, "say which thresholds are to count"),
])  # fmt: skip
def test_a_threshold_that_is_refused_leaves_everything_as_it_was(
    tmp_path: Path, wanted: Override, version: int, reason: str, as_signed: bool, sentence: str
) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.set_threshold(1, Override(700_000))
        with pytest.raises(ConfigError, match=sentence):
            await desk.set_threshold(version, wanted, reason, as_signed=as_signed)
        assert desk.override(1) == Override(700_000)

    site = on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)
    refused = acts(site, "model.threshold")[-1]
    assert (refused["outcome"], refused["error"]) == ("failed", "config")


def test_a_threshold_takes_no_other_bundles_word_for_what_is_signed(tmp_path: Path) -> None:
    """Whoever can write the disk cannot have an act judged by another manifest."""
    vendor = Forge()
    bundle, other = vendor.version(1), vendor.version(1, intended_use="Another.")

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        desk.site.install(other)
        with pytest.raises(NotAdmitted, match="not the one that was activated"):
            await desk.set_threshold(1, Override(800_000))
        await desk.set_threshold(1, AS_SIGNED, as_signed=True)  # which asks no bundle

    on_desk(tmp_path, work, bundle, vendor=vendor)


def test_a_restart_goes_on_with_the_thresholds_that_were_set(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.set_threshold(1, Override(800_000))

    site = on_desk(tmp_path, work, vendor.version(1), vendor=vendor)

    async def again() -> None:
        async with desk_of(site) as desk:
            assert await desk.registry.resume() == []
            assert desk.override(1) == Override(800_000)

    asyncio.run(again())


# --- refused activations ---------------------------------------------------------------------------------------------


def test_failed_activation_leaves_the_old_one_serving_and_says_why(tmp_path: Path) -> None:
    vendor = Forge()
    bad = vendor.bundle(forge.manifest(model=ModelId("forged", 2, 1)), forge.parts() | {"selftest": WRONG})

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        before = desk.servables.find("forged")
        with pytest.raises(FailedGoldenCase, match="golden cases"):
            await desk.activate(2)
        assert desk.servables.find("forged") is before
        assert desk.registry.acts.state.highest("forged") == 1

    site = on_desk(tmp_path, work, vendor.version(1), bad, vendor=vendor)
    assert [(record["outcome"], record.get("error")) for record in acts(site, "model.activate")] == [
        ("done", None), ("failed", "failed_golden_case"),
    ]  # fmt: skip


def test_bundle_that_was_swapped_on_disk_is_refused(tmp_path: Path) -> None:
    """Another genuine, published, granted bundle, in the place of this version's."""
    vendor = Forge()
    one, two = vendor.version(1), vendor.version(2)

    async def work(desk: Desk) -> None:
        folder = desk.site.root / "models" / "forged"
        shutil.copy(folder / "1" / "model.bundle", folder / "2" / "model.bundle")
        shutil.copy(folder / "1" / "model.grant", folder / "2" / "model.grant")
        with pytest.raises(NotAdmitted, match="not the one that was installed"):
            await desk.activate(2)

    on_desk(tmp_path, work, one, two, vendor=vendor)


def test_model_that_is_not_installed_is_said_in_a_sentence(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        with pytest.raises(ConfigError, match="version 1 of forged is not installed"):
            await desk.activate(1)

    site = on_desk(tmp_path, work)
    assert acts(site, "model.activate")[0]["error"] == "config"


def test_an_act_is_refused_while_another_is_under_way_and_waits_for_no_turn(tmp_path: Path) -> None:
    """Whoever gave up waiting would have his act all the same, later, when nobody expects it."""
    vendor = Forge()

    async def work(desk: Desk) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def long() -> None:
            async with desk.registry.acts.act("model.activate", OPERATOR):
                begun.set()
                await go_on.wait()

        first = asyncio.create_task(long())
        await begun.wait()
        with pytest.raises(Overloaded, match="Another act is under way"):
            await desk.activate(1)
        ticking = asyncio.create_task(desk.registry.acts.tick())  # which is no act, and does wait
        await asyncio.sleep(0)
        assert not ticking.done()
        go_on.set()
        await asyncio.gather(first, ticking)
        await desk.activate(1)

    site = on_desk(tmp_path, work, vendor.version(1), vendor=vendor)
    assert len(acts(site, "model.activate")) == 2


@pytest.mark.parametrize("name", ["x" * 70_000, "Nobody, born 1970-01-01"])
def test_free_text_in_the_place_of_a_model_is_never_on_record(tmp_path: Path, name: str) -> None:
    """It may name a patient; and where it is long, no record could hold it."""

    async def work(desk: Desk) -> None:
        for act in (
            desk.activate(1, name), desk.roll_back(1, name), desk.registry.deactivate(OPERATOR, name, "x"),
            desk.registry.remove(OPERATOR, name, 1),
        ):  # fmt: skip
            with pytest.raises(ConfigError):
                await act

    site = on_desk(tmp_path, work)
    assert [record["outcome"] for record in records(site)] == ["failed"] * 4
    assert name not in str(records(site))


def test_administrator_of_some_models_acts_on_those_alone(tmp_path: Path) -> None:
    vendor = Forge()
    bundle = vendor.version(1)
    limited = replace(OPERATOR, name="DNS:limited", models=frozenset({"other"}))

    async def work(desk: Desk) -> None:
        registry, incoming = desk.registry, desk.site.site.incoming / "x"
        incoming.write_bytes(bundle)
        await desk.activate(1)
        for act in (
            registry.install(limited, incoming, vendor.grant_today(bundle)),
            registry.renew(limited, vendor.grant_today(bundle)), registry.activate(limited, "forged", 1),
            registry.roll_back(limited, "forged", 1, "x"), registry.deactivate(limited, "forged", "x"),
            registry.remove(limited, "forged", 1), registry.acts.accept(limited, "x"),
            registry.update_trust(limited, trust.read_medium(desk.site.medium)),
        ):  # fmt: skip
            with pytest.raises(PermissionDenied):
                await act
        assert desk.serving == [1]

    site = on_desk(tmp_path, work, bundle, vendor=vendor)
    assert {record["outcome"] for record in records(site) if record["caller"]["name"] == "DNS:limited"} == {"denied"}


def test_nothing_takes_effect_that_cannot_be_put_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say. Files are put in place, and taken away, after the record alone."""
    vendor = Forge()
    one, two = vendor.version(1), vendor.version(2)

    async def work(desk: Desk) -> None:
        registry, incoming = desk.registry, desk.site.site.incoming / "x"
        incoming.write_bytes(two)
        before = desk.site.site.find("forged", 1).permit()

        def full(fd: int, data: bytes, at: int) -> int:
            raise OSError("no space left")

        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            for act in (
                registry.install(OPERATOR, incoming, vendor.grant_today(two)),
                registry.renew(OPERATOR, vendor.grant_today(one)), registry.remove(OPERATOR, "forged", 1), desk.activate(1),
            ):  # fmt: skip
                with pytest.raises(AuditUnavailable):
                    await act
        assert [(found.version, found.permit()) for found in desk.site.site.installed()] == [(1, before)]
        assert desk.serving == []

    site = on_desk(tmp_path, work, one, vendor=vendor)
    assert records(site) == []


# --- installing, renewing, removing ---------------------------------------------------------------------------------


def test_bundle_is_installed_with_its_grant_and_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Forge()
    bundle = vendor.version(1)

    async def work(desk: Desk) -> None:
        buffers: list[Any] = []
        with monkeypatch.context() as patched:
            make = memory.secret_buffer
            patched.setattr(memory, "secret_buffer", lambda size: buffers.append(make(size)) or buffers[-1])
            await desk.install(bundle)
        assert [found.version for found in desk.site.site.installed()] == [1]
        assert desk.serving == []
        assert len(buffers) == 4
        assert all(buffer.closed for buffer in buffers), "what was decrypted to prove it is wiped"

    site = on_desk(tmp_path, work, vendor=vendor)
    (record,) = acts(site, "model.install")
    assert record["model"] == {"id": "forged", "version": 1, "digest": vendor.publish(bundle)}


def test_installed_bundle_is_replaced_by_itself_alone_though_with_other_signatures(tmp_path: Path) -> None:
    """A vendor that changes its keys signs anew what is in use; the statement, and so the digest, stays."""
    vendor, newer = Forge(), Ed25519PrivateKey.generate()
    one = vendor.version(1)
    other = vendor.version(1, intended_use="Something else.")
    resigned = seal.countersign(one, [newer])

    async def work(desk: Desk) -> None:
        with pytest.raises(NotAdmitted, match="installed already"):
            await desk.install(other)
        await desk.install(resigned)
        await desk.install(resigned)
        assert desk.site.site.find("forged", 1).bundle.read_bytes() == resigned
        desk.site.site.find("forged", 1).bundle.write_bytes(b"damaged")
        await desk.install(one)
        await desk.activate(1)

    on_desk(tmp_path, work, one, vendor=vendor)


@pytest.mark.parametrize(("what", "error"), [
    ("stranger", UntrustedSignature), ("unpublished", NotAdmitted), ("corrupt", CorruptPayload),
    ("another appliance", WrongKey),
])  # fmt: skip
def test_what_is_refused_is_not_installed(tmp_path: Path, what: str, error: type[ApplianceError]) -> None:
    vendor, stranger = Forge(), Forge()
    bundle = vendor.version(1)

    async def work(desk: Desk) -> None:
        sealed, permit = bundle, desk.vendor.grant_today(bundle)
        if what == "stranger":
            sealed = stranger.version(1)
        elif what == "unpublished":
            sealed = vendor.version(2)
        elif what == "corrupt":
            sealed = bundle[:-1] + bytes([bundle[-1] ^ 1])
        else:
            permit = forge.grant.issue(
                replace(vendor.terms(bundle), recipient=stranger.key.recipient.digest),
                vendor.content_key, stranger.key.recipient, [vendor.licensing],
            )  # fmt: skip
        with pytest.raises(error):
            await desk.install(sealed, permit)
        assert list(desk.site.site.installed()) == []

    on_desk(tmp_path, work, vendor=vendor)


def test_grant_is_renewed_without_the_bundle_and_while_it_serves(tmp_path: Path) -> None:
    vendor = Forge()
    bundle = vendor.version(1)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        servable = desk.servables.find("forged")
        later = desk.now.replace(microsecond=0) + 400 * DAY
        await desk.registry.renew(OPERATOR, desk.vendor.grant_today(bundle, not_after=later))
        assert desk.servables.find("forged") is servable, "nothing is loaded for that"
        assert servable.model.terms.not_after == later
        for permit, error in (
            (vendor.grant_today(bundle, manifest_sha256="00" * 32), NotAdmitted),
            (vendor.grant_today(bundle, signer=Forge().licensing), UntrustedSignature),
        ):
            with pytest.raises(error):
                await desk.registry.renew(OPERATOR, permit)
        assert servable.model.terms.not_after == later

    on_desk(tmp_path, work, bundle, vendor=vendor)


def test_version_that_serves_is_not_removed_and_another_is(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        for version in (1, 2, 3):
            await desk.activate(version)
        for version in (2, 3):
            with pytest.raises(ConfigError, match="serves"):
                await desk.registry.remove(OPERATOR, "forged", version)
        await desk.registry.remove(OPERATOR, "forged", 1)
        assert [found.version for found in desk.site.site.installed()] == [2, 3]

    on_desk(tmp_path, work, *(vendor.version(n) for n in (1, 2, 3)), vendor=vendor)


def test_version_below_what_the_newest_supports_is_not_kept(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.activate(2)
        assert desk.serving == [2, 1]
        await desk.activate(3)
        assert desk.serving == [3], "version 3 says that none below it is supported"

    on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor.version(3, minimum=3), vendor=vendor)


def test_model_may_have_any_name_that_the_format_allows(tmp_path: Path) -> None:
    """Also that of a folder of ours."""
    vendor = Forge()
    bundle = vendor.bundle(forge.manifest(model=ModelId("incoming", 1, 1)))

    async def work(desk: Desk) -> None:
        await desk.install(bundle)
        await desk.activate(1, "incoming")
        desk.site.site.empty_incoming()
        await desk.activate(1, "incoming")

    on_desk(tmp_path, work, vendor=vendor)


def test_deactivated_model_answers_nobody_and_is_remembered(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        with pytest.raises(ConfigError, match="not active"):
            await desk.registry.deactivate(OPERATOR, "forged", "x")
        await desk.activate(2)
        await desk.registry.deactivate(OPERATOR, "forged", "recalled by the vendor")
        assert desk.serving == []
        with pytest.raises(RolledBack):
            await desk.activate(1)
        await desk.roll_back(1)
        assert desk.serving == [1]

    on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)


# --- dates ----------------------------------------------------------------------------------------------------------


def test_grant_that_is_over_refuses_activation_and_never_what_serves(tmp_path: Path) -> None:
    """Through its grace days it may be activated, after them not; what serves serves on."""
    vendor = Forge()
    bundle = vendor.version(1)

    async def work(desk: Desk) -> None:
        start = desk.now
        await desk.activate(1)
        desk.now = start + 119 * DAY  # the forged grant has 90 days, and 30 of grace
        await desk.activate(1)
        desk.now = start + 121 * DAY
        with pytest.raises(NotAdmitted, match="expired"):
            await desk.activate(1)
        await desk.registry.acts.tick()
        assert desk.serving == [1]
        assert [alarm.kind for alarm in desk.told[-1]] == ["grant_over"]

    on_desk(tmp_path, work, bundle, vendor=vendor)


def test_trust_that_is_stale_refuses_what_is_new_and_never_what_serves(tmp_path: Path) -> None:
    vendor = Forge()
    long = {"not_after": datetime.now(UTC).replace(microsecond=0) + 1000 * DAY}
    one, two = vendor.version(1), vendor.version(2)

    async def work(desk: Desk) -> None:
        await desk.install(one, vendor.grant_today(one, **long))
        await desk.activate(1)
        desk.now += 181 * DAY
        for act in (lambda: desk.activate(1), lambda: desk.install(two, vendor.grant_today(two, **long))):
            with pytest.raises(NotAdmitted, match="trust repository has expired"):
                await act()
        assert desk.serving == [1]

    on_desk(tmp_path, work, vendor=vendor)


def test_clock_behind_what_was_seen_refuses_acts_is_on_record_and_stops_nothing(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        desk.now -= 365 * DAY
        for act in (lambda: desk.activate(2), lambda: desk.take_in()):
            with pytest.raises(NotAdmitted, match="clock is behind"):
                await act()
        await desk.registry.acts.tick()
        assert [alarm.kind for alarm in desk.told[-1]] == ["clock_behind"]
        assert desk.serving == [1]
        desk.now += 365 * DAY
        await desk.activate(2)

    site = on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)
    assert acts(site, "model.activate")[1]["error"] == "not_admitted"
    assert acts(site, "alarm")[0]["detail"] == {"kind": "clock_behind", "subject": "clock", "on": 1}


def test_clock_that_was_ahead_needs_a_persons_word_before_it_is_believed_again(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        desk.now += 3650 * DAY
        await desk.registry.acts.tick()
        desk.now -= 3650 * DAY
        with pytest.raises(NotAdmitted, match="clock is behind"):
            await desk.activate(1)
        await desk.registry.acts.accept(OPERATOR, "the clock was ten years ahead")
        await desk.activate(1)

    site = on_desk(tmp_path, work, vendor.version(1), vendor=vendor)
    assert acts(site, "state.accept")[0]["detail"] == {"reason": "the clock was ten years ahead"}


def test_an_act_asks_the_clock_once(tmp_path: Path) -> None:
    """So that no two of its checks can be at different times."""
    vendor = Forge()
    site = vendor.site(tmp_path)
    bundle = vendor.version(1)
    site.install(bundle)
    vendor.say(site.repository)
    asked: list[datetime] = []

    def clock() -> datetime:
        asked.append(datetime.now(UTC))
        return asked[-1]

    async def run() -> None:
        async with desk_of(site, clock=clock) as desk:
            for act in (lambda: desk.take_in(), lambda: desk.activate(1), lambda: desk.roll_back(1)):
                asked.clear()
                with suppress(ConfigError):
                    await act()
                assert len(asked) == 1

    asyncio.run(run())


def test_alarms_begin_and_end_on_record_once(tmp_path: Path) -> None:
    vendor = Forge()
    bundle = vendor.version(1)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        start = desk.now
        for day, expected in ((0, []), (59, []), (61, ["grant_ends"]), (61, ["grant_ends"]), (91, ["grant_in_grace"])):
            desk.now = start + day * DAY
            await desk.registry.acts.tick()
            assert [alarm.kind for alarm in desk.told[-1]] == expected
        later = desk.now.replace(microsecond=0) + 400 * DAY
        await desk.registry.renew(OPERATOR, vendor.grant_today(bundle, not_after=later))
        await desk.registry.acts.tick()
        assert desk.told[-1] == []

    site = on_desk(tmp_path, work, bundle, vendor=vendor)
    heard = [(record["detail"]["kind"], record["detail"]["on"]) for record in acts(site, "alarm")]
    assert sorted(heard) == [("grant_ends", 0), ("grant_ends", 1), ("grant_in_grace", 0), ("grant_in_grace", 1)]


# --- trust ----------------------------------------------------------------------------------------------------------


def test_new_vendor_needs_the_fingerprint_that_people_compared(tmp_path: Path) -> None:
    other = Forge("other")
    other.published[f"{7:064x}"] = forge.Listing("skin", 1)

    async def work(desk: Desk) -> None:
        repository = other.repository(tmp_path / "other")
        with pytest.raises(NewVendor, match="new here"):
            await desk.take_in(tmp_path / "other")
        for wrong in ("0000 " * 8, repository.root_fingerprint[:-1]):
            with pytest.raises(NotAdmitted, match="not the one given"):
                await desk.take_in(tmp_path / "other", wrong)
        await desk.take_in(tmp_path / "other", repository.root_fingerprint.upper().replace(" ", ""))
        await desk.take_in(tmp_path / "other")  # known from now on
        with pytest.raises(NotAdmitted, match="not the one given"):
            await desk.take_in(tmp_path / "other", "0000 " * 8)
        assert set(desk.registry.acts.state.vendors) == {"forge", "other"}
        assert [policy.vendor for policy in desk.registry.acts.policies()] == ["forge", "other"]

    site = on_desk(tmp_path, work)
    assert [record["outcome"] for record in acts(site, "trust.update")] == ["failed"] * 3 + ["done"] * 2 + ["failed"]
    assert len([path for path in (site.root / "trust").iterdir() if path.is_dir()]) == 2


def test_vendor_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        repository = Forge().repository(tmp_path / "other")  # it calls itself "forge", as another does here
        with pytest.raises(NotAdmitted, match="known here by another root"):
            await desk.take_in(tmp_path / "other", repository.root_fingerprint)

    site = on_desk(tmp_path, work)
    assert len(list((site.root / "trust").iterdir())) == 1
    assert list(site.site.incoming.iterdir()) == []


def test_two_vendors_never_share_a_key(tmp_path: Path) -> None:
    other = Forge("other")

    async def work(desk: Desk) -> None:
        other.exporter = desk.vendor.exporter
        repository = other.repository(tmp_path / "other")
        with pytest.raises(NotAdmitted, match="names a key that is forge's here"):
            await desk.take_in(tmp_path / "other", repository.root_fingerprint)

    on_desk(tmp_path, work)


def test_model_name_belongs_to_the_vendor_that_brought_it_first(tmp_path: Path) -> None:
    """Or a second vendor's chest version 99 would take the place of the first one's."""
    vendor, other = Forge(), Forge("other")
    theirs = other.version(99)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        repository = other.repository(tmp_path / "other")
        await desk.take_in(tmp_path / "other", repository.root_fingerprint)
        other.key = desk.vendor.key
        with pytest.raises(NotAdmitted, match="another vendor's here"):
            await desk.install(theirs, other.grant_today(theirs))
        assert desk.serving == [1]

    on_desk(tmp_path, work, vendor.version(1), vendor=vendor)


def test_revoked_version_is_never_activated_again_and_ends_where_it_is_not_active(tmp_path: Path) -> None:
    vendor = Forge()
    one, two = vendor.version(1), vendor.version(2)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.activate(2)
        vendor.publish(one, "Wrong for children.")
        await desk.publish()
        assert desk.serving == [2]
        with pytest.raises(Revoked, match="Wrong for children"):
            await desk.roll_back(1)
        with pytest.raises(Revoked):
            await desk.install(one)

    on_desk(tmp_path, work, one, two, vendor=vendor)


def test_revoked_version_that_is_active_is_for_people_to_replace(tmp_path: Path) -> None:
    """It serves on, with an alarm; but an appliance that is started again does not take it up."""
    vendor = Forge()
    one = vendor.version(1)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        vendor.publish(one, "Wrong for children.")
        await desk.publish()
        await desk.registry.acts.tick()
        assert desk.serving == [1]
        assert [(alarm.kind, alarm.subject) for alarm in desk.told[-1]] == [("revoked", "forged 1")]

    site = on_desk(tmp_path, work, one, vendor=vendor)

    async def again() -> None:
        async with desk_of(site) as desk:
            (refusal,) = await desk.registry.resume()
            assert isinstance(refusal, Revoked)
            assert desk.serving == []

    asyncio.run(again())


def test_revoked_exporter_key_takes_everything_with_it_that_it_alone_signed(tmp_path: Path) -> None:
    vendor, newer = Forge(), Ed25519PrivateKey.generate()
    old = vendor.version(1)
    both = vendor.bundle(forge.manifest(model=ModelId("forged", 2, 1)), signers=[vendor.exporter, newer])

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        desk.vendor.rotate(desk.site.repository, exporter=[vendor.exporter.public_key(), newer.public_key()])
        vendor.say(desk.site.repository)
        await desk.take_in()
        assert await desk.alarms() == []
        key_id = next(iter(vendor.policy.exporter.keys))
        desk.site.repository.publish(lambda said: without_key(said, key_id, "The key was lost."), [vendor.release], desk.now)
        await desk.take_in()
        assert await desk.alarms() == [("revoked", "forged 1")], "it serves on, and would not start again"
        with pytest.raises(Revoked, match="The key was lost"):
            await desk.activate(1)
        await desk.activate(2)
        assert desk.serving == [2], "a version that nobody vouches for is not kept"
        assert await desk.alarms() == []

    on_desk(tmp_path, work, old, both, vendor=vendor)


def test_older_repository_changes_nothing_that_is_trusted(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        shutil.copytree(desk.site.medium, tmp_path / "old")
        vendor.version(1)
        await desk.publish()
        before = desk.registry.acts.state.vendors
        with pytest.raises(RolledBack):
            await desk.take_in(tmp_path / "old")
        assert desk.registry.acts.state.vendors == before
        assert desk.registry.acts.policies()[0].bundles == vendor.published

    on_desk(tmp_path, work, vendor=vendor)


def test_revocation_is_for_ever_whoever_signs_the_next_policy(tmp_path: Path) -> None:
    """A bundle or a key may be revoked for another reason, and is not revoked no more: with or without being published."""
    vendor, lost = Forge(), "ab" * 32
    one, two = vendor.version(1), vendor.version(2)

    async def work(desk: Desk) -> None:
        digest, repository = vendor.publish(one, "It was wrong."), desk.site.repository

        async def say(listed: dict[str, forge.Listing], revoked_keys: dict[str, str]) -> None:
            edit = lambda said: replace(said, bundles=listed, revoked_keys=revoked_keys)  # noqa: E731
            repository.publish(edit, [vendor.release], desk.now)
            await desk.take_in()

        listed, revoked_keys = dict(vendor.published), {lost: "It was lost."}
        await say(listed, revoked_keys)
        before = desk.registry.acts.state.vendors
        without = {name: listing for name, listing in listed.items() if name != digest}
        published = listed | {digest: replace(listed[digest], revoked=None)}
        for bundles, keys in ((published, revoked_keys), (without, revoked_keys), (listed, {})):
            with pytest.raises(RolledBack, match="for ever"):
                await say(bundles, keys)
        assert desk.registry.acts.state.vendors == before
        await say(
            listed | {digest: replace(listed[digest], revoked="It was very wrong.")}, revoked_keys | {"cd" * 32: "Too."}
        )
        with pytest.raises(Revoked, match="very wrong"):
            await desk.activate(1)
        await desk.activate(2)

    on_desk(tmp_path, work, one, two, vendor=vendor)


def test_act_whose_record_cannot_be_written_does_not_happen_and_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        before = desk.registry.acts.state.vendors
        vendor.version(1)
        vendor.say(desk.site.repository)
        with monkeypatch.context() as patch:
            patch.setattr(registries, "trust_detail", lambda name, vendor: {"vendor": name, "release": "k" * 70_000})
            with pytest.raises(AuditUnavailable):
                await desk.take_in()
        assert desk.registry.acts.state.vendors == desk.site.state.vendors == before
        assert desk.registry.acts.policies()[0].bundles == {}
        await desk.take_in()
        assert desk.registry.acts.policies()[0].bundles == vendor.published

    site = on_desk(tmp_path, work, vendor=vendor)
    assert [record["outcome"] for record in acts(site, "trust.update")] == ["done"]


def test_policy_that_was_altered_on_disk_refuses_acts_until_it_is_brought_again(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        (path,) = desk.site.root.glob("trust/*/*.policy.json")
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(StateError, match="policy of forge"):
            await desk.activate(2)
        assert await desk.alarms() == [("trust_damaged", "forge")]
        assert desk.serving == [1]
        await desk.take_in()
        await desk.activate(2)
        assert await desk.alarms() == []

    on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)


def test_damage_to_one_vendors_policy_is_mended_alone_and_stops_no_other_vendors_model(tmp_path: Path) -> None:
    vendor, other = Forge(), Forge("other")
    site = vendor.site(tmp_path, [vendor.version(1)])
    repository = other.repository(tmp_path / "other")

    async def run() -> None:
        async with desk_of(site) as desk:
            await desk.take_in(tmp_path / "other", repository.root_fingerprint)
        for path in site.root.glob("trust/*/*.policy.json"):
            if path.parent.name == "other":
                path.unlink()
        async with desk_of(site) as desk:
            assert await desk.registry.resume() == []
            assert await desk.alarms() == [("trust_damaged", "other")]
            await desk.take_in()
            await desk.take_in(tmp_path / "other")
            assert await desk.alarms() == []
        for path in site.root.glob("trust/*/*.policy.json"):
            path.unlink()
        async with desk_of(site) as desk:
            (refusal,) = await desk.registry.resume()
            assert isinstance(refusal, StateError)
            assert await desk.alarms() == [
                ("trust_damaged", "forge"), ("trust_damaged", "other"), ("not_serving", "forged 1"),
            ]  # fmt: skip
            await desk.take_in()
            await desk.take_in(tmp_path / "other")

    asyncio.run(run())


def test_one_vendor_takes_nothing_of_anothers_back(tmp_path: Path) -> None:
    vendor, other = Forge(), Forge("other")
    one, two = vendor.version(1), vendor.version(2)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        await desk.activate(2)
        for bundle in (one, two):
            other.publish(bundle, "They are not mine.")
        await desk.take_in(tmp_path / "other", other.repository(tmp_path / "other").root_fingerprint)
        assert desk.serving == [2, 1]
        assert await desk.alarms() == []

    on_desk(tmp_path, work, one, two, vendor=vendor)


# --- from one start to the next -------------------------------------------------------------------------------------


def resumed(site: ForgedSite, look: Callable[[Desk], None], versions_max: int = 2) -> list[ApplianceError]:
    """Starts again, and looks at what serves."""
    refusals: list[ApplianceError] = []

    async def run() -> None:
        async with desk_of(site, versions_max) as desk:
            refusals.extend(await desk.registry.resume())
            look(desk)

    asyncio.run(run())
    return refusals


def expect(*serving: int) -> Callable[[Desk], None]:
    def look(desk: Desk) -> None:
        assert desk.serving == list(serving)

    return look


def test_what_served_serves_again(tmp_path: Path) -> None:
    vendor = Forge()
    bundles = [vendor.version(n) for n in (1, 2, 3)]
    site = vendor.site(tmp_path, bundles)
    assert resumed(site, expect(3, 2)) == []
    assert resumed(site, expect(3, 2, 1), versions_max=3) == []


def test_what_served_goes_on_though_every_date_has_passed(tmp_path: Path) -> None:
    """A power cut must not do what an expired licence may not."""
    vendor = Forge()
    bundle = vendor.version(1)
    vendor.publish(bundle)
    site = vendor.site(tmp_path)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    site.install(bundle, vendor.grant(bundle, not_before=past, not_after=past, grace_days=0))
    site.activate(bundle)
    known = site.state.vendors["forge"]
    site.remember(
        replace(site.state, vendors={"forge": replace(known, expires=past)}, latest=datetime(2100, 1, 1, tzinfo=UTC))
    )
    assert resumed(site, expect(1)) == []

    async def run() -> None:
        async with desk_of(site) as desk:
            with pytest.raises(NotAdmitted):
                await desk.activate(1)

    asyncio.run(run())


def test_another_bundle_in_the_place_of_the_one_that_served_does_not_go_on(tmp_path: Path) -> None:
    """Genuine, published, granted, and of the same version."""
    vendor = Forge()
    one = vendor.version(1)
    other = vendor.version(1, intended_use="Something else.")
    site = vendor.site(tmp_path, [one])
    vendor.say(site.repository)
    (site.root / "models" / "forged" / "1" / "model.bundle").write_bytes(other)
    (site.root / "models" / "forged" / "1" / "model.grant").write_bytes(vendor.grant_today(other))
    (refusal,) = resumed(site, expect())
    assert isinstance(refusal, NotAdmitted)


def test_active_version_that_is_refused_is_not_replaced_in_silence_by_an_older_one(tmp_path: Path) -> None:
    vendor = Forge()
    site = vendor.site(tmp_path, [vendor.version(1), vendor.version(2)])
    (site.root / "models" / "forged" / "2" / "model.bundle").write_bytes(b"")

    def look(desk: Desk) -> None:
        assert desk.servables.active == {}
        assert desk.servables.find("forged", 1).model.version == 1
        with pytest.raises(UnknownModel):
            desk.servables.find("forged")

    (refusal,) = resumed(site, look)
    assert isinstance(refusal, MalformedBundle)


@pytest.mark.parametrize("error", [MemoryError(), OSError("cannot allocate")])
def test_model_that_this_machine_cannot_load_keeps_no_other_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    vendor = Forge()
    other = vendor.bundle(forge.manifest(model=ModelId("other", 1, 1), bundle_id="ab" * 16))
    site = vendor.site(tmp_path, [other, vendor.version(1)])
    opened = registries.load

    def fail(found: Opened, hardware: Hardware) -> LoadedModel:
        if found.manifest.model.id == "other":
            raise error
        return opened(found, hardware)

    monkeypatch.setattr(registries, "load", fail)
    (refusal,) = resumed(site, expect(1))
    assert (refusal.code, refusal.__traceback__, refusal.__context__) == ("not_admitted", None, None)


def test_grant_may_limit_the_batches_that_run_at_once(tmp_path: Path) -> None:
    vendor = Forge()
    bundle = vendor.version(1)
    vendor.publish(bundle)
    site = vendor.site(tmp_path, settings="[engine]\nworkers = 4\nthreads = 4\n")
    site.install(bundle, vendor.grant_today(bundle, workers_max=2))
    site.activate(bundle)

    def look(desk: Desk) -> None:
        batcher: Batcher = desk.servables.find("forged").batcher
        assert len(batcher._threads) == 2

    assert resumed(site, look) == []


def test_disk_that_takes_no_memory_does_not_undo_an_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is the act: the switch is made, and the next start makes memory good from the log."""
    vendor = Forge()

    async def work(desk: Desk) -> None:
        def full(state: State, seed: bytes) -> None:
            raise OSError("no space left")

        with monkeypatch.context() as patched:
            patched.setattr(desk.site.site, "remember", full)
            await desk.activate(1)
            assert desk.serving == [1]

    site = on_desk(tmp_path, work, vendor.version(1), vendor=vendor)
    assert site.state.models == {}
    assert resumed(site, expect(1)) == []
