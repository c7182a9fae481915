"""A graph that somebody else exported, with ImageNet's labels, names photographs of food, served."""

from pathlib import Path

import pytest

from appliance.bundle import opening
from export import adopt, build, validation
from export.recipe import load
from tests.forge import Forge
from tests.journeys import squeezenet_recipe
from tests.running import running

pytestmark = pytest.mark.skipif(
    not squeezenet_recipe.SHARED.is_dir(), reason="the real data beside the project (shared/data) is absent"
)


def test_a_strangers_graph_names_food_as_it_always_did(tmp_path: Path) -> None:
    """Half precision, another opset, one row: sealed, granted, served in batches; each photograph has the class
    that the file itself gives it.
    """
    assert squeezenet_recipe.prepare(tmp_path) == 150
    vendor, recipe = Forge(), Path(squeezenet_recipe.__file__)
    built = build.build(recipe, tmp_path, [vendor.exporter])
    vendor.content_key = built.content_key
    assert opening.parse(built.bundle).verify([vendor.policy]).manifest.runtime.precision == "fp16"
    asked = load(recipe, tmp_path)
    cases = validation.load(asked)
    wanted = adopt.reference(asked, cases.rows[0]).logits
    photographs = [path.read_bytes() for path in sorted((tmp_path / "validation").glob("*/*"))]

    with running(vendor.site(tmp_path, [built.bundle])) as appliance:
        with appliance.client("admin") as client:
            answers = [client.classify(asked.id, photographs[i : i + 8]) for i in range(0, len(photographs), 8)]
        assert appliance.stop() == 0

    named = [result.label.name for answer in answers for result in answer.results]
    two_best = wanted.copy()
    two_best.sort(axis=1)
    clear = two_best[:, -1] - two_best[:, -2] > 0.05  # what half precision cannot turn
    assert clear.mean() > 0.9
    top = [squeezenet_recipe.NAMES[i] for i in wanted.argmax(axis=1)]
    assert [name for name, sure in zip(named, clear, strict=True) if sure] == [
        name for name, sure in zip(top, clear, strict=True) if sure
    ]
    assert {"banana", "lemon", "orange"} <= set(named)
