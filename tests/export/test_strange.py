"""Strange inputs have the shape and the type that the graph takes, and are strange in the way that their name says."""

import numpy as np
import pytest

from appliance.bundle.manifest import ImageSpec, InputSpec, TextSpec
from appliance.model.inputs import DTYPES
from export.strange import synthetic

N = 40


def images(height: int = 28, width: int = 30, channels: int = 1) -> tuple[InputSpec, np.ndarray]:
    spec = InputSpec("image", "UINT8", (height, width, channels), ImageSpec("stretch", "full", 1000, 1000))
    known = np.random.default_rng(0).integers(20, 200, (25, *spec.shape), dtype=np.uint8)
    return spec, known


def rows_of(array: np.ndarray) -> list[bytes]:
    return [np.sort(row, axis=None).tobytes() for row in array]


@pytest.mark.parametrize("channels", [1, 3])
def test_strange_images_are_strange_in_four_ways(channels: int) -> None:
    spec, known = images(channels=channels)
    made = synthetic(spec, known, N, seed=1)
    assert set(made) == {"noise", "flat", "shuffled blocks", "inverted"}
    assert all(rows.shape == (N, *spec.shape) and rows.dtype == np.uint8 for rows in made.values())
    assert made["noise"].std() == pytest.approx(256 / np.sqrt(12), rel=0.05)
    flat = made["flat"].reshape(N, -1)
    assert (flat == flat[:, :1]).all()
    assert {0, 255} < set(flat[:, 0].tolist())
    assert set(rows_of(made["inverted"])) <= set(rows_of(255 - known))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (30, 29), (3, 50), (1, 1)])
def test_shuffled_images_keep_every_pixel(height: int, width: int) -> None:
    """Brightness and texture are those of known images; the order is not."""
    spec, known = images(height, width)
    shuffled = synthetic(spec, known, N, seed=1)["shuffled blocks"]
    assert set(rows_of(shuffled)) <= set(rows_of(known))
    if height * width > 100:
        assert not {row.tobytes() for row in shuffled} & {row.tobytes() for row in known}


@pytest.mark.parametrize("datatype", list(DTYPES))
def test_strange_tensors_have_the_type_of_known_ones(datatype: str) -> None:
    spec = InputSpec("signal", datatype, (3, 2))
    random = np.random.default_rng(0)
    known = (random.normal(60, 30, (500, 3, 2)).clip(0, 120) > (60 if datatype == "BOOL" else -1)) * np.arange(1, 7).reshape(
        3, 2
    )
    known = known.astype(DTYPES[datatype])
    made = synthetic(spec, known, N, seed=2)
    assert set(made) == {"permuted features", "noise"}
    for rows in made.values():
        assert rows.shape == (N, 3, 2)
        assert rows.dtype == DTYPES[datatype]
        assert np.isfinite(rows.astype(np.float64)).all()


def test_permuted_features_keep_their_distributions_and_lose_their_ties() -> None:
    random = np.random.default_rng(3)
    one = random.normal(size=2000)
    known = np.stack([one, one * 2 + 5], axis=1).astype(np.float32)
    made = synthetic(InputSpec("x", "FP32", (2,)), known, 2000, seed=2)
    permuted, noise = made["permuted features"], made["noise"]
    assert permuted.mean(axis=0) == pytest.approx(known.mean(axis=0), abs=0.2)
    assert set(permuted[:, 1].tolist()) <= set(known[:, 1].tolist())
    assert abs(np.corrcoef(permuted.T)[0, 1]) < 0.1
    assert noise.std(axis=0) == pytest.approx(3 * known.std(axis=0), rel=0.1)


def test_extreme_integers_do_not_wrap() -> None:
    """Noise around the largest integers stays at the end of the range rather than coming back at the other."""
    for datatype in ("INT64", "UINT64", "UINT8"):
        known = np.full((50, 2), np.iinfo(DTYPES[datatype]).max, DTYPES[datatype])
        known[::2] -= 100
        with np.errstate(all="raise"):
            noise = synthetic(InputSpec("x", datatype, (2,)), known, 500, seed=2)["noise"].astype(np.float64)
        assert noise.min() > known.astype(np.float64).max() / 2 - 400


def test_strange_texts_are_words_of_the_vocabulary() -> None:
    """As long as known texts, zeros after them, every number one that the network has a word for."""
    spec = InputSpec("text", "INT64", (9,), text=TextSpec("folded", 100, tuple("abcdefg")))
    known = np.array([[3, 2, 3, 4, 0, 0, 0, 0, 0], [1, 8, 0, 0, 0, 0, 0, 0, 0], [8, *range(1, 9)]])
    made = synthetic(spec, known, N, seed=3)
    assert set(made) == {"random words", "one word repeated"}
    for rows in made.values():
        assert rows.shape == (N, 9)
        assert rows.dtype == np.int64
        assert set(rows[:, 0].tolist()) <= {1, 3, 8}
        for row in rows:
            assert ((row[1 : 1 + row[0]] >= 2) & (row[1 : 1 + row[0]] <= 8)).all()
            assert not row[1 + row[0] :].any()
    assert all(len(set(row[1 : 1 + row[0]])) == 1 for row in made["one word repeated"])


def test_same_seed_gives_the_same_rows() -> None:
    one, other, third = (synthetic(*images(), N, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["noise"], third["noise"])
