"""A real appliance in a process of its own, on free ports of this machine; it ends when the block does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from appliance.client import Client
from appliance.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.forge import ForgedSite

END_S_MAX = 30


@dataclass
class Running:
    """A serving appliance. ``lines`` are the events it has printed until it served."""

    process: "subprocess.Popen[str]"
    pid: int
    site: ForgedSite
    port: int
    plaintext_port: int
    metrics_port: int
    lines: list[dict[str, Any]]

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def client(self, *dns: str) -> Client:
        folder = self.site.client(*dns)
        return Client.from_files(self.address, folder / "ca.crt", folder / "client.crt", folder / "client.key")

    def channel(self, *dns: str) -> grpc.Channel:
        folder = self.site.client(*dns)
        ca, certificate, key = ((folder / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key"))
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(ca, key, certificate))

    def inference(self, *dns: str) -> GRPCInferenceServiceStub:
        """The Open Inference Protocol, as a caller of these names."""
        return GRPCInferenceServiceStub(self.channel(*dns))

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        os.kill(self.pid, signal.SIGTERM)  # the appliance itself, whatever it runs under
        self.process.communicate(timeout=END_S_MAX)
        return self.process.returncode


@contextmanager
def running(
    site: ForgedSite, wrapper: Sequence[str | Path] = (), program: Sequence[str] = ("-m", "appliance")
) -> Iterator[Running]:
    """Serves a site until the block ends. ``wrapper`` goes before the command, ``program`` is what Python is to run."""
    said: dict[str, Any] = {}
    command = [*wrapper, sys.executable, *program, "serve", "--config", site.config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = _until_serving(process)
            said = lines[-1]
            yield Running(process, said["pid"], site, said["port"], said["plaintext_port"], said["metrics_port"], lines)
        finally:
            if process.poll() is None:
                _end(process, said.get("pid", process.pid))


def _end(process: "subprocess.Popen[str]", pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    try:
        process.communicate(timeout=END_S_MAX)
    except subprocess.TimeoutExpired:
        os.kill(pid, signal.SIGKILL)
        process.kill()
        raise


def _until_serving(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    lines = []
    for line in process.stdout or ():
        lines.append(json.loads(line))
        if lines[-1]["event"] == "serving":
            return lines
    raise AssertionError(f"the appliance ended with {process.wait()} before it served: {lines}")


def records(site: ForgedSite) -> list[dict[str, Any]]:
    """Every record of a site's log, in order; the log need not be at rest."""
    from appliance.audit import segment

    found = []
    for path in segment.segment_paths(site.root / "audit"):
        for frame in segment.frames(path.read_bytes()):
            found += [json.loads(frame.payload)] if frame.kind == segment.RECORD else []
    return found
