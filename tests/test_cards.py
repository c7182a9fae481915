"""Reading a card keeps nobody from acting, costs little more memory than the card, and is on record before it is shown."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from appliance import cards, memory
from appliance.access import OPERATOR
from appliance.bundle.enrolment import RecipientKey
from appliance.cards import Card, Cards
from appliance.errors import AuditUnavailable, ConfigError, CorruptPayload, Overloaded
from tests import forge
from tests.forge import Forge
from tests.test_registry import Desk, acts, on_desk


def cards_of(desk: Desk) -> Cards:
    return Cards(desk.registry.acts, desk.site.site, RecipientKey.of(desk.vendor.seed))


class Slow:
    """Stands in for opening a bundle, which takes as long as the test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end, self._open = threading.Event(), threading.Event(), cards._open
        monkeypatch.setattr(cards, "_open", self)

    def __call__(self, *given: Any) -> Card:
        self.begun.set()
        assert self.may_end.wait(30)
        return self._open(*given)


def test_nobody_waits_with_an_act_for_a_card_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle may have gigabytes, and whoever deactivates a model is in a hurry."""
    vendor, slow = Forge(), Slow(monkeypatch)

    async def work(desk: Desk) -> None:
        await desk.activate(1)
        reading = asyncio.create_task(cards_of(desk).read(OPERATOR, "forged", 2))
        await asyncio.to_thread(slow.begun.wait, 30)
        await desk.registry.deactivate(OPERATOR, "forged", "an emergency")
        assert desk.serving == []
        assert not reading.done()
        slow.may_end.set()
        assert (await reading).text == forge.CARD.decode()

    site = on_desk(tmp_path, work, vendor.version(1), vendor.version(2), vendor=vendor)
    assert [record["outcome"] for record in acts(site, "model.deactivate") + acts(site, "model.card")] == ["done", "done"]


def test_one_card_is_read_at_a_time_and_whoever_comes_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or many who ask at once would have as many bundles read into memory."""
    vendor, slow = Forge(), Slow(monkeypatch)

    async def work(desk: Desk) -> None:
        found = cards_of(desk)
        reading = asyncio.create_task(found.read(OPERATOR, "forged", 1))
        await asyncio.to_thread(slow.begun.wait, 30)
        with pytest.raises(Overloaded, match="Another card"):
            await found.read(OPERATOR, "forged", 1)
        slow.may_end.set()
        assert await reading == await found.read(OPERATOR, "forged", 1)

    on_desk(tmp_path, work, vendor.version(1), vendor=vendor)


def test_only_the_card_is_decrypted_and_the_whole_bundle_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Forge()
    sizes: list[int] = []
    allocate = memory.secret_buffer
    monkeypatch.setattr(memory, "secret_buffer", lambda size: sizes.append(size) or allocate(size))

    async def work(desk: Desk) -> None:
        await cards_of(desk).read(OPERATOR, "forged", 1)
        assert sizes == [len(forge.CARD)]
        path = desk.site.site.find("forged", 1).bundle
        data = bytearray(path.read_bytes())
        size = sum(part.size for part in vendor.open(bytes(data)).manifest.parts)
        data[-size] ^= 1  # of the first part, which is not the card
        path.write_bytes(data)
        with pytest.raises(CorruptPayload):
            await cards_of(desk).read(OPERATOR, "forged", 1)

    on_desk(tmp_path, work, vendor.version(1), vendor=vendor)


def test_a_card_is_on_record_before_it_is_shown_or_is_not_shown(tmp_path: Path) -> None:
    vendor = Forge()

    async def work(desk: Desk) -> None:
        with pytest.raises(ConfigError, match="not active"):
            await cards_of(desk).read(OPERATOR, "forged", 0)
        card = await cards_of(desk).read(OPERATOR, "forged", 1, "01ARYZ6S410000000000000000")
        assert card.digest
        desk.registry.acts.journal.close()
        with pytest.raises(AuditUnavailable):
            await cards_of(desk).read(OPERATOR, "forged", 1)

    site = on_desk(tmp_path, work, vendor.version(1), vendor=vendor)
    refused, read = acts(site, "model.card")
    assert (refused["outcome"], refused["error"], "model" in refused) == ("failed", "config", False)
    assert (read["outcome"], read["caller"]["name"]) == ("done", OPERATOR.name)
    assert read["request_id"] == "01ARYZ6S410000000000000000"
    assert (read["model"]["id"], read["model"]["version"], len(read["model"]["digest"])) == ("forged", 1, 64)
