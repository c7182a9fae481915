"""Importing does nothing: no file, no thread, no logging; and nobody pays for what they do not use."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import appliance

ROOT = Path(__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(appliance.__path__, "appliance.") if m.name != "appliance.__main__")

_REPORT = """
import importlib, json, logging, os, signal, sys, threading
root = logging.getLogger()
before = (list(root.handlers), root.level, signal.getsignal(signal.SIGTERM))
for name in sys.argv[1:]:
    importlib.import_module(name)
after = (list(root.handlers), root.level, signal.getsignal(signal.SIGTERM))
print(json.dumps({
    "threads": [thread.name for thread in threading.enumerate()],
    "logging": before[:2] == after[:2],
    "signals": before[2] == after[2],
    "files": os.listdir(),
    "modules": sorted(sys.modules),
    "telemetry": os.environ.get("ORT_DISABLE_TELEMETRY"),
    "arguments": sys.argv[1:],
}))
"""


def report(folder: Path, *names: str) -> dict[str, Any]:
    """What a fresh process is like once it has imported these modules, with an empty folder to work in."""
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _REPORT, *names], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def test_importing_every_module_does_nothing(tmp_path: Path) -> None:
    assert len(MODULES) > 40
    found = report(tmp_path, *MODULES)
    assert found["threads"] == ["MainThread"]
    assert found["files"] == []
    assert found["logging"]
    assert found["signals"]
    assert found["arguments"] == MODULES


def test_the_package_switches_telemetry_off_and_loads_nothing(tmp_path: Path) -> None:
    found = report(tmp_path, "appliance")
    assert found["telemetry"] == "1"
    assert [name for name in found["modules"] if name.startswith("appliance")] == ["appliance"]


_COMMAND = """
import os, sys
from appliance import cli
cli.group.main = lambda *a, **k: print(os.environ["GRPC_EXPERIMENTS"], "grpc" in sys.modules)
cli.main([])
"""
_CLIENT = "import os, appliance.client; print(os.environ.get('GRPC_EXPERIMENTS'))"


@pytest.mark.parametrize(
    ("program", "before", "said"),
    [
        (_COMMAND, {}, "-event_engine_listener False"),
        (_COMMAND, {"GRPC_EXPERIMENTS": "a"}, "a False"),
        (_CLIENT, {}, "None"),
    ],
)
def test_commands_choose_grpcs_threads_before_grpc_is_there_and_importing_the_client_does_not(
    program: str, before: dict[str, str], said: str
) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"} | before
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said


@pytest.mark.parametrize(("module", "unwanted"), [
    ("appliance.client", {"numpy", "onnxruntime", "onnx", "PIL", "prometheus_client", "torch"}),
    ("appliance.cli", {"numpy", "onnxruntime", "onnx", "PIL", "grpc", "prometheus_client", "torch", "cryptography"}),
    ("appliance.cli.predict", {"numpy", "onnxruntime", "onnx", "PIL", "prometheus_client", "torch"}),
    ("appliance.cli.audit", {"numpy", "onnxruntime", "onnx", "PIL", "grpc", "prometheus_client", "torch"}),
    ("appliance.bundle.opening", {"numpy", "onnxruntime", "onnx", "PIL", "grpc", "torch"}),
    ("appliance.wiring", {"torch", "onnxscript", "safetensors", "sklearn", "scipy", "export", "tuf", "urllib3", "pkcs11"}),
    ("appliance.cli.serve", {"torch", "onnxscript", "safetensors", "sklearn", "scipy", "export", "tuf", "urllib3"}),
    ("appliance.trust", {"torch", "numpy", "onnxruntime", "onnx", "grpc", "prometheus_client", "requests"}),
])  # fmt: skip
def test_nobody_loads_what_they_do_not_need(tmp_path: Path, module: str, unwanted: set[str]) -> None:
    loaded = set(report(tmp_path, module)["modules"])
    assert module in loaded
    assert loaded & unwanted == set()
