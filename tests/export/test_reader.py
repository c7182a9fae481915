"""Texts go the way of images: a masked network passes, and the same one without its masks does not."""

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from export import build, checkpoint, recipe
from export.convert import convert
from export.errors import ParityError
from export.session import GraphSession
from tests.journeys import babi

pytestmark = pytest.mark.skipif(not babi.TASKS.is_dir(), reason="the real data beside the project (shared/data) is absent")

CARELESS = """
from tests.journeys import babi

def recipe(data):
    return babi.recipe(data, babi.Careless)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("babi")
    assert babi.train(out) > 0.95
    return out


def test_answer_to_a_text_is_its_own(trained: Path) -> None:
    """200 stories that nobody trained on: alone, in sevens, in sixty-fours, shuffled, with other words past their end."""
    asked = recipe.load(Path(babi.__file__), trained)
    session = GraphSession(convert(Path(babi.__file__), trained))
    told = list(babi.stories(babi.TASKS / "qa1_single-supporting-fact_test.txt"))[:200]
    rows = babi.tensors(asked.input.specs[0].text.words, told)[0].numpy()  # type: ignore[union-attr]
    alone = session.run((rows,), 1)
    network = checkpoint.reference(checkpoint.load(asked), asked, (rows,))
    assert (network.logits.argmax(1) == alone.logits.argmax(1)).all()
    noise = np.where(np.arange(rows.shape[1]) > rows[:, :1], np.random.default_rng(1).integers(1, 9, rows.shape), rows)
    order = np.random.default_rng(2).permutation(200)
    for size in (1, 7, 64):
        for given in (rows, noise):
            for chosen in (np.arange(200), order):
                found = session.run((given[chosen],), size)
                assert (found.logits.argmax(1) == alone.logits[chosen].argmax(1)).all()
                assert np.abs(found.logits - alone.logits[chosen]).max() <= 1e-4


def test_network_without_its_masks_is_refused(trained: Path, tmp_path: Path) -> None:
    """It was trained well, it answers, and its answers depend on how long the longest text may be."""
    (tmp_path / "careless.py").write_text(CARELESS)
    with pytest.raises(ParityError, match="differs from the network in a logit"):
        build.build(tmp_path / "careless.py", trained, [Ed25519PrivateKey.generate()])
