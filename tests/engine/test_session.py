"""Sessions: the graph's own answers, on exactly the provider that was asked for, with the runtime's mouth shut."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import RuntimeSpec
from appliance.engine import session
from appliance.engine.pace import Pace, bucket, buckets
from appliance.engine.session import Hardware, Measured, Session, open_session
from appliance.errors import ConfigError, RefusedGraph
from tests import forge
from tests.fakes import numbered

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MANIFEST = forge.manifest()
ROWS_MAX = MANIFEST.runtime.rows_max


def runtime(**changes: Any) -> Any:
    return forge.manifest(runtime=replace(MANIFEST.runtime, **changes))


def opened(
    made: Any = MANIFEST,
    providers: tuple[str, ...] = (CPU,),
    graph: bytes | None = None,
    threads: int = 1,
    workers: int = 0,
    workers_max: int | None = None,
) -> Session:
    plain = forge.parts()
    buffers = bytearray(graph or plain["graph"]), bytearray(plain["weights"])
    return open_session(made, *buffers, Hardware(providers, threads, workers), workers_max)


class Seen:
    """An inner session that keeps the number of rows of each run."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.rows = inner, list[int]()

    def run(self, names: list[str], feeds: dict[str, Any]) -> Any:
        self.rows.append(len(feeds["image"]))
        return self._inner.run(names, feeds)

    def io_binding(self) -> Any:
        return self._inner.io_binding()

    def run_with_iobinding(self, binding: Any) -> None:
        self._inner.run_with_iobinding(binding)
        self.rows.append(len(binding.copy_outputs_to_cpu()[0]))


@pytest.mark.parametrize("rows", range(1, ROWS_MAX + 1))
def test_a_batch_of_any_size_has_the_graphs_own_answers(rows: int) -> None:
    images = numbered(rows, rows)
    found = opened().run((images,))
    assert found.logits.dtype == np.float32
    assert found.embedding is None
    np.testing.assert_allclose(found.logits, forge.logits(images), atol=1e-4)


def test_padding_changes_the_batch_and_not_the_answers() -> None:
    plain = opened()
    seen = Seen(plain._inner)
    padded = Session(seen, MANIFEST, CUDA)  # only the name decides whether a session pads
    for rows in range(1, ROWS_MAX + 1):
        images = numbered(rows, rows)
        found = padded.run((images,))
        assert len(found.logits) == rows
        np.testing.assert_allclose(found.logits, plain.run((images,)).logits, atol=1e-4)
    assert seen.rows == [bucket(rows, ROWS_MAX) for rows in range(1, ROWS_MAX + 1)]


def test_warming_meets_every_size_that_callers_will_meet_and_measures_it() -> None:
    inner = opened()._inner
    for limit, sizes in ((ROWS_MAX, [1, 2, 4, 8, 16]), (12, [1, 2, 4, 8, 12])):
        seen = Seen(inner)
        made = Session(seen, runtime(rows_max=limit), CUDA)
        made.warm()
        assert sorted(set(seen.rows)) == sizes == buckets(limit)
        assert sorted(made.measured.seconds) == sizes
        assert all(seconds > 0 for seconds in made.measured.seconds.values())
        assert made.batch_rows in sizes


class Slow:
    """An inner session whose every run takes as long as the test says, by a clock that is the test's."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now, self._seconds = 0.0, seconds

    def run(self, names: list[str], feeds: dict[str, Any]) -> Any:
        self.now += self._seconds[len(feeds["image"])]
        return [np.zeros((len(feeds["image"]), forge.CLASSES), np.float32)]


@pytest.mark.parametrize(
    ("seconds", "batch_rows"),
    [
        ({1: 0.010, 2: 0.011, 4: 0.012, 8: 0.013, 16: 0.014}, 16),  # a larger batch costs next to nothing
        ({1: 0.008, 2: 0.013, 4: 0.024, 8: 0.048, 16: 0.120}, 8),  # 16 do not fit the caches any more
        ({1: 0.008, 2: 0.016, 4: 0.032, 8: 0.064, 16: 0.128}, 16),  # no faster, but what surrounds a batch is shared
        ({1: 0.030, 2: 0.055, 4: 0.105}, 4),  # 8 would take so long that an urgent image had to wait
        ({1: 0.040, 2: 0.070, 4: 0.151}, 2),  # nor is a size chosen that took longer than was to be expected
        ({1: 0.700}, 1),
    ],
)
def test_a_batch_is_as_large_as_pays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], batch_rows: int
) -> None:
    inner = Slow(seconds)
    monkeypatch.setattr(session, "perf_counter", lambda: inner.now)
    made = Session(inner, MANIFEST, CPU)
    made.warm()
    assert made.batch_rows == batch_rows
    assert len(made.slots()[0]) == batch_rows


@pytest.mark.parametrize(("narrow", "way"), [(100.0, (4, 1)), (109.0, (4, 1)), (115.0, (1, 4))])
def test_whether_all_threads_share_a_batch_is_measured(
    monkeypatch: pytest.MonkeyPatch, narrow: float, way: tuple[int, int]
) -> None:
    threads = list[int]()
    monkeypatch.setattr(session, "IN_LOOP_S_MAX", 0)
    made = session._inner
    monkeypatch.setattr(session, "_inner", lambda *given: threads.append(given[-1]) or made(*given))
    monkeypatch.setattr(Session, "rows_per_s", lambda self, workers: {1: 100.0, 4: narrow}[workers])
    found = opened(threads=4)
    assert (threads[-1], found.workers) == way
    for workers_max in (1, 2):
        assert (opened(threads=4, workers_max=workers_max).workers, threads[-1]) == (1, 4)


@pytest.mark.parametrize(("four_s", "in_loop"), [(0.000_2, True), (0.000_3, False)])
def test_a_model_that_is_quicker_than_a_change_of_threads_is_run_in_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, four_s: float, in_loop: bool
) -> None:
    seconds = {1: four_s / 2, 2: four_s / 1.5, 4: four_s, 8: four_s * 10}
    monkeypatch.setattr(Session, "warm", lambda self: setattr(self, "measured", Measured(dict(seconds), 8)))
    found = opened(threads=4)
    assert (found.workers == 0) == in_loop
    if in_loop:
        assert found.batch_rows == 4
    assert opened(threads=4, workers=1).workers == 1, "where the site says it, that counts"


@given(rows=st.integers(1, 500), rows_max=st.integers(1, 64), workers=st.integers(1, 4))
def test_more_rows_never_take_less_time(rows: int, rows_max: int, workers: int) -> None:
    pace = Pace({size: 0.001 * size**0.8 for size in buckets(rows_max)}, rows_max, workers)
    assert pace.until_run_s(rows) <= pace.until_run_s(rows + 1) + 1e-12
    assert pace.until_run_s(rows_max * workers) == pytest.approx(pace.run_s(rows_max))


@given(rows_max=st.integers(1, 1024), data=st.data())
def test_a_bucket_is_the_next_power_of_two_or_the_limit(rows_max: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, rows_max))
    found = bucket(rows, rows_max)
    assert rows <= found <= rows_max
    assert found < 2 * rows
    assert found == rows_max or found.bit_count() == 1
    assert bucket(found, rows_max) == found


def test_a_provider_that_is_not_here_or_not_allowed_is_never_silently_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CPU])
    assert opened(providers=(CPU,)).provider == CPU
    with pytest.raises(ConfigError):
        opened(providers=(CUDA,))  # the manifest does not allow it
    with pytest.raises(ConfigError):
        opened(runtime(providers=(CUDA, CPU)), providers=(CUDA, CPU))  # allowed and preferred, but not on this machine
    with pytest.raises(ConfigError):
        opened(providers=())


def test_a_runtime_that_falls_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class FellBack:
        def __init__(self, graph: bytes, **options: Any) -> None:
            assert [name for name, _ in options["providers"]] == [CUDA]

        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(session.ort, "InferenceSession", FellBack)
    with pytest.raises(RefusedGraph, match="fell back"):
        opened(runtime(providers=(CUDA,)), providers=(CUDA,))


def test_a_model_proved_with_a_later_runtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = RuntimeSpec(forge.OPSET, "1.30.2", "fp32", (CPU,), ROWS_MAX)
    for release, fits in (("1.30.1", False), ("1.9.9", False), ("1.30.2", True), ("1.31.0", True), ("1.30.2+cu13", True)):
        monkeypatch.setattr(session.ort, "__version__", release)
        if fits:
            opened(forge.manifest(runtime=made))
        else:
            with pytest.raises(RefusedGraph, match="later release"):
                opened(forge.manifest(runtime=made))


def test_bytes_that_are_no_graph_are_refused_in_our_own_words() -> None:
    with pytest.raises(RefusedGraph) as caught:
        opened(graph=b"Mary Nobody's graph")
    assert str(caught.value) == "The runtime does not take the graph."


@pytest.mark.parametrize("said", ["0", "", "true", None])
def test_no_session_opens_while_the_runtime_may_report_home(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    if said is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    else:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", said)
    with pytest.raises(ConfigError, match="telemetry"):
        opened()
