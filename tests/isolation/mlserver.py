"""MLServer, a peer: in a venv of its own, in a process of its own, on free ports of this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from appliance.oip import open_inference_pb2 as oip
from tests import forge
from tests.isolation.attacks import METHOD, Model, Server

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "venv-mlserver"
PACKAGES = ("mlserver==1.7.1",)
BATCH_ROWS_MAX, BATCH_S_MAX = 16, 0.005
START_S_MAX, END_S_MAX = 60, 10


def interpreter() -> Path | None:
    """The interpreter of a venv with MLServer, kept in build/ between runs; None where it cannot be installed."""
    python, done = VENV / "bin" / "python", VENV / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            return None
        done.touch()
    return python


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _write(folder: Path, models: Sequence[Model], ports: Sequence[int]) -> None:
    """Its settings: adaptive batching on, inference in the server's own process, one model a folder."""
    np.savez(folder / "weights.npz", W=forge.W, B=forge.B)
    shutil.copy(Path(__file__).with_name("mlserver_runtime.py"), folder / "forged_runtime.py")
    http, rpc, metrics = ports
    server = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": rpc,
        "metrics_port": metrics,
        "metrics_dir": str(folder / "metrics"),
        "environments_dir": str(folder / "environments"),
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    for model in models:
        (folder / model.name).mkdir()
        settings = {
            "name": model.name,
            "implementation": "forged_runtime.Forged",
            "max_batch_size": BATCH_ROWS_MAX,
            "max_batch_time": BATCH_S_MAX,
            "parameters": {"extra": {"weights": str(folder / "weights.npz"), "offset": model.offset}},
        }
        (folder / model.name / "model-settings.json").write_text(json.dumps(settings))


@contextmanager
def serving(python: Path, folder: Path, models: Sequence[Model]) -> Iterator[Server]:
    """A fresh MLServer that has answered once; it ends with the block."""
    ports = _free_ports(3)
    _write(folder, models, ports)
    command = [python.with_name("mlserver"), "start", folder]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(folder)}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            address = f"127.0.0.1:{ports[1]}"
            _wait_until_ready(address, models)
            yield Server(address, models)
        finally:
            process.terminate()
            try:
                process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()  # callers who were never answered hold it


def _wait_until_ready(address: str, models: Sequence[Model]) -> None:
    with grpc.insecure_channel(address) as channel:
        ready = channel.unary_unary(METHOD.replace("ModelInfer", "ModelReady"))
        for model in models:
            asked = oip.ModelReadyRequest(name=model.name).SerializeToString()
            ready(asked, timeout=START_S_MAX, wait_for_ready=True)
