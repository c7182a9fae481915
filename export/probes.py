"""Two questions to the graph that is served: does it look where it should, and where did it look when it was wrong?

**Border only.** The middle of each image, all but an eighth of its height and width on every side, becomes the mean colour
of the images: 56% of its area. A model that still answers well from the border alone has learnt something that stands
there, a marker or a way of framing, and not what it is for (DeGrave et al. 2021 found such of chest X-rays). How well is
told as the share of the way from always giving the commonest label to the accuracy on whole images. Where the thing itself
reaches into the border, some of it is honest: the figure asks for a look, it convicts nobody.

**Occlusion.** For the worst cases, the confidently wrong ones first and then the least sure, a patch of that same colour
covers one field of a grid after the other, and the top label's probability falls by so much (Zeiler and Fergus 2014, section
4.2). It says what the answer hung on, one patch at a time; what two patches hold between them it does not see.

Both are of images. Of other kinds the worst cases are told without a map.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.model.confidence import Floats, probabilities
from appliance.model.inputs import Images
from export.evenly import evenly
from export.evidence import Finding

BORDER = 1 / 8  # of height, and of width, on each side
BORDER_CASES_MAX = 2000
AMBER_OVER, RED_OVER = 0.5, 0.8
GRID = 7
WORST_MAX = 12
OCCLUSION_RUNS_MAX = 600  # images; 12 maps of 7 × 7
AT_ONCE_BYTES_MAX = 64 << 20  # of changed copies: forty-nine of a large image would be gigabytes

Run: TypeAlias = Callable[[Images], Floats]


@dataclass(frozen=True, slots=True)
class Border:
    """Accuracies of ``cases`` images: of the border alone, of the whole image, and of always giving the commonest label.

    ``width`` is that of the border in pixels, above and below, and left and right.
    """

    cases: int
    width: tuple[int, int]
    border: float
    whole: float
    chance: float

    @property
    def share(self) -> float | None:
        """Of what the model knows over chance, how much it knows from the border; None where it knows nothing."""
        return (self.border - self.chance) / (self.whole - self.chance) if self.whole > self.chance else None


@dataclass(frozen=True, eq=False)
class Worst:
    """One case: its place among the cases, its label, the answer and its calibrated probability.

    ``drop`` is float64 ``[rows, columns]``: by how much that probability falls with each field covered; None without a map.
    """

    place: int
    label: int
    answer: int
    probability: float
    drop: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Probes:
    """``border`` is None where cases are no images."""

    border: Border | None
    worst: tuple[Worst, ...]


def probe(run: Run, images: Images | None, labels: NDArray[np.int64], logits: Floats, temperature: float) -> Probes:
    """``run`` gives logits ``[N, classes]`` for uint8 ``[N, height, width, channels]``; ``logits`` are those of all cases.

    ``images`` is None where the cases are of another kind; then nothing is run.
    """
    shown = worst(logits, labels, temperature)
    if images is None:
        return Probes(None, shown)
    mean = mean_colour(images)
    maps_max = OCCLUSION_RUNS_MAX // GRID**2
    mapped = tuple(occluded(run, images[each.place], each, temperature, mean) for each in shown[:maps_max])
    return Probes(border_only(run, images, labels, logits, mean), mapped + shown[maps_max:])


def mean_colour(images: Images) -> NDArray[np.uint8]:
    """Uint8 ``[channels]``."""
    return np.asarray(np.round(images.mean(axis=(0, 1, 2), dtype=np.float64)), np.uint8)


def border_only(run: Run, images: Images, labels: NDArray[np.int64], logits: Floats, mean: NDArray[np.uint8]) -> Border:
    """Of an even choice of at most 2,000 cases."""
    chosen = evenly(len(images), BORDER_CASES_MAX)
    height, width = (max(1, round(side * BORDER)) for side in images.shape[1:3])
    own, right = labels[chosen], 0
    for few in _blocks(len(chosen), images[0].nbytes):
        bordered = images[chosen[few]]  # a copy, since places choose it
        bordered[:, height:-height, width:-width] = mean
        right += int((run(bordered).argmax(axis=1) == own[few]).sum())
    return Border(
        cases=len(chosen),
        width=(height, width),
        border=right / len(chosen),
        whole=float((logits[chosen].argmax(axis=1) == own).mean()),
        chance=float(np.bincount(own).max() / len(own)),
    )


def finding(border: Border) -> Finding:
    """The probe as one of the report's findings."""
    about, share = "Border only", border.share
    told = f"answers {border.border:.1%} rightly from the border alone, {border.whole:.1%} from whole images"
    if share is None:
        return Finding("red", about, f"The model is no better than always giving the commonest label ({border.chance:.1%}).")
    chance = f"always giving the commonest label would be right in {border.chance:.1%}"
    if share <= AMBER_OVER:
        return Finding("ok", about, f"The model {told}; {chance}.")
    return Finding(
        "red" if share > RED_OVER else "amber",
        about,
        f"The model {told}; {chance}. So {share:.0%} of what it knows stands in the border: look whether something there, "
        "a marker or a way of framing, gives the label away.",
    )


def worst(logits: Floats, labels: NDArray[np.int64], temperature: float) -> tuple[Worst, ...]:
    """At most twelve: wrong answers, the surest first, and then right ones, the least sure first."""
    calibrated = probabilities(logits, temperature)
    answer, sure = calibrated.argmax(axis=1), calibrated.max(axis=1)
    right = answer == labels
    order = np.lexsort((np.where(right, sure, -sure), right))[:WORST_MAX]
    return tuple(Worst(int(i), int(labels[i]), int(answer[i]), float(sure[i]), None) for i in order)


def occluded(run: Run, image: Images, case: Worst, temperature: float, mean: NDArray[np.uint8]) -> Worst:
    """The case with its map. ``image`` is uint8 ``[height, width, channels]``; small ones have a field for each pixel."""
    rows, columns = (np.linspace(0, side, min(GRID, side) + 1).round().astype(int) for side in image.shape[:2])
    fields = [(i, j) for i in range(len(rows) - 1) for j in range(len(columns) - 1)]
    left: list[float] = []
    for few in _blocks(len(fields), image.nbytes):
        covered = np.repeat(image[None], len(fields[few]), axis=0)
        for one, (i, j) in zip(covered, fields[few], strict=True):
            one[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = mean
        left += probabilities(run(covered), temperature)[:, case.answer].tolist()
    drop = (case.probability - np.array(left)).reshape(len(rows) - 1, len(columns) - 1)
    return Worst(case.place, case.label, case.answer, case.probability, drop)


def _blocks(count: int, size_bytes: int) -> Iterator[slice]:
    """Places 0 to ``count``, as many at a time as may be held at once, and at least one."""
    step = max(1, AT_ONCE_BYTES_MAX // size_bytes)
    yield from (slice(start, start + step) for start in range(0, count, step))
