"""No data leaves: every system call of a serving appliance that could carry some is looked at.

ONNX Runtime writes a device id under the home directory when it is first used, and some seconds later looks up its maker's
collector. So a second appliance runs beside the first, alike but for the switch: the tracer must catch that one (its
connections are made to fail by the tracer, so that it sends nothing), and the first is watched for longer than the second
needed.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from tests.forge import Forge
from tests.journeys.test_serving import infer
from tests.running import Running, running

WAIT_S_MAX = 60
FILES = "open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat"
LEAKY = """
import os
import appliance
os.environ["ORT_DISABLE_TELEMETRY"] = "0"
from appliance.engine import session
session.require_telemetry_off = lambda: None
from appliance.cli import main
main()
"""

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which does the looking, is not installed")


@dataclass(frozen=True)
class Traced:
    """An appliance under the tracer, and a home directory of its own."""

    appliance: Running
    trace: Path
    home: Path

    @property
    def lines(self) -> list[str]:
        return self.trace.read_text(errors="replace").splitlines()

    def outward(self) -> list[str]:
        """Every attempt to reach somebody: connections, datagrams, name look-ups."""
        calls = r"\d+ +[\d.]+ (connect\(|socket\(AF_INET6?, SOCK_DGRAM|send(to|msg|mmsg)\(.*sin6?_addr)"
        return [line for line in self.lines if re.match(calls, line)]

    def listening(self) -> set[str]:
        """The addresses that are bound, whatever the port."""
        bound = [line for line in self.lines if " bind(" in line]
        return {address for line in bound for address in re.findall(r'"([^"]*)"', line)}

    def written_outside(self) -> list[str]:
        """Files outside the site that are created, written, renamed or removed."""
        site = str(self.appliance.site.root)
        changing = [line for line in self.lines if _changes_a_file(line)]
        return [line for line in changing if not all(path.startswith(site) for path in _paths(line))]

    def read_while_serving(self) -> list[str]:
        """Files that are opened after it has said that it serves."""
        said = datetime.fromisoformat(self.appliance.lines[-1]["time"]).timestamp()
        # Where threads interleave, a call's second line ("<... openat resumed>") has no path; its first one has.
        opened = [line for line in self.lines if re.match(r"\d+ +[\d.]+ open", line)]
        opened = [line for line in opened if float(line.split()[1]) > said + 0.01]
        return [path for line in opened for path in _paths(line)]


def _changes_a_file(line: str) -> bool:
    if re.match(r"\d+ +[\d.]+ open", line):
        return bool(re.search(r"O_(WRONLY|RDWR|CREAT)", line)) and "/dev/null" not in line
    return bool(re.match(rf"\d+ +[\d.]+ ({FILES.replace(',', '|')})\(", line))


def _paths(line: str) -> list[str]:
    return [path for path in re.findall(r'"([^"]*)"', line) if path.startswith("/")] or ["a path relative to something"]


@contextmanager
def traced(folder: Path, command: list[str], extra: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """Runs an appliance under strace. ``command`` is how Python is to start it."""
    made = Forge()
    home, trace = folder / "home", folder / "trace"
    home.mkdir(parents=True)
    for name, value in {"HOME": home, "TMPDIR": home, "PYTHONDONTWRITEBYTECODE": "1"}.items():
        monkeypatch.setenv(name, str(value))
    # ONNX Runtime holds its tongue where it takes the machine for a build server, so it must not look like one.
    for name in ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "BUILD_ID", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)
    strace = ["strace", "-f", "-qq", "-ttt", "-o", str(trace), "-e", f"trace=%network,{FILES}", *extra]
    site = made.site(folder, [made.bundle()])
    site.client("reader")
    with running(site, strace, command) as appliance:
        yield Traced(appliance, trace, home)


def test_nothing_is_sent_and_nothing_is_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracer finds nothing with the switch thrown, and does find it without."""
    leaky = tmp_path / "leaky.py"
    leaky.write_text(LEAKY)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    unreachable = ["-e", "inject=connect:error=ENETUNREACH"]
    with (
        traced(tmp_path / "with", ["-m", "appliance"], [], monkeypatch) as ours,
        traced(tmp_path / "without", [str(leaky)], unreachable, monkeypatch) as control,
    ):
        started = monotonic()
        stub = ours.appliance.inference("reader")
        rows = np.zeros((4, 8, 8, 1), np.uint8)
        while not control.outward():  # ours is asked all the while
            stub.ModelInfer(infer(rows))
            assert monotonic() - started < WAIT_S_MAX, "the control did not reach out: this test no longer shows anything"
        assert ours.appliance.stop() == 0

    assert ours.outward() == []
    operators = str(ours.appliance.site.root / "operator.sock")
    assert ours.listening() <= {"127.0.0.1", "::1", "::ffff:127.0.0.1", operators}
    assert ours.written_outside() == []
    assert list(ours.home.iterdir()) == []
    # Its own site, modules that Python imports late, and what grpc asks of the kernel to measure time.
    known = (str(ours.appliance.site.root), sys.prefix, sys.base_prefix, "/proc/", "/sys/devices/system/cpu/")
    strange = [path for path in ours.read_while_serving() if not path.startswith(known)]
    assert strange == []

    assert control.outward(), "the tracer would have seen a look-up"
    assert control.written_outside(), "the tracer would have seen a file"
    assert [name for _, _, files in os.walk(control.home) for name in files], "it leaves a device id in the home directory"
