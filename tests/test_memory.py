"""Plaintext in memory: locked, left out of dumps, wiped; and a process that nobody can dump."""

import ctypes
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import memory

ROOT = Path(__file__).resolve().parents[1]


def flags_of(buffer: mmap.mmap) -> set[str]:
    """The VmFlags of the mapping that a buffer lies in (proc(5))."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    found: set[str] = set()
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= address < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            found = set(line.split()[1:])
    return found


def test_buffer_is_locked_out_of_swap_dumps_and_children() -> None:
    buffer = memory.secret_buffer(4096)
    assert isinstance(buffer, mmap.mmap)
    assert {"lo", "dd", "dc"} <= flags_of(buffer)  # locked, do not dump, do not copy on fork
    memory.wipe(buffer)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097])
def test_buffer_has_exactly_its_size_and_is_zero(size: int) -> None:
    buffer = memory.secret_buffer(size)
    assert (len(buffer), bytes(buffer)) == (size, bytes(size))
    memory.wipe(buffer)


def test_wiped_buffer_holds_nothing_even_for_who_still_looks_at_it() -> None:
    for buffer in (memory.secret_buffer(6), bytearray(6)):
        buffer[:] = b"secret"
        view = memoryview(buffer)
        memory.wipe(buffer)
        assert bytes(view) == bytes(6)
        view.release()


def test_wiped_buffer_is_given_back() -> None:
    buffer = memory.secret_buffer(1 << 20)
    memory.wipe(buffer)
    assert isinstance(buffer, mmap.mmap)
    assert buffer.closed


_LOCK = """
import sys
from pathlib import Path
import appliance.memory as memory
memory._may_lock_everything = lambda: sys.argv[1] == "allowed"
memory.prepare_process()
print(Path("/proc/self/status").read_text().partition("VmLck:")[2].split()[0])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only who may lock without a limit can try it")
@pytest.mark.parametrize("how", ["allowed", "not allowed"])
def test_whole_process_is_locked_where_that_is_allowed(how: str) -> None:
    """And left alone where later allocations would fail for it."""
    done = subprocess.run([sys.executable, "-c", _LOCK, how], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 1024) == (how == "allowed")


@pytest.mark.parametrize(
    ("devices", "limit", "seen"), [(1, 1 << 20, True), (1, resource.RLIM_INFINITY, False), (0, 0, False)]
)
def test_swap_sees_an_appliance_where_there_is_some_and_memory_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int, limit: int, seen: bool
) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n" + "/dev/sda2 partition 1048572 0 -2\n" * devices)
    monkeypatch.setattr(memory, "_SWAPS", swaps)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    assert memory.swap_can_see_us() == seen


_DIE = """
import ctypes, os, resource, signal, sys
import appliance.memory as memory
unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
if sys.argv[1] == "prepared":
    memory.prepare_process()
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
resource.setrlimit(resource.RLIMIT_CORE, unlimited)  # somebody raises it later
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)  # PR_GET_DUMPABLE
os.kill(os.getpid(), signal.SIGABRT)
"""


@pytest.mark.parametrize("how", ["prepared", "control"])
def test_prepared_process_leaves_no_core_though_the_control_does(tmp_path: Path, how: str) -> None:
    """Where the machine writes cores to a file beside the process, and lets it."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|") or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this machine writes no core file beside a process")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _DIE, how]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert done.stdout == ("0\n" if how == "prepared" else "1\n")
    assert bool(os.listdir(tmp_path)) == (how == "control")  # noqa: PTH208
