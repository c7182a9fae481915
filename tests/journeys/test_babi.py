"""Texts go the way of images, from the recipe to the server; and a network without its masks goes no way at all."""

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from export import build, checkpoint, recipe
from export.convert import convert
from export.errors import ParityError
from export.session import GraphSession
from tests.forge import Forge
from tests.journeys import babi
from tests.running import running

pytestmark = pytest.mark.skipif(not babi.TASKS.is_dir(), reason="the real data beside the project (shared/data) is absent")

CARELESS = """
from tests.forge import Forge
from tests.journeys import babi
from tests.running import running

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


def test_reader_is_served_and_answers_as_torch_does(trained: Path, tmp_path: Path) -> None:
    """Exported, sealed, granted: 200 stories that nobody trained on, in calls of seven."""
    vendor = Forge()
    built = build.build(Path(babi.__file__), trained, [vendor.exporter])
    vendor.content_key = built.content_key
    assert built.report["parity"]["padding_difference_e9"] <= 100_000
    asked = recipe.load(Path(babi.__file__), trained)
    told = list(babi.stories(babi.TASKS / "qa1_single-supporting-fact_test.txt"))[:200]
    rows = babi.tensors(asked.input.specs[0].text.words, told)[0].numpy()  # type: ignore[union-attr]
    wanted = checkpoint.reference(checkpoint.load(asked), asked, (rows,)).logits.argmax(axis=1)
    with running(vendor.site(tmp_path, [built.bundle])) as appliance:
        with appliance.client("admin") as client:
            calls = [[said for said, _ in told[i : i + 7]] for i in range(0, 200, 7)]
            answers = [client.classify(asked.id, texts=texts) for texts in calls]
        assert appliance.stop() == 0
    named = [result.label.name for answer in answers for result in answer.results]
    assert named == [babi.PLACES[top] for top in wanted]
    assert sum(name == place for name, (_, place) in zip(named, told, strict=True)) >= 190
