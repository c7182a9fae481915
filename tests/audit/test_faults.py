"""Each system call of the writer fails, is interrupted, falls short or is the last: never an answer without a record.

strace puts the fault in, so that the product is not touched: no seam, no fake disk.
"""

import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from appliance.audit.tree import leaf_hash
from appliance.audit.verify import verify
from tests.audit import logs
from tests.audit.afflicted import AT_ONCE, RECORDS

CALLS = ("pwrite64", "fdatasync", "fsync", "openat", "fallocate")  # a segment takes several of each but the last two
FAULTS = ("error=EIO", "error=ENOSPC", "error=EINTR", "signal=KILL")
SHORT = ("pwrite64", "retval=100")  # so the kernel says; it has written nothing
WHEN = range(1, 9)
END_S_MAX = 60

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def afflict(folder: Path, call: str, fault: str, when: int) -> tuple[dict[int, str], str]:
    """The leaf hash of each acknowledged record, and how the child said that it ended; nothing where it was killed."""
    command = [sys.executable, "-m", "tests.audit.afflicted", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}"]
        tracing = ["strace", "-f", "-p", str(child.pid), "-o", os.devnull, *inject]
        with subprocess.Popen(tracing, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            if "attached" not in attached:
                child.kill()
                pytest.skip(f"strace cannot attach here: {attached.strip()}")
            lines = child.communicate("go\n", timeout=END_S_MAX)[0].split("\n")
            tracer.wait(END_S_MAX)
    said = [line.split() for line in lines[:-1]]
    end = said.pop()[0] if said and len(said[-1]) == 1 else ""
    return {int(index): leaf for index, leaf in said}, end


def check(folder: Path, call: str, fault: str, when: int) -> str:
    """What the child said is on the disk, and the log goes on after it."""
    acknowledged, end = afflict(folder, call, fault, when)
    opened = logs.journal(folder)
    size = opened.position.size
    opened.close()
    payloads = logs.payloads(folder)
    lost = [i for i, leaf in acknowledged.items() if i >= len(payloads) or leaf_hash(payloads[i]).hex() != leaf]
    assert not lost, f"{call} {fault} {when}: {len(lost)} of {len(acknowledged)} acknowledged records are lost"
    assert verify(folder, logs.VERIFIER).size == size == len(payloads)
    assert len(acknowledged) <= size <= len(acknowledged) + AT_ONCE, "no more than the group of the fault is unacknowledged"
    assert end == ("done" if len(acknowledged) == RECORDS else "" if "KILL" in fault else "refused")
    return end


@pytest.mark.parametrize(("call", "fault"), [*product(CALLS, FAULTS), SHORT])
def test_a_fault_in_any_call_of_the_writer_loses_nothing_that_was_acknowledged(
    tmp_path: Path, call: str, fault: str
) -> None:
    expected = {"error=EINTR": "done", "signal=KILL": ""}.get(fault, "refused")
    assert check(tmp_path / "log", call, fault, 2) == expected


@pytest.mark.soak
def test_a_fault_in_any_call_at_any_time_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    ends = [
        check(tmp_path / f"{call}-{fault}-{when}", call, fault, when)
        for (call, fault), when in product([*product(CALLS, FAULTS), SHORT], WHEN)
    ]
    refused, went_on, killed = (ends.count(end) for end in ("refused", "done", ""))
    print(f"{len(ends)} runs with a fault: {refused} refused, {went_on} went on, {killed} killed")
    assert refused > 50
