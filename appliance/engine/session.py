"""The runtime. The only importer of onnxruntime.

A session is made from memory alone, on exactly the provider that was asked for, with every option said here.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

from appliance.bundle.manifest import Manifest
from appliance.bundle.opening import Buffer
from appliance.engine.batcher import Outputs
from appliance.engine.graph import WEIGHTS
from appliance.engine.pace import bucket, buckets
from appliance.errors import ConfigError, RefusedGraph
from appliance.model.inputs import DTYPES, Rows

_CUDA = "CUDAExecutionProvider"
# On CUDA: nothing is searched for at run time, so that a shape costs the same each time, and memory grows by what is asked.
_OPTIONS = {_CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}}
# About so long a batch may take, unless it is a single row: an urgent image waits for the batch before it, and for its own.
BATCH_S_MAX = 0.15
RUNS_S_MAX, RUNS_MAX = 0.3, 5  # for one size: several, since a model is often loaded while another one works
TOGETHER_S = 0.5
# So long a batch may keep the event loop from all else; where at least so many rows take no longer, it is quick.
IN_LOOP_S_MAX, IN_LOOP_ROWS_MIN = 0.00025, 4
# The largest batch that is as fast as any, but for noise: what surrounds a batch costs the same however many rows are in it.
AS_FAST = 0.97
BETTER_NARROW = 1.10  # what single-threaded batches must bring: they double a lone row's latency, or worse


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the site gives a model: providers in order of preference, threads in all, and batches at once.

    ``workers`` 0 means whichever is faster here: one batch on all threads, or a batch on each.
    """

    providers: tuple[str, ...]
    threads: int
    workers: int = 0


def require_telemetry_off() -> None:
    """Raises ConfigError unless ONNX Runtime was told, before it was imported, not to report home."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        raise ConfigError("ONNX Runtime's telemetry is not switched off in this process")


def open_session(
    manifest: Manifest, graph: Buffer, weights: Buffer, hardware: Hardware, workers_max: int | None = None
) -> "Session":
    """A warm session on the first provider that the site asks for and the manifest allows.

    How many batches run at once, on how many threads each, is measured, and whether it is so quick that the event loop runs
    it. ``workers_max`` is the grant's limit.

    Raises:
        ConfigError: this machine has no such provider.
        RefusedGraph: the runtime does not take the graph, cannot run it, or fell back to another provider.
    """
    require_telemetry_off()
    provider = next((name for name in hardware.providers if name in manifest.runtime.providers), None)
    if provider is None or provider not in ort.get_available_providers():
        raise ConfigError("none of engine.providers is both on this machine and allowed by the model's manifest")
    if _release(ort.__version__) < _release(manifest.runtime.onnxruntime_min):
        raise RefusedGraph("The model was proved with a later release of the runtime than this one.")

    def opened(threads: int) -> Session:
        return Session(_inner(provider, graph, weights, threads), manifest, provider)

    session = opened(max(1, hardware.threads // max(1, hardware.workers)))
    session.warm()
    if provider != _CUDA and not hardware.workers and session.measured.within(IN_LOOP_S_MAX) >= IN_LOOP_ROWS_MIN:
        if hardware.threads > 1:
            session = opened(1)
            session.warm()
        session.workers, session.measured.batch_rows = 0, max(1, session.measured.within(IN_LOOP_S_MAX))
        return session
    if provider == _CUDA or hardware.workers:
        session.workers = min(hardware.workers or 1, workers_max or hardware.workers or 1)
        return session
    if hardware.threads == 1 or (workers_max or hardware.threads) < hardware.threads:
        return session
    wide, wide_rows_per_s = session.measured, session.rows_per_s(1)
    del session  # one at a time: each is as large as the model
    session = opened(1)
    session.warm()
    if session.rows_per_s(hardware.threads) > wide_rows_per_s * BETTER_NARROW:
        session.workers = hardware.threads
        return session
    del session
    session = opened(hardware.threads)
    session.measured = wide
    session.probe()
    return session


def _inner(provider: str, graph: Buffer, weights: Buffer, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: a warning may quote the graph
    # Left to guess, the runtime takes bytes with a certain mark for a format of its own, which nobody has inspected.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Spinning threads win microseconds and take the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights:
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
    providers = [(provider, _OPTIONS.get(provider, {}))]
    try:
        inner = ort.InferenceSession(bytes(graph), sess_options=options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise RefusedGraph("The runtime does not take the graph.") from error
    if inner.get_providers()[0] != provider:
        raise RefusedGraph("The runtime fell back to another provider than the one that was asked for.")
    return inner


@dataclass(slots=True)
class Measured:
    """What this machine does with a model: ``seconds`` of a batch of each size; ``batch_rows`` is the size that pays."""

    seconds: dict[int, float] = field(default_factory=dict)
    batch_rows: int = 1
    workers: int = 1

    def within(self, seconds: float) -> int:
        """The most rows that are run in so many seconds."""
        return max((rows for rows, taken in self.seconds.items() if taken <= seconds), default=0)


class Session:
    """A graph that can be run, by ``workers`` threads at once; by none but the event loop where that is 0.

    ``provider`` is where it really runs.
    """

    def __init__(self, inner: ort.InferenceSession, manifest: Manifest, provider: str) -> None:
        self.provider, self.measured = provider, Measured(batch_rows=manifest.runtime.rows_max)
        self._inner, self._inputs = inner, manifest.inputs
        self._rows_max = manifest.runtime.rows_max
        self._outputs = [manifest.outputs.logits]
        if manifest.outputs.embedding is not None:
            self._outputs.append(manifest.outputs.embedding)
        # On CUDA a shape seen for the first time costs 300 to 1,300 ms, so batches are padded to a few sizes, all warmed.
        self._pads = provider == _CUDA

    @property
    def workers(self) -> int:
        return self.measured.workers

    @workers.setter
    def workers(self, workers: int) -> None:
        self.measured.workers = workers

    @property
    def batch_rows(self) -> int:
        """The most rows that are worth running together here."""
        return self.measured.batch_rows

    def rows(self, count: int) -> Rows:
        """Zeroed rows for every input; for a batch's slots, too."""
        return tuple(np.zeros((count, *spec.shape), DTYPES[spec.datatype]) for spec in self._inputs)

    def slots(self) -> Rows:
        """Room for a full batch."""
        return self.rows(self.batch_rows)

    def run(self, rows: Rows) -> Outputs:
        """Runs N rows, an array for each input in the manifest's order, 1 ≤ N ≤ rows_max."""
        count = len(rows[0])
        if self._pads and (missing := bucket(count, self._rows_max) - count):
            rows = tuple(np.concatenate(pair) for pair in zip(rows, self.rows(missing), strict=True))
        found = self._run(rows)
        return Outputs(found[0], found[1] if len(found) > 1 else None).rows(0, count)

    def _run(self, rows: Rows) -> Sequence[Any]:
        named = zip((spec.name for spec in self._inputs), rows, strict=True)
        if not self._pads:
            found: Sequence[Any] = self._inner.run(self._outputs, dict(named))
            return found
        # The runtime allocates the outputs in memory that the GPU can write to, and the copies are made in its own stream.
        binding = self._inner.io_binding()
        for name, array in named:
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._inner.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def probe(self) -> None:
        """Runs one row of zeros, as it was warmed."""
        self.run(self.rows(1))

    def warm(self) -> None:
        """Runs every batch size that will be met and measures it, so that no caller pays for the first.

        Raises:
            RefusedGraph: it cannot be run.
        """
        seconds, before = dict[int, float](), 0
        try:
            for size in buckets(self._rows_max):
                if not self._pads and before and seconds[before] / before * size > BATCH_S_MAX:
                    break
                seconds[size], before = self._seconds(self.rows(size)), size
        except Exception as error:  # as in open_session
            raise RefusedGraph("The runtime cannot run the graph.") from error
        rates = {size: size / taken for size, taken in seconds.items() if taken <= BATCH_S_MAX or size == 1}
        best = max(rates.values())
        worth = max(size for size, rate in rates.items() if rate >= best * AS_FAST)
        self.measured = Measured(seconds, worth)

    def _seconds(self, rows: Rows) -> float:
        """The median of some runs, without the first."""
        self.run(rows)
        taken, began = list[float](), perf_counter()
        while not taken or (len(taken) < RUNS_MAX and perf_counter() - began < RUNS_S_MAX):
            started = perf_counter()
            self.run(rows)
            taken.append(perf_counter() - started)
        return median(taken)

    def rows_per_s(self, workers: int) -> float:
        """What so many threads do at once with full batches."""

        def work(began: float) -> int:
            rows, runs = self.slots(), 0
            while not runs or perf_counter() - began < TOGETHER_S:
                self.run(rows)
                runs += 1
            return runs

        with ThreadPoolExecutor(workers) as pool:
            began = perf_counter()
            runs = sum(pool.map(work, [began] * workers))
            return runs * self.batch_rows / (perf_counter() - began)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3])


def available_providers() -> list[str]:
    """The providers that this installation of the runtime has."""
    return list(ort.get_available_providers())
