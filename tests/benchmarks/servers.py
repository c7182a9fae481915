"""What is measured, each in processes of its own on free ports of this machine; they end with the block that uses them.

A peer lives in ``build/venv-NAME``, which is made when it is first wanted, with this ONNX Runtime where its pins allow. What
it prints is in ``build/NAME.log``.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import grpc

from tests.benchmarks.h2load import Door, Unmeasurable, ask
from tests.benchmarks.models import Made
from tests.forge import Forge
from tests.running import running

BUILD = Path(__file__).resolve().parents[2] / "build"
PINS = {
    "mlserver": ["mlserver==1.7.1"],
    "kserve": ["kserve==0.21.0"],
    "pytriton": ["nvidia-pytriton==0.7.0"],
}
PLAINTEXT = '[server.plaintext]\naddress = "127.0.0.1:0"\nroles = ["predict"]\n'
START_S_MAX, END_S_MAX = 180, 15


@contextmanager
def appliance(folder: Path, made: Sequence[Made], settings: str, *, audited: bool) -> Iterator[dict[bool, Door]]:
    """Serves the networks: its door with TLS, and the one without. ``settings`` are more of its configuration."""
    forge = Forge()
    folder.mkdir()
    site = forge.site(folder, [one.bundle(forge) for one in made], PLAINTEXT + settings)
    program = ("-m", "appliance") if audited else ("-m", "tests.benchmarks.unaudited")
    with running(site, program=program) as serving:
        yield {True: Door(serving.port, site.client("admin")), False: Door(serving.plaintext_port)}


@contextmanager
def peer(name: str, networks: Path, made: Sequence[Made]) -> Iterator[Door]:
    """Serves the networks that were saved to a folder, once all of them answer rightly. Raises Unmeasurable."""
    python, port = _installed(name), _free_port()
    script = Path(__file__).parent / "peers" / f"serve_{name}.py"
    command = [str(python), str(script), str(networks), str(port), str(os.cpu_count() or 1)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"ORT_DISABLE_TELEMETRY": "1"}
    log = BUILD / f"{name}.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, stdout=said, stderr=said, env=environment, cwd=networks.parent, start_new_session=True
        ) as process,
    ):
        try:
            _until_answering(name, Door(port), made, process)
            yield Door(port)
        finally:
            _end(process)


def _installed(name: str) -> Path:
    """The Python that has a peer. Raises Unmeasurable."""
    folder = BUILD / f"venv-{name}"
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = [*PINS[name], f"onnxruntime=={version('onnxruntime')}"]
    if not stamp.exists() or stamp.read_text().split() != wanted:
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted]
        for command in ([sys.executable, "-m", "venv", str(folder)], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
                raise Unmeasurable(f"{name} is left out, for it cannot be installed: {reason}")
        stamp.write_text("\n".join(wanted))
    return python


def _until_answering(name: str, door: Door, made: Sequence[Made], process: "subprocess.Popen[bytes]") -> None:
    end, waiting = time.monotonic() + START_S_MAX, list(made)
    while waiting:
        if process.poll() is not None:
            raise Unmeasurable(f"{name} is left out, for it ended with {process.returncode}; build/{name}.log says why.")
        if time.monotonic() > end:
            raise Unmeasurable(f"{name} is left out, for it did not serve within {START_S_MAX} s; see build/{name}.log.")
        try:
            ask(door, waiting[0], 1)
            waiting.pop(0)
        except grpc.RpcError:
            time.sleep(0.5)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """With all that it has started: asked as from a keyboard, which lets a peer tidy up, and then not asked."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S_MAX)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
