"""A network that somebody else trained goes through the factory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from export import build, checkpoint
from tests.export.desk import ROOT
from tests.journeys import resnet20_recipe

SHARED = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data beside the project (shared/data) is absent")


def test_strangers_network_is_exported_and_proven(tmp_path: Path) -> None:
    """420 photographs: parity within the limits, a bundle, and every step announced in order."""
    assert resnet20_recipe.prepare(SHARED / "grocery", tmp_path) >= 400
    steps: list[str] = []
    recipe = Path(resnet20_recipe.__file__)
    built = build.build(recipe, tmp_path, [Ed25519PrivateKey.generate()], steps.append)
    assert steps == list(build.STEPS)
    assert built.report["parity"]["cases"] >= 400
    assert built.report["parity"]["logit_difference_e9"] <= 1_000_000
    assert built.report["parts"]["weights"]["bytes"] > 1_000_000


def test_architecture_fits_the_published_checkpoint(tmp_path: Path) -> None:
    """0.27 million parameters (table 6 of the paper), every one of them from the file; and a pooled embedding."""
    (tmp_path / "validation").mkdir()
    made = resnet20_recipe.recipe(tmp_path)
    served = checkpoint.load(made)
    assert sum(p.numel() for p in served.module.parameters()) == 269_722
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    assert checkpoint.outputs(served, (images,))[1].shape == (4, 64)
