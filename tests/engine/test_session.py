"""Sessions: the graph's own answers, on exactly the provider that was asked for, with the runtime's mouth shut."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import RuntimeSpec
from appliance.engine import session
from appliance.engine.session import Session, bucket, open_session
from appliance.errors import ConfigError, RefusedGraph
from tests import forge
from tests.fakes import numbered

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MANIFEST = forge.manifest()
ROWS_MAX = MANIFEST.runtime.rows_max


def runtime(**changes: Any) -> Any:
    return forge.manifest(runtime=replace(MANIFEST.runtime, **changes))


def opened(made: Any = MANIFEST, providers: tuple[str, ...] = (CPU,), graph: bytes | None = None) -> Session:
    plain = forge.parts()
    return open_session(made, bytearray(graph or plain["graph"]), bytearray(plain["weights"]), providers, 1)


class Seen:
    """An inner session that keeps the number of rows of each run."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.rows = inner, list[int]()

    def run(self, names: list[str], feeds: dict[str, Any]) -> Any:
        self.rows.append(len(feeds[MANIFEST.input.name]))
        return self._inner.run(names, feeds)


@pytest.mark.parametrize("rows", range(1, ROWS_MAX + 1))
def test_a_batch_of_any_size_has_the_graphs_own_answers(rows: int) -> None:
    images = numbered(rows, rows)
    found = opened().run(images)
    assert found.logits.dtype == np.float32
    assert found.embedding is None
    np.testing.assert_allclose(found.logits, forge.logits(images), atol=1e-4)


def test_padding_changes_the_batch_and_not_the_answers() -> None:
    plain = opened()
    seen = Seen(plain._inner)
    padded = Session(seen, MANIFEST, CUDA)  # only the name decides whether a session pads
    for rows in range(1, ROWS_MAX + 1):
        images = numbered(rows, rows)
        found = padded.run(images)
        assert len(found.logits) == rows
        np.testing.assert_allclose(found.logits, plain.run(images).logits, atol=1e-4)
    assert seen.rows == [bucket(rows, ROWS_MAX) for rows in range(1, ROWS_MAX + 1)]


def test_warming_meets_every_size_that_callers_will_meet() -> None:
    inner = opened()._inner
    on_cuda, on_cpu = Seen(inner), Seen(inner)
    Session(on_cuda, MANIFEST, CUDA).warm()
    Session(on_cpu, MANIFEST, CPU).warm()
    assert on_cuda.rows == [1, 2, 4, 8, 16]
    assert on_cpu.rows == [1, ROWS_MAX]
    odd = Seen(inner)
    Session(odd, runtime(rows_max=12), CUDA).warm()
    assert odd.rows == [1, 2, 4, 8, 12]


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
            assert options["providers"] == [CUDA]

        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(session.ort, "InferenceSession", FellBack)
    with pytest.raises(RefusedGraph, match="fell back"):
        opened(runtime(providers=(CUDA,)), providers=(CUDA,))


def test_a_model_proved_with_a_later_runtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = RuntimeSpec(forge.OPSET, "1.30.2", (CPU,), ROWS_MAX)
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
