"""``kill -9`` at any moment: nothing that was acknowledged is lost.

A child forked from a warm server writes as fast as it can and is killed after a random number of acknowledgements and a
random moment more. Killing shows what the program does with its own writes; that the disk keeps what it said it kept is
``fdatasync``'s promise, which no kill can test.
"""

import multiprocessing
import random
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from time import perf_counter

import pytest

from appliance.audit.tree import leaf_hash
from appliance.audit.verify import verify
from tests.audit import logs
from tests.audit.endless import INDEX, write_for_ever

ROUNDS_A_LOG = 5
ACKNOWLEDGED_MAX = 120
MOMENT_S_MAX = 0.004
STARTING_S = 0.05  # some are killed while they start and recover


@dataclass
class Tally:
    rounds: int = 0
    acknowledged: int = 0
    found: int = 0
    recovered: int = 0


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.audit.endless"])
    return context


def killed(server: ForkServerContext, folder: Path, chance: random.Random) -> dict[int, bytes]:
    """One round: the leaf hash of every record that the child was told is durable."""
    ours, theirs = server.Pipe(duplex=False)
    child = server.Process(target=write_for_ever, args=(str(folder), theirs))
    child.start()
    theirs.close()
    told: dict[int, bytes] = {}

    def read() -> None:
        message = ours.recv_bytes()
        told[INDEX.unpack_from(message)[0]] = message[INDEX.size :]

    awaited = max(0, chance.randrange(-20, ACKNOWLEDGED_MAX))
    for _ in range(awaited):
        read()
    moment = perf_counter() + chance.uniform(0, MOMENT_S_MAX if awaited else STARTING_S)
    while perf_counter() < moment:  # not a wait for anything: the moment is the experiment
        pass
    child.kill()
    child.join()
    try:
        while True:  # what it had said before it died
            read()
    except EOFError:
        pass
    ours.close()
    assert child.exitcode == -9, "the child ended by itself"
    child.close()
    return told


def kill_rounds(server: ForkServerContext, folder: Path, rounds: int, seed: int) -> Tally:
    chance, tally, told = random.Random(seed), Tally(), dict[int, bytes]()
    for number in range(rounds):
        log = folder / str(number // ROUNDS_A_LOG)
        log.mkdir(exist_ok=True)
        if number % ROUNDS_A_LOG == 0:
            told = {}
        told |= killed(server, log, chance)
        opened = logs.journal(log, segment_bytes=40_000)
        tally.recovered += opened.recovered is not None
        opened.close()
        payloads = logs.payloads(log)
        lost = {index for index, leaf in told.items() if index >= len(payloads) or leaf_hash(payloads[index]) != leaf}
        assert not lost, f"round {number} of seed {seed} lost {len(lost)} acknowledged records"
        tally.rounds += 1
        if number % ROUNDS_A_LOG == ROUNDS_A_LOG - 1 or number == rounds - 1:
            found = verify(log, logs.VERIFIER)
            assert (found.size, found.unsigned_records) == (len(payloads), 0)
            tally.acknowledged += len(told)
            tally.found += found.size
    assert tally.acknowledged > rounds
    return tally


def test_no_acknowledged_record_is_lost_to_fifty_kills(server: ForkServerContext, tmp_path: Path) -> None:
    assert kill_rounds(server, tmp_path, 50, seed=9).rounds == 50


@pytest.mark.soak
def test_no_acknowledged_record_is_lost_to_two_thousand_kills(server: ForkServerContext, tmp_path: Path) -> None:
    tally = kill_rounds(server, tmp_path, 2000, seed=10)
    print(tally)
    assert tally.rounds == 2000
