"""A switch between versions: every call is answered by the one it found, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from appliance.bundle.manifest import ModelId
from appliance.engine.batcher import Batcher
from appliance.engine.pace import Pace
from appliance.engine.queue import Queue
from appliance.errors import UnknownModel
from appliance.load import LoadedModel
from appliance.override import AS_SIGNED, Override
from appliance.servables import Held, Servable, Servables
from tests import fakes, forge
from tests.fakes import PuppetRunner
from tests.isolation.desk import model


def version(number: int, name: str = "forged") -> LoadedModel:
    """The forged model under another version."""
    loaded = model()
    manifest = replace(loaded.manifest, model=ModelId(name, number, 1))
    return replace(loaded, manifest=manifest, digest=f"{number:064x}")


class Watching:
    """Writes down what serves and what has ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []

    def serves(self, servable: Servable) -> None:
        self.heard.append(("serves", servable.model.name, servable.model.version))

    def ended(self, servable: Servable) -> None:
        self.heard.append(("ended", servable.model.name, servable.model.version))


class Stage:
    """Servables whose versions run when the test pulls their string."""

    def __init__(self) -> None:
        self.runners: list[PuppetRunner] = []
        self.watching = Watching()
        self.servables = Servables(self._start, self.watching)

    def _start(self, loaded: LoadedModel) -> Batcher:
        self.runners.append(PuppetRunner())
        pace = Pace({}, 16, 1)
        queue: Queue[Any] = Queue(1000, 1 << 20, 16, pace)
        return Batcher(self.runners[-1], queue, pace, loaded.session.slots, workers=1)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    for runner in made.runners:
        runner.gate.open()
    await made.servables.drain()


async def ask(servable: Servable, number: int) -> np.ndarray[Any, Any]:
    images = fakes.numbered(number, 1)
    with Held() as held:
        held.hold(servable)
        ran = await servable.batcher.submit((images,), None)
    assert np.allclose(ran.outputs.logits, forge.logits(images), atol=1e-4)  # batched with others, it may round otherwise
    return ran.outputs.logits


def found(servables: Servables, number: int = 0) -> int:
    return servables.find("forged", number).model.version


def test_what_is_told_of_drift_begins_anew_with_each_version_that_is_put() -> None:
    async def run() -> None:
        async with stage() as made:
            made.servables.put(version(1), active=True)
            made.servables.find("forged").drift.count(7, 1, 2)
            made.servables.rule(version(1).digest, Override(800_000))
            assert made.servables.find("forged").drift.abstained.rows == 7, "it is of the signed rule, so it goes on"
            made.servables.put(version(2), active=True)
            assert made.servables.find("forged").drift.abstained.rows == 0
            assert made.servables.find("forged").model.override == AS_SIGNED
            assert made.servables.find("forged", 1).model.override == Override(800_000)
            made.servables.put(version(1), active=False)
            assert made.servables.find("forged", 1).drift.abstained.rows == 0

    asyncio.run(run())


def test_the_active_version_is_found_without_a_number_and_others_with_theirs() -> None:
    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(1), active=True)
            on.servables.put(version(2), active=True)
            assert [found(on.servables, number) for number in (0, 1, 2)] == [2, 1, 2]
            assert on.servables.active == {"forged": 2}
            assert {servable.model.version for servable in on.servables} == {1, 2}
            for name, number in (("forged", 3), ("other", 0), ("other", 1)):
                with pytest.raises(UnknownModel):
                    on.servables.find(name, number)

    asyncio.run(run())


def test_a_version_that_does_not_become_active_answers_only_who_names_it() -> None:
    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(2), active=False)
            assert found(on.servables, 2) == 2
            with pytest.raises(UnknownModel):
                on.servables.find("forged")

    asyncio.run(run())


def test_call_that_came_before_a_switch_is_answered_by_the_version_it_found() -> None:
    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(1), active=True)
            before = asyncio.create_task(ask(on.servables.find("forged"), 1))
            await on.runners[0].gate.entered()
            on.servables.put(version(2), active=True)
            on.servables.keep("forged", [2])
            assert found(on.servables) == 2
            on.runners[0].gate.pull()
            await before
            assert (len(on.runners[0].batches), len(on.runners[1].batches)) == (1, 0)

    asyncio.run(run())


def test_version_waits_for_a_call_that_has_found_it_and_not_yet_queued() -> None:
    """The instant between finding a model and its batcher, in which images are decoded: a switch must not fall into it."""

    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(1), active=True)
            servable = on.servables.find("forged")
            with Held() as held:
                held.hold(servable)
                on.servables.keep("forged", ())
                await fakes.turn(5)
                on.runners[0].gate.open()
                ran = await servable.batcher.submit((fakes.numbered(1, 1),), None)
            assert len(ran.outputs.logits) == 1
            with pytest.raises(UnknownModel):
                on.servables.find("forged")

    asyncio.run(run())


def test_a_version_that_is_put_again_takes_the_place_of_itself() -> None:
    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(1), active=True)
            first = on.servables.find("forged")
            on.servables.put(version(1), active=True)
            assert on.servables.find("forged") is not first
            assert on.watching.heard == [("serves", "forged", 1), ("ended", "forged", 1), ("serves", "forged", 1)]

    asyncio.run(run())


def test_what_is_not_kept_ends_and_the_rest_goes_on() -> None:
    async def run() -> None:
        async with stage() as on:
            for number in (1, 2, 3):
                on.servables.put(version(number), active=True)
            on.servables.put(version(7, "other"), active=True)
            on.servables.keep("forged", [3, 2])
            assert sorted(servable.model.version for servable in on.servables) == [2, 3, 7]
            on.servables.keep("forged", [2])
            assert on.servables.active == {"other": 7}
            assert [event for event in on.watching.heard if event[0] == "ended"] == [
                ("ended", "forged", 1), ("ended", "forged", 3),
            ]  # fmt: skip

    asyncio.run(run())


def test_renewed_grant_is_seen_where_the_model_serves_already() -> None:
    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(1), active=True)
            terms = replace(model().terms, site="Renewed")
            on.servables.renew(f"{1:064x}", terms)
            assert on.servables.find("forged").model.terms.site == "Renewed"
            on.servables.renew(f"{2:064x}", model().terms)
            assert on.servables.find("forged").model.terms.site == "Renewed"

    asyncio.run(run())


def test_many_switches_under_many_calls_lose_none() -> None:
    """Each of 400 callers is answered with its own rows while 40 versions come and go."""

    async def run() -> None:
        async with stage() as on:
            on.servables.put(version(1), active=True)
            on.runners[-1].gate.open()

            async def caller(number: int) -> None:
                await fakes.turn(number % 7)
                await ask(on.servables.find("forged"), number)

            async def operator() -> None:
                for number in range(2, 42):
                    on.servables.put(version(number), active=True)
                    on.runners[-1].gate.open()
                    on.servables.keep("forged", [number])
                    await fakes.turn(3)

            await asyncio.gather(operator(), *(caller(number) for number in range(400)))
            assert found(on.servables) == 41
            assert sum(len(batch) for runner in on.runners for batch in runner.batches) == 400

    asyncio.run(run())
