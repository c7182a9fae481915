"""Golden cases: what was written reads back, and a replay is the vendor's answer or a refusal."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import InputSpec
from appliance.errors import FailedGoldenCase, MalformedBundle
from appliance.model.golden import GoldenCases
from appliance.model.inputs import Encoded, Raw
from tests import forge

CASES = GoldenCases.of_encoded((b"one", b"two"), np.array([[1, 2, 3], [4, 5, 6]], np.float32))
WHOLE = CASES.encode()


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.integers(2, 4))
def test_what_is_encoded_decodes(images: list[bytes], classes: int) -> None:
    logits = np.random.default_rng(len(images)).normal(size=(len(images), classes)).astype(np.float32)
    again = GoldenCases.decode(GoldenCases.of_encoded(images, logits).encode(), len(images), classes, (forge.SPEC,))
    assert again.cases == tuple((Encoded((image,)),) for image in images)
    assert np.array_equal(again.logits, logits)


def test_replay_within_the_tolerance_tells_how_far_it_is() -> None:
    assert CASES.check(1, np.array([4, 5.25, 6], np.float32), 0.25) == 0.25
    assert CASES.check(0, CASES.logits[0], 0.0) == 0


@pytest.mark.parametrize("logits", [[1, 2, 3.5], [np.nan, 2, 3], [1, np.inf, 3], [4, 5, 6], [1, 2], [2], [1, 2, 3, 4]])
def test_replay_that_differs_is_refused(logits: list[float]) -> None:
    """A single number is another shape, and not to be stretched over every class."""
    with pytest.raises(FailedGoldenCase):
        CASES.check(0, np.array(logits, np.float32), 0.25 if len(logits) > 1 else 10)


def test_golden_logits_that_are_no_numbers_match_nothing() -> None:
    broken = GoldenCases.of_encoded((b"x",), np.full((1, 3), np.nan, np.float32))
    with pytest.raises(FailedGoldenCase):
        broken.check(0, np.full(3, np.nan, np.float32), 1.0)


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ONE = np.zeros(3, np.uint8)


@pytest.mark.parametrize("data", [
    b"", b"junk", b"PK\x03\x04", WHOLE[:-40], WHOLE[:50], WHOLE[:90] + b"\xff" + WHOLE[91:], b"\x93NUMPY",
    archive(logits=CASES.logits, image_0=ONE), archive(image_0=ONE, image_1=ONE),
    archive(logits=CASES.logits.astype(float), image_0=ONE, image_1=ONE),
    archive(logits=CASES.logits[:1], image_0=ONE, image_1=ONE), archive(logits=CASES.logits.T, image_0=ONE, image_1=ONE),
    archive(logits=np.array([[{}] * 3] * 2, object), image_0=ONE, image_1=ONE),
])  # fmt: skip
def test_selftest_that_is_not_one_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        GoldenCases.decode(data, 2, 3, (forge.SPEC,))


def test_cases_of_several_tensors_decode_to_what_was_encoded() -> None:
    specs = (InputSpec("age", "FP32", (), None), InputSpec("image", "UINT8", (8, 8, 1), forge.SPEC.image))
    age = Raw("FP32", (1,), np.float32(61).tobytes())
    cases = GoldenCases(((age, Encoded((b"one",))), (age, Encoded((b"two",)))), CASES.logits)
    assert GoldenCases.decode(cases.encode(), 2, 3, specs).cases == cases.cases
    with pytest.raises(MalformedBundle):
        GoldenCases.decode(cases.encode(), 2, 3, (InputSpec("age", "FP64", (), None), specs[1]))
