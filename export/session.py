"""The graph that will be served, run here as the product runs it: from memory, in ONNX Runtime."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from appliance.model.inputs import Rows
from export.errors import ConversionError, told
from export.graph import WEIGHTS, Graph
from export.kinds import EMBEDDING


@dataclass(frozen=True, eq=False)
class Outputs:
    """``logits`` float32 ``[N, classes]``; ``embedding`` float32 ``[N, width]``, or None."""

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32] | None


class GraphSession:
    """One graph on the processor. Other providers are proved with the golden cases, on the machines that have them."""

    def __init__(self, graph: Graph) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # what matters is raised; a log of its own would stand between our sentences
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others share this desk
        if graph.weights:
            options.add_external_initializers_from_files_in_memory([WEIGHTS], [graph.weights], [len(graph.weights)])
        try:
            self._session: Any = onnxruntime.InferenceSession(graph.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions have no common base
            raise ConversionError(f"ONNX Runtime cannot run the graph: {told(error)}") from error
        self._inputs = [value.name for value in self._session.get_inputs()]
        self.has_embedding = EMBEDDING in [output.name for output in self._session.get_outputs()]

    def run(self, given: Rows, rows: int) -> Outputs:
        """The outputs for an array ``[N, ...]`` for each input, N ≥ 1, computed in batches of ``rows``.

        Raises:
            ConversionError: the graph cannot answer them.
        """
        try:
            batches = [
                self._session.run(None, {name: array[i : i + rows] for name, array in zip(self._inputs, given, strict=True)})
                for i in range(0, len(given[0]), rows)
            ]
        except Exception as error:  # the runtime's exceptions have no common base
            raise ConversionError(f"The graph cannot answer the cases: {told(error)}") from error
        logits, *embedding = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        return Outputs(logits, embedding[0] if embedding else None)
