"""On real pictures, confidence is worth what it says (``python -m tests.benchmarks.confidence`` prints all figures)."""

import pytest
import torch

from tests.benchmarks import confidence
from tests.journeys import pneumonia

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
