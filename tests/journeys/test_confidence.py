"""On real pictures, confidence is worth what it says (``python -m tests.benchmarks.confidence`` prints all figures)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from appliance.v1 import classification_pb2 as pb
from export import build
from export.page import page
from tests.benchmarks import confidence
from tests.forge import Forge
from tests.journeys import pneumonia
from tests.running import running

FOOD = pneumonia.ARRAYS.parents[2] / "grocery"

pytestmark = [
    pytest.mark.soak,  # it trains a network
    pytest.mark.skipif(not pneumonia.ARRAYS.is_file(), reason="the real data beside the project (shared/data) is absent"),
]


def test_confidence_on_chest_x_rays_is_worth_what_it_says() -> None:
    """Accuracy, calibration, coverage and strangers on images that nothing was chosen on; every figure is printed."""
    torch.set_num_threads(1)
    network, _, shifted, halved, strangers = confidence.figures().values()
    for line in (*network, *shifted, *halved, *strangers):
        print(line)
    found = {line.what: line.value for line in network}
    assert found["accuracy, test"] >= 0.9
    found = {line.what: line.value for line in halved}
    assert found["ECE after, of both halves together"] <= 0.03
    assert found["ECE after, of a half"] - found["ECE by chance, of a half"] <= 0.01
    for coverage in (0.9, 0.97):
        assert found[f"{coverage:.0%} sets: coverage by threshold"] == pytest.approx(coverage, abs=0.01)
        inside = next(value for what, value in found.items() if what.startswith(f"{coverage:.0%} sets: share of halves"))
        assert inside >= 0.85
    assert all(line.value >= 0.95 for line in strangers if "AUROC" in line.what)


def test_recipe_for_chest_x_rays_goes_all_the_way(tmp_path: Path) -> None:
    """Trained, exported, reported, served: X-rays of the test split are answered or left to a person,
    photographs of food and handwritten digits are neither.
    """
    torch.set_num_threads(1)
    pneumonia.prepare(tmp_path / "data")
    vendor = Forge()
    built = build.build(Path(pneumonia.__file__), tmp_path / "data", [vendor.exporter])
    vendor.content_key = built.content_key
    assert "Says whether a child" in page(built.findings)
    for finding in built.report["findings"]:
        print(f"{finding['grade']:6} {finding['sentence']}")
    test, digits = pneumonia.part("test"), np.round(load_digits().images * 255 / 16).astype(np.uint8)
    sets = {
        "X-rays": [pneumonia.png(image) for image in test.images],
        "food": [path.read_bytes() for path in sorted(FOOD.glob("*/*/*.jpg"))],
        "digits": [pneumonia.png(np.asarray(Image.fromarray(image).resize((28, 28)))[..., None]) for image in digits[:400]],
    }
    decided, named = {}, []
    with running(vendor.site(tmp_path, [built.bundle])) as appliance:
        with appliance.client("admin") as client:
            for name, files in sets.items():
                results = [r for i in range(0, len(files), 32) for r in client.classify("lungs", files[i : i + 32]).results]
                decided[name] = Counter(pb.Decision.Name(result.decision) for result in results)
                print(f"{name:7} {dict(decided[name])}")
                if name == "X-rays":
                    named = [result.label.name for result in results]
        assert appliance.stop() == 0
    right = np.array(named) == np.array(pneumonia.LABELS)[test.labels]
    print(f"{right.mean():.1%} of {len(right)} X-rays of the test split are named rightly")
    assert right.mean() >= 0.9
    assert decided["X-rays"]["OUT_OF_DISTRIBUTION"] <= 0.1 * len(right)
    assert all(decided[name]["OUT_OF_DISTRIBUTION"] >= 0.95 * len(sets[name]) for name in ("food", "digits"))
