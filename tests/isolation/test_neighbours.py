"""Isolation: whatever else is asked at the same time, each caller gets exactly its own rows and leaves its own record."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from appliance.audit.verify import verify
from appliance.errors import DeadlinePassed, InvalidInput, UnknownModel
from appliance.model.inputs import Raw
from appliance.predict import Desk, predict
from tests import forge
from tests.audit import logs
from tests.fakes import clock, numbered, turn
from tests.isolation.desk import call, desk_of, encoded, raw

AT_ONCE = 64
KINDS = ("valid",) * 6 + ("valid encoded", "malformed", "unknown", "expired", "cancelled", "impatient")


async def neighbour(desk: Desk, number: int, chance: random.Random, tally: Counter[str]) -> int:
    """One caller; the rows it was answered. Whoever is valid must be, with its own rows and no others."""
    rows, kind = chance.randint(1, 4), chance.choice(KINDS)
    own = numbered(number, rows)
    tally[kind] += 1
    match kind:
        case "valid" | "valid encoded":
            ask = raw(own) if kind == "valid" else encoded(*map(forge.png, own))
            found = await predict(desk, call(reference=f"n-{number}"), ask)
            assert found.judgement.logits.shape == (rows, forge.CLASSES)
            np.testing.assert_allclose(found.judgement.logits, forge.logits(own), atol=1e-4, err_msg=f"caller {number}")
            tally["answered"] += 1
            return rows
        case "malformed":
            bad = (
                raw(own, inputs=[("image", Raw("UINT8", own.shape, own.tobytes()[:-1]))])
                if number % 2
                else encoded(forge.png(own[0])[:-20])
            )
            with pytest.raises(InvalidInput):
                await predict(desk, call(), bad)
        case "unknown":
            with pytest.raises(UnknownModel):
                await predict(desk, call("DNS:admin"), raw(own, model="other"))
        case "expired":
            with pytest.raises(DeadlinePassed):
                await predict(desk, call(deadline=clock()), raw(own))
        case "cancelled":
            task = asyncio.create_task(predict(desk, call(reference=f"n-{number}"), raw(own)))
            await turn(chance.randint(1, 12))  # one at least: a call that never began leaves no record
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # where it came too late there is an answer, to nobody
        case "impatient":
            deadline = clock() + chance.uniform(0, 0.002)
            task = asyncio.create_task(predict(desk, call(deadline=deadline), raw(own)))
            [end] = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(end, DeadlinePassed):
                np.testing.assert_allclose(end.judgement.logits, forge.logits(own), atol=1e-4)
    return 0


def crowd(folder: Path, rows_wanted: int, seed: int, workers: int) -> Counter[str]:
    """So many callers, some dozens at a time, that this many rows are answered to valid ones."""
    tally: Counter[str] = Counter()

    async def run() -> None:
        chance, numbers = random.Random(seed), iter(range(1, 1 << 31))

        async def callers(desk: Desk) -> None:
            own = random.Random(chance.random())
            while tally["rows"] < rows_wanted:
                answered = await neighbour(desk, next(numbers), own, tally)
                tally["rows"] += answered

        async with desk_of(folder, workers=workers, segment_bytes=1 << 22) as desk, asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(callers(desk))

    asyncio.run(run())
    return tally


def check_records(folder: Path, tally: Counter[str]) -> None:
    """One record for each call, and each valid caller's own."""
    outcomes: Counter[str] = Counter()
    for record in logs.records(folder):
        outcomes[record["outcome"]] += 1
        if record["outcome"] == "answered" and "client_reference" in record:
            number, rows = int(record["client_reference"][2:]), record["input"]["rows"]
            assert record["output"]["top"] == forge.logits(numbered(number, rows)).argmax(axis=1).tolist()
    calls = sum(tally[kind] for kind in set(KINDS))
    assert verify(folder, logs.VERIFIER).size == calls == outcomes.total()
    assert outcomes["invalid"] == tally["malformed"] + tally["unknown"]
    assert outcomes["failed"] == outcomes["shed"] == outcomes["denied"] == outcomes["unavailable"] == 0
    assert outcomes["answered"] >= tally["answered"] == tally["valid"] + tally["valid encoded"]
    assert outcomes["expired"] >= tally["expired"]
    assert outcomes["cancelled"] <= tally["cancelled"]
    assert outcomes["cancelled"] > 0


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_valid_caller_among_thousands_gets_exactly_its_own_rows(tmp_path: Path, workers: int) -> None:
    tally = crowd(tmp_path / "log", 3_000, seed=workers, workers=workers)
    check_records(tmp_path / "log", tally)
    assert tally["rows"] >= 3_000


@pytest.mark.soak
@pytest.mark.parametrize("workers", [0, 2])
def test_every_valid_caller_among_a_hundred_thousand_rows_gets_exactly_its_own(tmp_path: Path, workers: int) -> None:
    tally = crowd(tmp_path / "log", 100_000, seed=3, workers=workers)
    print(tally)
    check_records(tmp_path / "log", tally)
    assert tally["rows"] >= 100_000
