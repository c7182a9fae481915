"""Where a model looks, asked of models that are known to look in one place."""

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.model.inputs import Images
from export import probes
from export.probes import Border

SIDE = 16


def images(labels: NDArray[np.int64], where: tuple[slice, slice], seed: int = 0) -> Images:
    """Noise, uint8 ``[N, 16, 16, 1]``, bright in one place for label 1."""
    found = np.random.default_rng(seed).integers(60, 120, (len(labels), SIDE, SIDE, 1), dtype=np.uint8)
    found[(labels == 1).nonzero()[0][:, None, None], np.arange(SIDE)[where[0]][:, None], np.arange(SIDE)[where[1]]] = 255
    return found


def looks_at(where: tuple[slice, slice]) -> probes.Run:
    """A model that goes by how bright one place is, and by nothing else."""

    def run(given: Images) -> NDArray[np.float32]:
        bright = given[(slice(None), *where)].mean(axis=(1, 2, 3))
        return np.stack([170 - bright, bright - 170], axis=1).astype(np.float32) / 20

    return run


LABELS = np.arange(400) % 2
CORNER, MIDDLE = (slice(0, 2), slice(0, 2)), (slice(6, 10), slice(6, 10))


def found(where: tuple[slice, slice]) -> Border:
    given, run = images(LABELS, where), looks_at(where)
    border = probes.probe(run, given, LABELS, run(given), 1.0).border
    assert border is not None
    return border


def test_a_model_that_reads_the_corner_is_red() -> None:
    border = found(CORNER)
    assert (border.border, border.whole, border.chance, border.width) == (1.0, 1.0, 0.5, (2, 2))
    assert border.share == 1.0
    assert probes.finding(border).grade == "red"


def test_a_model_that_reads_the_middle_is_ok() -> None:
    border = found(MIDDLE)
    assert (border.border, border.whole) == (0.5, 1.0)
    assert probes.finding(border).grade == "ok"


@pytest.mark.parametrize(
    ("border", "grade"), [(0.75, "ok"), (0.76, "amber"), (0.9, "amber"), (0.91, "red")], ids=["half", "more", "0.8", "over"]
)
def test_grades_turn_where_the_docstring_says(border: float, grade: str) -> None:
    assert probes.finding(Border(100, (1, 1), border, 1.0, 0.5)).grade == grade


def test_a_model_no_better_than_chance_has_no_share() -> None:
    useless = Border(100, (1, 1), 0.6, 0.6, 0.7)
    assert useless.share is None
    assert probes.finding(useless).grade == "red"


def test_the_confidently_wrong_come_first_then_the_least_sure() -> None:
    logits = np.array([[3, 0], [0.1, 0], [2, 0], [0.2, 0], [0, 1]], np.float32)
    labels = np.array([1, 0, 0, 1, 1])
    assert [each.place for each in probes.worst(logits, labels, 1.0)] == [0, 3, 1, 4, 2]
    assert len(probes.worst(np.tile(logits, (10, 1)), np.tile(labels, 10), 1.0)) == probes.WORST_MAX


def test_the_map_shows_where_the_answer_hung() -> None:
    given, run = images(LABELS, CORNER), looks_at(CORNER)
    logits = run(given)
    logits[1] = (0.2, 0)  # one is wrong: it stands first
    first = probes.probe(run, given, LABELS, logits, 1.0).worst[0]
    assert (first.place, first.label, first.answer) == (1, 1, 0)
    sure = probes.occluded(run, given[3], probes.Worst(3, 1, 1, 1.0, None), 1.0, probes.mean_colour(given))
    assert sure.drop is not None
    assert sure.drop.shape == (probes.GRID, probes.GRID)
    assert np.unravel_index(sure.drop.argmax(), sure.drop.shape) == (0, 0)
    assert np.delete(sure.drop.ravel(), 0).max() < 0.01


def test_runs_are_limited_and_the_images_stay_as_they_were() -> None:
    labels = np.arange(3000) % 2
    given = images(labels, MIDDLE)
    before, seen = given.copy(), []

    def run(some: Images) -> NDArray[np.float32]:
        seen.append(len(some))
        return looks_at(MIDDLE)(some)

    logits = looks_at(MIDDLE)(given)
    probes.probe(run, given, labels, logits, 1.0)
    assert sum(seen) <= probes.BORDER_CASES_MAX + probes.OCCLUSION_RUNS_MAX
    assert (given == before).all()


def test_large_images_are_tried_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    given, run = images(LABELS, CORNER), looks_at(CORNER)
    whole = probes.probe(run, given, LABELS, run(given), 1.0)
    seen: list[int] = []

    def counted(some: Images) -> NDArray[np.float32]:
        seen.append(len(some))
        return run(some)

    monkeypatch.setattr(probes, "AT_ONCE_BYTES_MAX", 10 * given[0].nbytes)
    few = probes.probe(counted, given, LABELS, run(given), 1.0)
    assert max(seen) == 10
    assert few.border == whole.border
    for one, other in zip(few.worst, whole.worst, strict=True):
        assert one.drop is not None
        assert other.drop is not None
        assert (one.drop == other.drop).all()


def test_other_kinds_have_worst_cases_and_no_map() -> None:
    def run(some: Images) -> NDArray[np.float32]:
        raise AssertionError("nothing is to be run")

    told = probes.probe(run, None, np.array([1, 0]), np.array([[3, 0], [1, 0]], np.float32), 1.0)
    assert told.border is None
    assert [each.drop for each in told.worst] == [None, None]


def test_an_image_smaller_than_the_grid_has_a_field_for_each_pixel() -> None:
    image = np.full((4, 5, 3), 200, np.uint8)
    drop = probes.occluded(looks_at(CORNER), image, probes.Worst(0, 0, 1, 0.9, None), 1.0, np.zeros(3, np.uint8)).drop
    assert drop is not None
    assert drop.shape == (4, 5)
