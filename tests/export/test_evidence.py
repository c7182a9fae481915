"""What the data say before any model is judged by them."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from appliance.model.inputs import Images
from export import evidence, twins
from export.evidence import Evidence, Finding
from tests.export.cases import Kept, digits, of_images

X_RAYS = Path(__file__).resolve().parents[3] / "shared" / "data" / "pneumoniamnist" / "data" / "pneumoniamnist.npz"
DIGITS = [str(digit) for digit in range(10)]


def photographs(count: int, seed: int = 0, side: int = 48) -> Images:
    """Smooth random scenes, uint8 ``[count, side, side, 3]``: as different from each other as photographs are."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in small])


def examined(validation: Kept, training: Kept | None = None, labels: list[str] = DIGITS, *, images: bool = True) -> Evidence:
    return evidence.examine(validation, training, labels, images=images)


def grades(found: Evidence) -> dict[str, str]:
    return {finding.about: finding.grade for finding in found.findings}


def finding(found: Evidence, about: str) -> Finding:
    return next(each for each in found.findings if each.about == about)


def test_a_case_there_twice_is_counted_and_named() -> None:
    cases = of_images(photographs(100), np.arange(100) % 10)
    doubled = cases.where(np.array([*range(100), 7, 8]))
    doubled = Kept((*cases.names, "7/copy.png", "8/copy.png"), doubled.rows, doubled.labels)
    found = examined(doubled)
    assert (found.within.exact, found.within.near, found.within.other_label) == (2, 0, 0)
    assert [(pair.name, pair.twin) for pair in found.within.examples] == [
        ("7/copy.png", "7/0007.png"),
        ("8/copy.png", "8/0008.png"),
    ]
    assert grades(found)["Repeated cases"] == "amber"


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize(
    "change",
    [
        jpeg,
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: image.resize((34, 34)).resize(image.size),
    ],
    ids=["jpeg", "brightness", "contrast", "resized"],
)
def test_an_image_made_of_another_is_found(change: Callable[[Image.Image], Image.Image]) -> None:
    training = of_images(photographs(200), np.arange(200) % 10)
    changed = np.stack([np.asarray(change(Image.fromarray(each))) for each in training.rows[0][:50]])
    fresh = photographs(150, seed=1)
    found = examined(of_images(np.concatenate([changed, fresh]), np.arange(200) % 10), training)
    assert found.across is not None
    assert (found.across.exact, found.across.near) == (0, 50)
    assert grades(found)["Training and validation"] == "red"


def test_a_frame_around_every_image_makes_no_twins() -> None:
    """As the round field of a microscope does: it is most of what an image is, and says nothing."""
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    field = (np.hypot(x, y) < 0.8)[None, :, :, None]
    framed = np.where(field, photographs(300) // 4 + 120, 0).astype(np.uint8)
    within = examined(of_images(framed, np.arange(300) % 10)).within
    assert (within.exact, within.near) == (0, 0)


def test_blank_images_are_twins_only_where_they_are_the_same() -> None:
    blank = np.repeat(np.arange(0, 200, 2, dtype=np.uint8), 24 * 24).reshape(100, 24, 24, 1)
    within = examined(of_images(blank, np.arange(100) % 10)).within
    assert (within.exact, within.near) == (0, 0)
    within = examined(of_images(np.zeros_like(blank), np.arange(100) % 10)).within
    assert (within.exact, within.near) == (99, 0)


def test_the_same_image_under_two_labels_is_a_conflict() -> None:
    cases = of_images(photographs(100), np.arange(100) % 10)
    disputed = Kept(cases.names, (cases.rows[0][np.array([*range(99), 0])],), cases.labels)
    found = examined(disputed)
    assert found.within.other_label == 2  # both sides: nobody knows which one is wrong
    assert found.within.examples[0].other_label
    assert grades(found)["Labels in conflict"] == "red"


def test_a_patient_on_both_sides_is_red_and_not_named() -> None:
    cases = of_images(photographs(100), np.arange(100) % 10, tuple(f"patient {i // 2}" for i in range(100)))
    found = examined(cases.where(slice(0, 51)), cases.where(slice(51, 100)))
    assert found.groups_on_both_sides == 1
    split = finding(found, "Patients on both sides")
    assert split.grade == "red"
    assert split.sentence.startswith("1 of 26 (3.8%)")
    assert "patient 25" not in repr(found)
    assert grades(found)["Independent cases"] == "amber"


def test_what_cannot_be_looked_at_is_not_ok() -> None:
    found = grades(examined(digits().where(slice(0, 500))))
    unseen = ("Independent cases", "Training and validation", "Patients on both sides")
    assert {name: found[name] for name in unseen} == dict.fromkeys(unseen, "amber")


def test_a_label_without_a_case_is_red() -> None:
    some = digits()
    without = some.where(np.flatnonzero(some.labels != 3))
    enough = finding(examined(without), "Enough cases")
    assert enough.grade == "red"
    assert "3 among them" in enough.sentence
    assert grades(examined(some.where(slice(0, 100))))["Enough cases"] == "amber"
    assert grades(examined(some))["Enough cases"] == "ok"


def test_texts_and_tensors_are_compared_byte_for_byte() -> None:
    words = np.random.default_rng(0).integers(1, 50, (200, 12))
    names = tuple(f"row {i}" for i in range(200))
    words[100] = words[0]
    other = np.arange(200.0)
    cases = Kept(names, (words,), np.arange(200) % 10)
    assert examined(cases, images=False).within.exact == 1
    assert examined(Kept(names, (words, other), cases.labels), images=False).within.exact == 0  # a second input differs
    assert examined(cases, images=False).within.near is None


def test_examples_are_at_most_twenty() -> None:
    same = of_images(np.full((100, 8, 8, 1), 9, np.uint8), np.arange(100) % 10)
    found = examined(same)
    assert found.within.exact == 99
    assert len(found.within.examples) == evidence.EXAMPLES_MAX


def test_tiny_images_that_look_alike_are_not_taken_for_copies() -> None:
    """Digits of 8 × 8: one "1" in 1,797 is as good as another."""
    within = examined(digits()).within
    assert (within.exact, within.near) == (0, 1)


@pytest.mark.skipif(not X_RAYS.exists(), reason="the chest X-rays are not on this machine")
def test_chest_x_rays_are_not_flagged_wholesale() -> None:
    """They look alike: a difference hash alone flags 520 of 524. Eight are in training too, byte for byte."""
    with np.load(X_RAYS) as data:
        val, train = (
            of_images(data[f"{name}_images"][..., None], data[f"{name}_labels"][:, 0].astype(np.int64))
            for name in ("val", "train")
        )
    found = examined(val, train, ["normal", "pneumonia"])
    assert found.across is not None
    assert (found.across.exact, found.across.near, found.within.cases) == (8, 0, 0)


def test_ten_thousand_against_ten_thousand_take_seconds() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 10_000)
    sides = [(random.integers(0, 256, (10_000, 16, 16, 1), dtype=np.uint8),) for _ in range(2)]
    started = time.monotonic()
    found = twins.across(*twins.sets(sides, [labels, labels], images=True))
    assert time.monotonic() - started < 30  # two seconds are usual
    assert not found.exact.any()
