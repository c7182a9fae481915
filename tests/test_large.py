"""What a large bundle costs to open: processor time next to that of SHA-256 alone, and memory next to its weights.

Measured in a process of its own, which has loaded a small model before, so that what is counted is the bundle's.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.bundle import policy
from tests.forge import Forge

ROOT = Path(__file__).resolve().parents[1]
MEMORY_RATIO_MAX, KEPT_RATIO_MAX = 2.5, 1.25

_OPEN = """
import hashlib, json, statistics, sys, time
from pathlib import Path
import appliance
from appliance import memory
from appliance.bundle import opening, policy
from appliance.bundle.enrolment import RecipientKey
from appliance.engine.session import Hardware
from appliance.load import load
from appliance.site import Installed

folder = Path(sys.argv[1])
key = RecipientKey.of((folder / "seed").read_bytes())
policies = [policy.decode((folder / "policy").read_bytes())]
cpu = Hardware(("CPUExecutionProvider",), 2)

def unseal(name):
    installed = Installed(name, 1, folder / name)
    bundle, grant = installed.read(), installed.permit()
    return opening.parse(bundle).verify(policies).admit(grant, key, None).decrypt(memory.secret_buffer, memory.wipe)

def peak():  # not getrusage, whose figure begins with that of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

def seconds(work, *arguments):
    started = time.process_time()
    made = work(*arguments)
    taken = time.process_time() - started
    for part in getattr(made, "parts", {}).values():
        memory.wipe(part)
    return taken

memory.prepare_process()
load(unseal("small"), cpu)
before = peak()
model = load(unseal("large"), cpu)
grown = peak() - before
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
kept = peak() - before
data = (folder / "large" / "model.bundle").read_bytes()
rounds = [(seconds(unseal, "large"), seconds(hashlib.sha256, data)) for _ in range(5)]
weights = next(part.plain_size for part in model.manifest.parts if part.role == "weights")
opened, hashed = (statistics.median(column) for column in zip(*rounds))
print(json.dumps({"weights": weights, "grown": grown, "kept": kept, "open_s": opened, "sha256_s": hashed}))
"""


@pytest.mark.parametrize("mebibytes", [64, pytest.param(100, marks=pytest.mark.soak)])
def test_opening_takes_no_more_memory_than_two_and_a_half_times_the_weights(tmp_path: Path, mebibytes: int) -> None:
    """And prints what it takes of the processor: a time is never a test."""
    vendor = Forge()
    for name, bundle in (("small", vendor.version(1)), ("large", vendor.large(2, mebibytes))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bundle").write_bytes(bundle)
        (tmp_path / name / "model.grant").write_bytes(vendor.grant(bundle))
    (tmp_path / "seed").write_bytes(vendor.seed)
    (tmp_path / "policy").write_bytes(policy.encode(vendor.policy))
    done = subprocess.run([sys.executable, "-c", _OPEN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    ratio = found["grown"] / found["weights"]
    opened, hashed = (f"{1e3 * found[name]:.0f} ms" for name in ("open_s", "sha256_s"))
    print(f"\n{found['weights'] >> 20} MiB of weights: read, verified and decrypted in {opened} of the processor;")
    print(f"SHA-256 of the file alone {hashed}; memory grew by {ratio:.2f} × the weights,")
    kept = found["kept"] / found["weights"]
    print(f"and stays at {kept:.2f} ×")
    assert ratio <= MEMORY_RATIO_MAX
    assert kept <= KEPT_RATIO_MAX
