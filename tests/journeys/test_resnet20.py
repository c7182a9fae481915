"""The real world: a network that somebody else trained, and photographs that nobody made for it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from appliance.model import inputs
from appliance.oip import open_inference_pb2 as oip
from export import build, checkpoint
from tests.forge import Forge
from tests.journeys import resnet20_recipe
from tests.journeys.test_lifecycle import verified
from tests.running import records, running

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PHOTOGRAPHS, ROWS = 64, 16

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data beside the project (shared/data) is absent")


def test_a_strangers_network_answers_photographs_as_torch_does(tmp_path: Path) -> None:
    """Exported, sealed, granted, served: the top class is torch's for every photograph, and the log is whole."""
    resnet20_recipe.prepare(SHARED / "grocery", tmp_path)
    made = Forge()
    built = build.build(Path(resnet20_recipe.__file__), tmp_path, [made.exporter])
    made.content_key = built.content_key
    recipe = resnet20_recipe.recipe(tmp_path)
    paths = sorted((SHARED / "grocery").glob("*/*/*.jpg"))[:: 420 // PHOTOGRAPHS][:PHOTOGRAPHS]
    photographs = [path.read_bytes() for path in paths]
    decoded = torch.from_numpy(inputs.decode(recipe.input.specs[0], photographs))
    wanted = checkpoint.outputs(checkpoint.load(recipe), (decoded,))[0].numpy()

    with running(made.site(tmp_path, [built.bundle])) as appliance:
        stub, served = appliance.inference("admin"), []
        for start in range(0, PHOTOGRAPHS, ROWS):
            request = oip.ModelInferRequest(model_name=recipe.id)
            batch = photographs[start : start + ROWS]
            request.inputs.add(name="image", datatype="BYTES", shape=[len(batch)]).contents.bytes_contents.extend(batch)
            request.outputs.add(name="logits")
            served.append(np.frombuffer(stub.ModelInfer(request).raw_output_contents[0], "<f4").reshape(-1, 10))
        with appliance.client("admin") as client:
            answer = client.classify(recipe.id, photographs[:ROWS])
        assert appliance.stop() == 0

    logits = np.concatenate(served)
    assert len(logits) == PHOTOGRAPHS
    assert np.abs(logits - wanted).max() <= 1e-4
    assert (logits.argmax(1) == wanted.argmax(1)).all()
    top = [resnet20_recipe.CLASSES.index(result.label.name) for result in answer.results]
    assert top == wanted[:ROWS].argmax(1).tolist()
    assert answer.model_digest == built.digest
    calls = [record for record in records(appliance.site) if record["event"] == "call"]
    assert sum(record["input"]["rows"] for record in calls) == PHOTOGRAPHS + ROWS
    assert verified(appliance.site) == len(records(appliance.site))
