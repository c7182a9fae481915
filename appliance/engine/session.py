"""The runtime. The only importer of onnxruntime.

A session is made from memory alone, on exactly the provider that was asked for, with every option said here.
"""

import os

import numpy as np
import onnxruntime as ort

from appliance.bundle.manifest import Manifest
from appliance.bundle.opening import Buffer
from appliance.engine.batcher import Outputs
from appliance.engine.graph import WEIGHTS
from appliance.errors import ConfigError, RefusedGraph
from appliance.model.inputs import Images

_CUDA = "CUDAExecutionProvider"


def require_telemetry_off() -> None:
    """Raises ConfigError unless ONNX Runtime was told, before it was imported, not to report home."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        raise ConfigError("ONNX Runtime's telemetry is not switched off in this process")


def open_session(manifest: Manifest, graph: Buffer, weights: Buffer, providers: tuple[str, ...], threads: int) -> "Session":
    """A session on the first provider that the site asks for and the manifest allows.

    Raises:
        ConfigError: this machine has no such provider.
        RefusedGraph: the runtime does not take the graph, or fell back to another provider.
    """
    require_telemetry_off()
    wanted = next((name for name in providers if name in manifest.runtime.providers), None)
    if wanted is None or wanted not in ort.get_available_providers():
        raise ConfigError("none of engine.providers is both on this machine and allowed by the model's manifest")
    if _release(ort.__version__) < _release(manifest.runtime.onnxruntime_min):
        raise RefusedGraph("The model was proved with a later release of the runtime than this one.")
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
    try:
        inner = ort.InferenceSession(bytes(graph), sess_options=options, providers=[wanted])
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise RefusedGraph("The runtime does not take the graph.") from error
    if inner.get_providers()[0] != wanted:
        raise RefusedGraph("The runtime fell back to another provider than the one that was asked for.")
    return Session(inner, manifest, wanted)


class Session:
    """A graph that can be run. ``provider`` is where it really runs."""

    def __init__(self, inner: ort.InferenceSession, manifest: Manifest, provider: str) -> None:
        self.provider = provider
        self._inner, self._input = inner, manifest.input
        self._rows_max = manifest.runtime.rows_max
        self._outputs = [manifest.outputs.logits]
        if manifest.outputs.embedding is not None:
            self._outputs.append(manifest.outputs.embedding)
        # On CUDA a shape seen for the first time costs 300 to 1,300 ms, so batches are padded to a few sizes, all warmed.
        self._pads = provider == _CUDA

    def run(self, images: Images) -> Outputs:
        """Runs uint8 ``[N, height, width, channels]``, 1 ≤ N ≤ rows_max."""
        rows = len(images)
        if self._pads and (missing := bucket(rows, self._rows_max) - rows):
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        found = self._inner.run(self._outputs, {self._input.name: images})
        return Outputs(found[0], found[1] if len(found) > 1 else None).rows(0, rows)

    def warm(self) -> None:
        """Runs every batch size that will be met, so that no caller pays for the first. Raises RefusedGraph."""
        shape = (self._input.height, self._input.width, self._input.channels)
        sizes = (
            {bucket(rows, self._rows_max) for rows in range(1, self._rows_max + 1)} if self._pads else {1, self._rows_max}
        )
        for rows in sorted(sizes):
            try:
                self.run(np.zeros((rows, *shape), np.uint8))
            except Exception as error:  # as in open_session
                raise RefusedGraph("The runtime cannot run the graph.") from error


def bucket(rows: int, rows_max: int) -> int:
    """The batch size that ``rows`` are padded to: the next power of two, at most ``rows_max``."""
    return min(1 << (rows - 1).bit_length(), rows_max)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3])


def available_providers() -> list[str]:
    """The providers that this installation of the runtime has."""
    return list(ort.get_available_providers())
