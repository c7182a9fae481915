"""Each way to tell the unknown flags what is plainly strange, keeps what is known, and survives its own encoding."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from appliance.bundle.manifest import E6, UNKNOWN_METHODS
from appliance.model import unknown as serving
from export import detectors, unknown
from export.detectors import Rows
from export.errors import CalibrationError
from tests.export.draws import clusters


def known(n: int = 400, classes: int = 4, seed: int = 5) -> Rows:
    return Rows(*clusters(n, classes, seed))


def strangers(n: int = 100, seed: int = 9) -> Rows:
    """Where no class is, a unit firing that never does; the network sees nothing of its classes there."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(n, 8)) + 6 * np.eye(8)[6] + 4 * np.eye(8)[7]
    return Rows(points.astype(np.float32), points[:, :4].astype(np.float32), np.zeros(n, np.int64))


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_known_are_known_and_strangers_are_flagged(method: str) -> None:
    """About 95 % of fresh inputs of the same kind are known; nearly every stranger is not."""
    chosen = unknown.choose(known(2000), {"strangers": strangers()}, method)
    fresh = detectors.distance(chosen.detector, known(2000, seed=77))
    assert np.mean(fresh <= chosen.reject_above_e6 / E6) == pytest.approx(0.95, abs=0.02)
    assert np.mean(detectors.distance(chosen.detector, strangers()) > chosen.reject_above_e6 / E6) >= 0.95


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_order_of_the_rows_cannot_matter(method: str) -> None:
    """A detector fitted on the same images in another order is the same, to rounding."""
    rows, order = known(), np.random.default_rng(1).permutation(400)
    one, other = (detectors.distance(detectors.fit(method, each), strangers()) for each in (rows, rows.where(order)))
    assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_one_row_has_the_distance_that_it_has_in_company(method: str) -> None:
    detector, rows = detectors.fit(method, known()), strangers(8)
    alone = [float(detectors.distance(detector, rows.where(np.array([i])))[0]) for i in range(8)]
    assert alone == pytest.approx(detectors.distance(detector, rows), rel=1e-6)


@pytest.mark.parametrize("method", UNKNOWN_METHODS)
@pytest.mark.parametrize(("n", "width"), [(16, 60), (200, 2), (40, 3)], ids=["few and wide", "narrow", "small"])
def test_detector_survives_its_own_encoding(method: str, n: int, width: int) -> None:
    """Rounded to float32 it is still one that a site accepts, and gives the same distances."""
    random = np.random.default_rng(2)
    labels = np.arange(n) % 2
    points = (random.normal(size=(n, width)) + 3 * labels[:, None]).astype(np.float32)
    rows = Rows(points, np.stack([-points[:, 0], points[:, 0]], axis=1), labels)
    detector = detectors.fit(method, rows)
    again = serving.decode(method, serving.encode(detector), 2)
    found = detectors.distance(again, rows)
    assert np.isfinite(found).all()
    assert found == pytest.approx(detectors.distance(detector, rows))


@pytest.mark.parametrize("collapse", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("method", UNKNOWN_METHODS)
def test_network_that_draws_its_classes_far_apart_is_served(method: str, collapse: float) -> None:
    """Trained to the end, images of a class fall onto a point; a site accepts the detector all the same, and it works."""
    points, logits, labels = clusters(400)
    points = (6 * np.eye(8)[labels] + collapse * (points - 6 * np.eye(8)[labels])).astype(np.float32)
    chosen = unknown.choose(Rows(points, logits, labels), {"strangers": strangers()}, method)
    found = detectors.distance(chosen.detector, strangers())
    assert unknown.auroc(chosen.known_distances, found) > 0.95


def test_embedding_that_32_bits_cannot_hold_is_refused() -> None:
    points, logits, labels = clusters(400)
    with pytest.raises(CalibrationError, match="32 bits"):
        unknown.choose(Rows(points * np.float32(1e-25), logits, labels), {}, "mahalanobis")


def test_embedding_of_logarithms_of_probabilities_is_served() -> None:
    """Logits that a network has normalised already leave ViM a positive scale."""
    rows = known()
    normal = rows.logits - np.log(np.exp(rows.logits).sum(axis=1, keepdims=True))
    detector = detectors.fit("vim", Rows(rows.embedding, normal, rows.labels))
    assert isinstance(detector, serving.Vim)
    assert float(detector.scale) > 0
    assert unknown.auroc(detectors.distance(detector, rows), detectors.distance(detector, strangers())) > 0.95


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_auroc_is_scikit_learns(near: list[int], far: list[int]) -> None:
    expected = roc_auc_score([0] * len(near) + [1] * len(far), near + far)
    assert unknown.auroc(np.array(near, float), np.array(far, float)) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_threshold_flags_at_most_one_in_twenty_of_its_images(n: int, seed: int) -> None:
    distances = np.random.default_rng(seed).normal(size=n)
    assert (distances > unknown.threshold(distances)).sum() <= 0.05 * n


def test_threshold_flags_one_in_twenty_of_new_images_on_average() -> None:
    random = np.random.default_rng(3)
    flagged = [(random.normal(size=500) > unknown.threshold(random.normal(size=60))).mean() for _ in range(400)]
    assert np.mean(flagged) == pytest.approx(0.05, abs=0.006)
    assert np.mean(flagged) <= 0.05 + 3 * np.std(flagged) / 20


def test_what_is_not_a_number_is_infinitely_far() -> None:
    rows = strangers(3)
    rows.embedding[1] = np.inf
    for method in UNKNOWN_METHODS:
        found = detectors.distance(detectors.fit(method, known()), rows)
        assert np.isfinite(found[[0, 2]]).all()
        assert found[1] == np.inf


def test_best_on_average_is_chosen_and_the_simplest_at_a_tie() -> None:
    """Over the sets given and a label left out; ``nearest``, which keeps patients' embeddings, only where asked for."""
    chosen = unknown.choose(known(), {"strangers": strangers(), "near": known(50, seed=8)})
    assert {result.method for result in chosen.results} == {"mahalanobis", "relative_mahalanobis", "vim"}
    assert {result.name for result in chosen.results} == {"strangers", "near", unknown.LEFT_OUT}
    mean = {
        method: round(np.mean([result.auroc for result in chosen.results if result.method == method]), 3)
        for method in ("mahalanobis", "relative_mahalanobis", "vim")
    }
    best = max(mean, key=lambda method: mean[method])
    assert chosen.detector.method == best
    assert {result.method for result in chosen.results if result.chosen} == {best}
    plain = unknown.choose(known(2000), {"far": Rows(strangers().embedding * 50, strangers().logits, strangers().labels)})
    assert plain.detector.method == "mahalanobis"
    asked = unknown.choose(known(), {}, "nearest")
    assert asked.detector.method == "nearest"
    assert {result.name for result in asked.results} == {unknown.LEFT_OUT}


def test_of_two_labels_the_one_left_decides_nothing() -> None:
    """The relative distance to a single class is nothing; that is no reason not to choose it for two."""
    rows = known(200, 2)
    apart = Rows(strangers().embedding, strangers().logits[:, :2], strangers().labels)
    chosen = unknown.choose(rows, {"strangers": apart})
    counted = {result.method: result.auroc for result in chosen.results if result.name == "strangers"}
    assert counted[chosen.detector.method] >= max(counted.values()) - 0.0005
    alone = unknown.choose(rows, {"nobody": apart.where(np.zeros(len(apart), bool))})
    assert {result.name for result in alone.results} == {unknown.LEFT_OUT}


def test_label_left_out_is_a_stranger_to_what_was_fitted_without_it() -> None:
    found = unknown.leave_one_out(["mahalanobis"], *(known(400, seed=s) for s in (1, 2)))
    strangers_in_all, auroc, passing = found["mahalanobis"]
    assert (strangers_in_all, auroc > 0.99, passing < 0.05) == (800, True, True)


def test_distances_of_the_report_are_of_images_that_were_not_fitted_on() -> None:
    rows = known(403)
    chosen = unknown.choose(rows, {"strangers": strangers()})
    assert (chosen.held_out != unknown.halves(rows.labels)).all()
    assert len(chosen.known_distances) == chosen.held_out.sum()
    assert np.array_equal(chosen.known_distances, detectors.distance(chosen.detector, rows.where(chosen.held_out)))
    assert np.mean(chosen.known_distances > chosen.reject_above_e6 / E6) <= 0.05
    assert {name: len(far) for name, far in chosen.strange_distances.items()} == {"strangers": 100}


def test_covariance_shrinks_as_ledoit_and_wolf_say() -> None:
    rows = np.random.default_rng(3).normal(size=(60, 20)) * np.linspace(0.1, 2, 20)
    expected, _ = ledoit_wolf(rows, assume_centered=True)
    assert detectors.shrunk_covariance(rows) == pytest.approx(expected)


def test_principal_space_leaves_a_rest() -> None:
    """At most half of the directions, and no more than hold 90 % of the variance."""
    random = np.random.default_rng(0)
    for spread, kept in (
        (np.ones(8), 4),
        (np.array([10.0, 10, 1, 1, 1, 1, 1, 1]), 2),
        (np.array([9.0, 0, 0, 0, 0, 0, 0, 0]), 1),
    ):
        points: NDArray[np.float32] = (random.normal(size=(500, 8)) * spread).astype(np.float32)
        detector = detectors.fit("vim", Rows(points, points[:, :2], np.arange(500) % 2))
        assert isinstance(detector, serving.Vim)
        assert detector.residual.shape == (8, 8 - kept)
        assert np.isfinite(detector.scale)


def test_label_without_enough_images_is_refused() -> None:
    rows = known()
    wide = Rows(rows.embedding, np.pad(rows.logits, ((0, 0), (0, 1))), rows.labels)
    with pytest.raises(CalibrationError, match=r"label 4 has 0; .* unknown=False"):
        unknown.choose(wide, {})


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        (np.zeros((200, 3), np.float32), "does not vary between cases, "),
        (np.eye(3, dtype=np.float32)[np.arange(200) % 2], "does not vary between cases of a label"),
        (np.ones((200, 1), np.float32), "at least 2 numbers, and there is 1"),
        (np.full((200, 3), np.nan, np.float32), "not a number"),
    ],
)
def test_embedding_that_says_nothing_is_refused(embedding: NDArray[np.float32], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        unknown.choose(Rows(embedding, np.zeros((200, 2), np.float32), np.arange(200) % 2), {})


def test_embedding_that_is_alike_within_labels_is_for_those_who_ask_for_a_method() -> None:
    labels = np.arange(200) % 2
    collapsed = Rows(np.eye(3, dtype=np.float32)[labels], np.eye(2, dtype=np.float32)[labels] * 5, labels)
    far = {"far": Rows(np.full((9, 3), 7, np.float32), np.zeros((9, 2), np.float32), np.zeros(9, np.int64))}
    assert {result.auroc for result in unknown.choose(collapsed, far, "nearest").results} == {1.0}
    for wanted in (None, "mahalanobis"):
        with pytest.raises(CalibrationError, match="does not vary between cases of a label"):
            unknown.choose(collapsed, far, wanted)


def test_method_that_cannot_be_fitted_refuses_nobody_who_did_not_ask_for_it() -> None:
    """Two labels, one of which embeds alike each time: leaving the other out leaves nothing to measure by."""
    random = np.random.default_rng(2)
    labels = np.arange(200) % 2
    points = np.where(labels[:, None] == 0, 1.0, random.normal(5, 1, (200, 6))).astype(np.float32)
    known = Rows(points, np.eye(2, dtype=np.float32)[labels] * 5, labels)
    far = Rows(random.normal(-40, 1, (50, 6)).astype(np.float32), np.zeros((50, 2), np.float32), np.zeros(50, np.int64))
    assert unknown.choose(known, {"far": far}).results


@pytest.mark.parametrize("error", [CalibrationError("too steep"), np.linalg.LinAlgError("SVD did not converge")])
def test_method_that_cannot_be_fitted_is_left_to_the_others_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    strange, fit = {"strangers": strangers()}, unknown.fit

    def failing(*methods: str) -> None:
        def only(method: str, rows: Rows) -> Any:
            if method in methods:
                raise error
            return fit(method, rows)

        monkeypatch.setattr(unknown, "fit", only)

    failing("vim")
    chosen = unknown.choose(known(), strange)
    assert (chosen.unfitted, "vim" in {result.method for result in chosen.results}) == (("vim",), False)
    with pytest.raises(CalibrationError):
        unknown.choose(known(), strange, "vim")
    assert unknown.choose(known(), strange, "mahalanobis").unfitted == ("vim",)
    failing(*UNKNOWN_METHODS)
    with pytest.raises(CalibrationError):
        unknown.choose(known(), strange)


def test_embedding_that_would_take_hours_is_refused_with_what_to_do() -> None:
    wide = np.zeros((40, 5000), np.float32)
    with pytest.raises(CalibrationError, match="at most 4096 numbers, and there are 5000; pool it, or project it"):
        unknown.choose(Rows(wide, np.zeros((40, 2), np.float32), np.arange(40) % 2), {})
