"""Probabilities and distances, against their formulas."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance.errors import MalformedBundle
from appliance.model.confidence import Reference, probabilities

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-1e4, 1e4, width=32))
TEMPERATURES = st.floats(0.001, 1000)


@given(LOGITS, TEMPERATURES)
def test_probabilities_sum_to_one_and_keep_the_order(logits: np.ndarray, temperature: float) -> None:
    found = probabilities(logits, temperature)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-12)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.take_along_axis(found, logits.argmax(axis=1)[:, None], 1)[:, 0] == found.max(axis=1)).all()


@given(LOGITS, st.floats(-1000, 1000))
def test_a_shift_of_all_logits_changes_nothing(logits: np.ndarray, shift: float) -> None:
    wide = logits.astype(np.float64)
    assert np.allclose(probabilities(wide + shift, 1.0), probabilities(wide, 1.0), atol=1e-9)


def test_the_largest_logits_of_a_float32_do_not_overflow() -> None:
    top = np.finfo(np.float32).max
    assert probabilities(np.array([[top, -top, 0]], np.float32), 0.001).tolist() == [[1, 0, 0]]


def test_known_answer_at_two_temperatures() -> None:
    logits = np.array([[np.log(1), np.log(4)]])
    assert probabilities(logits, 1.0)[0] == pytest.approx([0.2, 0.8])
    assert probabilities(logits, 2.0)[0] == pytest.approx([1 / 3, 2 / 3])


def reference(seed: int, classes: int = 4, width: int = 6) -> Reference:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(width, width))
    precision = (a @ a.T + np.eye(width)).astype(np.float32)
    return Reference(rng.normal(size=(classes, width)).astype(np.float32), (precision + precision.T) / 2)


@given(st.integers(0, 2**32 - 1))
def test_distance_is_that_of_lee_et_al(seed: int) -> None:
    """min_k sqrt((e − m_k)ᵀ P (e − m_k)), written out in float64."""
    made = reference(seed)
    points = np.random.default_rng(seed + 1).normal(size=(5, 6)).astype(np.float32)
    d = points[:, None, :].astype(np.float64) - made.means[None]
    expected = np.sqrt(np.einsum("nki,ij,nkj->nk", d, made.precision.astype(np.float64), d)).min(axis=1)
    assert np.allclose(made.distance(points), expected, rtol=1e-6, atol=1e-6)


def test_distance_of_a_mean_is_zero_and_that_of_a_nan_is_not_a_number() -> None:
    made = reference(1)
    assert made.distance(made.means) == pytest.approx(0, abs=1e-5)
    assert np.isnan(made.distance(np.full((1, 6), np.nan, np.float32))).all()


def test_what_is_encoded_decodes() -> None:
    made = reference(2)
    again = Reference.decode(made.encode(), 4)
    assert np.array_equal(again.means, made.means)
    assert np.array_equal(again.precision, made.precision)


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def single() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


F, MEANS, EYE = np.float32, np.zeros((4, 3), np.float32), np.eye(3, dtype=np.float32)
WHOLE = archive(means=MEANS, precision=EYE)


@pytest.mark.parametrize("data", [
    b"", b"junk", b"PK\x03\x04junk", single(), WHOLE[:-40], WHOLE[:60], WHOLE[:80] + b"\xff" + WHOLE[81:],
    archive(means=MEANS), archive(precision=EYE), archive(means=MEANS[:3], precision=EYE),
    archive(means=MEANS[0], precision=EYE),
    archive(means=MEANS, precision=EYE[:2]), archive(means=MEANS.astype(float), precision=EYE),
    archive(means=MEANS, precision=EYE.astype(float)), archive(means=MEANS, precision=-EYE),
    archive(means=MEANS, precision=EYE * 0),
    archive(means=np.array([[{}]], object), precision=EYE),
])  # fmt: skip
def test_reference_that_is_not_one_is_malformed(data: bytes) -> None:
    """Not positive definite, of another shape or type, damaged, or with a pickle inside."""
    with pytest.raises(MalformedBundle):
        Reference.decode(data, 4)
