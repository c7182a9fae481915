"""How far an input is from the known ones: each method against its formula, and its part in a bundle."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import UNKNOWN_METHODS
from appliance.errors import MalformedBundle
from appliance.model import unknown
from appliance.model.unknown import DETECTORS, Detector, Mahalanobis, Nearest, RelativeMahalanobis, Vim

CLASSES, WIDTH = 4, 6
F = np.float32


def positive(rng: np.random.Generator) -> np.ndarray:
    a = rng.normal(size=(WIDTH, WIDTH))
    made = (a @ a.T + np.eye(WIDTH)).astype(F)
    return (made + made.T) / 2


def made(method: str, seed: int) -> Detector:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(CLASSES, WIDTH)).astype(F)
    match method:
        case "mahalanobis":
            return Mahalanobis(means, positive(rng))
        case "relative_mahalanobis":
            return RelativeMahalanobis(means, positive(rng), rng.normal(size=WIDTH).astype(F), positive(rng))
        case "vim":
            columns = np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0].astype(F)
            return Vim(rng.normal(size=WIDTH).astype(F), columns, F(2.5).reshape(()))
    bank = rng.normal(size=(9, WIDTH)).astype(F)
    return Nearest(bank / np.linalg.norm(bank, axis=1, keepdims=True), F(3).reshape(()))


def by_hand(detector: Any, e: np.ndarray, z: np.ndarray) -> float:
    """The formulas of bundle-format section 4.2, for one row in float64."""

    def square(centre: np.ndarray, precision: np.ndarray) -> float:
        return float((e - centre) @ precision.astype(float) @ (e - centre))

    match detector.method:
        case "mahalanobis":
            return float(np.sqrt(min(square(mean, detector.precision) for mean in detector.means)))
        case "relative_mahalanobis":
            near = min(square(mean, detector.precision) for mean in detector.means)
            return near - square(detector.centre, detector.spread)
        case "vim":
            outside = np.linalg.norm(detector.residual.T.astype(float) @ (e - detector.origin))
            return float(detector.scale * outside - np.log(np.exp(z).sum()))
    unit = e / np.linalg.norm(e)
    return float(sorted(np.linalg.norm(unit - row) for row in detector.bank.astype(float))[int(detector.k) - 1])


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
@given(seed=st.integers(0, 2**32 - 1))
def test_distance_is_that_of_the_page(method: str, seed: int) -> None:
    detector, rng = made(method, seed), np.random.default_rng(seed + 1)
    points, logits = rng.normal(size=(5, WIDTH)), rng.normal(size=(5, CLASSES)) * 3
    expected = [by_hand(detector, e, z) for e, z in zip(points, logits, strict=True)]
    assert np.allclose(detector.distance(points, logits), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_row_has_its_distance_whatever_rows_are_beside_it(method: str) -> None:
    detector, rng = made(method, 3), np.random.default_rng(4)
    points, logits = rng.normal(size=(7, WIDTH)).astype(F), rng.normal(size=(7, CLASSES)).astype(F)
    together = detector.distance(points, logits)
    assert [detector.distance(points[i : i + 1], logits[i : i + 1])[0] for i in range(7)] == pytest.approx(together)


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_embedding_that_is_no_number_has_no_distance(method: str) -> None:
    """So that it counts as unknown."""
    with np.errstate(all="ignore"):
        found = made(method, 5).distance(np.full((1, WIDTH), np.nan), np.zeros((1, CLASSES)))
    assert not (found <= 1e300).any()


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_what_is_encoded_decodes(method: str) -> None:
    detector = made(method, 6)
    again = unknown.decode(method, unknown.encode(detector), CLASSES)
    assert type(again) is DETECTORS[method]
    assert all(np.array_equal(value, getattr(again, name)) for name, value in vars(detector).items() if name[0] != "_")


def archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def single() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


MEANS, EYE, ONE = np.zeros((CLASSES, 3), F), np.eye(3, dtype=F), np.ones((), F)
WHOLE = archive(means=MEANS, precision=EYE)


@pytest.mark.parametrize("data", [
    b"", b"junk", b"PK\x03\x04junk", single(), WHOLE[:-40], WHOLE[:60], WHOLE[:80] + b"\xff" + WHOLE[81:],
    archive(means=MEANS), archive(precision=EYE), archive(means=MEANS[:3], precision=EYE),
    archive(means=MEANS[0], precision=EYE), archive(means=MEANS, precision=EYE, more=EYE),
    archive(means=MEANS, precision=EYE[:2]), archive(means=MEANS.astype(float), precision=EYE),
    archive(means=MEANS, precision=EYE.astype(float)), archive(means=MEANS, precision=-EYE),
    archive(means=MEANS, precision=EYE * 0), archive(means=MEANS * F("nan"), precision=EYE),
    archive(means=np.array([[{}]], object), precision=EYE),
])  # fmt: skip
def test_reference_that_is_not_one_is_malformed(data: bytes) -> None:
    """Not positive definite, of another shape or type, damaged, not a number, or with a pickle inside."""
    with pytest.raises(MalformedBundle):
        unknown.decode("mahalanobis", data, CLASSES)


@pytest.mark.parametrize(("method", "arrays"), [
    ("relative_mahalanobis", {"means": MEANS, "precision": EYE, "centre": MEANS[0], "spread": -EYE}),
    ("relative_mahalanobis", {"means": MEANS, "precision": EYE, "centre": MEANS[0, :2], "spread": EYE}),
    ("relative_mahalanobis", {"means": MEANS, "precision": EYE}),
    ("vim", {"origin": MEANS[0], "residual": EYE[:2], "scale": ONE}),
    ("vim", {"origin": MEANS[0], "residual": EYE[:, :0], "scale": ONE}),
    ("vim", {"origin": MEANS[0], "residual": np.zeros((3, 4), F), "scale": ONE}),
    ("vim", {"origin": MEANS[0], "residual": EYE, "scale": ONE[None]}),
    ("nearest", {"bank": EYE, "k": ONE * 4}),
    ("nearest", {"bank": EYE, "k": ONE * 0}),
    ("nearest", {"bank": EYE, "k": ONE * F(1.5)}),
    ("nearest", {"bank": EYE[0], "k": ONE}),
])  # fmt: skip
def test_arrays_that_do_not_fit_each_other_are_malformed(method: str, arrays: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        unknown.decode(method, archive(**arrays), CLASSES)
