"""Triton's own client, as its package has it, against the appliance. It needs an older protobuf, so a venv of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import forge
from tests.forge import Forge
from tests.running import running

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "venv-triton"
PACKAGES = ("tritonclient[grpc]==2.73.0", "protobuf==6.33.6", "grpcio==1.85.1", "numpy==2.4.6")

SCRIPT = """
import sys
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

address, folder, rows = sys.argv[1:4]
client = InferenceServerClient(
    address, ssl=True, root_certificates=f"{folder}/ca.crt",
    private_key=f"{folder}/client.key", certificate_chain=f"{folder}/client.crt",
)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("forged", "1")
assert client.get_server_metadata().name == "appliance"
metadata = client.get_model_metadata("forged")
assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("image", "UINT8", [-1, 8, 8, 1])]

with np.load(rows) as arrays:
    images, wanted = arrays["images"], arrays["logits"]
    encoded = [arrays[f"png_{i}"].tobytes() for i in range(len(images))]
raw = InferInput("image", list(images.shape), "UINT8")
raw.set_data_from_numpy(images)
answer = client.infer("forged", [raw])
assert np.abs(answer.as_numpy("logits") - wanted).max() < 1e-4
assert np.allclose(answer.as_numpy("probabilities").sum(1), 1)
assert {text.decode() for text in answer.as_numpy("decision")} <= {"ACCEPT", "ABSTAIN"}

files = InferInput("image", [len(encoded)], "BYTES")
files.set_data_from_numpy(np.array(encoded, dtype=object))
chosen = client.infer("forged", [files], outputs=[InferRequestedOutput("logits")], request_id="case-9")
assert np.abs(chosen.as_numpy("logits") - wanted).max() < 1e-4
assert chosen.as_numpy("probabilities") is None and chosen.get_response().id == "case-9"

asked = InferRequestedOutput("probabilities", class_count=2)
best = client.infer("forged", [raw], outputs=[asked]).as_numpy("probabilities")
assert best.shape == (len(images), 2), best.shape
for row, logits in zip(best, wanted):
    value, index, label = row[0].decode().split(":")
    assert int(index) == logits.argmax() and label in ("one", "two", "three") and 0 < float(value) <= 1

typed = InferInput("image", [1, 8, 8, 1], "FP32")
typed.set_data_from_numpy(images[:1].astype(np.float32))
assert np.abs(client.infer("forged", [typed], priority=1, timeout=5_000_000).as_numpy("logits") - wanted[:1]).max() < 1e-4
config = client.get_model_config("forged").config
assert config.name == "forged" and config.max_batch_size == 1024 and list(config.input[0].dims) == [8, 8, 1]
assert "statistics" in client.get_server_metadata().extensions
counted = client.get_inference_statistics("forged").model_stats[0]
assert counted.inference_stats.success.count == 4 and counted.inference_count == 3 * len(images) + 1, counted
assert [(m.name, m.version, m.state) for m in client.get_model_repository_index().models] == [("forged", "1", "READY")]
for forbidden in (lambda: client.load_model("forged"), lambda: client.unload_model("forged"),
                  lambda: client.get_system_shared_memory_status(), lambda: client.update_log_settings({})):
    try:
        forbidden()
    except InferenceServerException as error:
        assert "PERMISSION_DENIED" in error.status() and "appliance.v1.Administration" in error.message(), error
    else:
        raise AssertionError("it was to be refused")

import asyncio
import tritonclient.grpc.aio as aio

async def at_once():
    async with aio.InferenceServerClient(
        address, ssl=True, root_certificates=f"{folder}/ca.crt",
        private_key=f"{folder}/client.key", certificate_chain=f"{folder}/client.crt",
    ) as other:
        return await asyncio.gather(*[other.infer("forged", [raw]) for _ in range(8)])

for answer in asyncio.run(at_once()):
    assert np.abs(answer.as_numpy("logits") - wanted).max() < 1e-4

for model, tensor, status in (("other", raw, "NOT_FOUND"), ("forged", None, "INVALID_ARGUMENT")):
    if tensor is None:
        tensor = InferInput("image", [1, 4, 4, 1], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, 4, 4, 1), np.uint8))
    try:
        client.infer(model, [tensor])
    except InferenceServerException as error:
        assert status in error.status(), error
    else:
        raise AssertionError(f"{status} was expected")
print("unmodified")
"""

TEXTS = """
import sys
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

address, folder, rows = sys.argv[1:4]
client = InferenceServerClient(
    address, ssl=True, root_certificates=f"{folder}/ca.crt",
    private_key=f"{folder}/client.key", certificate_chain=f"{folder}/client.crt",
)
[told] = client.get_model_metadata("reports").inputs
assert (told.name, told.datatype, list(told.shape)) == ("report", "BYTES", [-1]), told
[told] = client.get_model_config("reports").config.input
assert list(told.dims) == [1], told
with np.load(rows) as arrays:
    texts, wanted = [str(text) for text in arrays["texts"]], arrays["logits"]
for given in (np.array(texts, dtype=object), np.array([[text.encode()] for text in texts], dtype=object), np.array(texts)):
    tensor = InferInput("report", list(given.shape), "BYTES")
    tensor.set_data_from_numpy(given if given.dtype == object else given.astype(object))
    assert (client.infer("reports", [tensor]).as_numpy("logits") == wanted).all()
tensor = InferInput("report", [1], "BYTES")
tensor.set_data_from_numpy(np.array([b"\\xff"], dtype=object))
try:
    client.infer("reports", [tensor])
except InferenceServerException as error:
    assert "INVALID_ARGUMENT" in error.status() and error.message() == "Text 0: it is not UTF-8.", error
else:
    raise AssertionError("it was to be refused")
print("unmodified")
"""


@pytest.fixture(scope="module")
def triton_python() -> Path:
    """The interpreter of a venv with Triton's client; kept in build/ between runs."""
    python, done = VENV / "bin" / "python", VENV / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
        found = subprocess.run(install, capture_output=True, text=True, check=False)
        if found.returncode:
            pytest.skip("Triton's client cannot be installed here: no package index within reach")
        done.touch()
    return python


def test_tritons_client_works_unmodified(triton_python: Path, tmp_path: Path) -> None:
    """Ready, metadata, raw and encoded inputs, chosen outputs, and errors with their statuses."""
    import numpy as np

    images = np.stack([forge.image(seed) for seed in range(6)])
    encoded = {f"png_{i}": np.frombuffer(forge.png(image), np.uint8) for i, image in enumerate(images)}
    np.savez(tmp_path / "rows.npz", images=images, logits=forge.logits(images), **encoded)
    made = Forge()
    with running(made.site(tmp_path, [made.bundle()])) as appliance:
        arguments = [appliance.address, appliance.site.client("admin"), tmp_path / "rows.npz"]
        ended = subprocess.run(
            [triton_python, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.stdout == "unmodified\n", ended.stderr


def test_tritons_client_sends_texts_as_it_sends_any_strings(triton_python: Path, tmp_path: Path) -> None:
    import numpy as np

    texts = [forge.report(number) for number in (1, 22, 333)]
    np.savez(tmp_path / "rows.npz", texts=np.array(texts), logits=forge.text_logits(texts))
    made = Forge()
    with running(made.site(tmp_path, [made.texts()])) as appliance:
        arguments = [appliance.address, appliance.site.client("admin"), tmp_path / "rows.npz"]
        ended = subprocess.run(
            [triton_python, "-c", TEXTS, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.stdout == "unmodified\n", ended.stderr
