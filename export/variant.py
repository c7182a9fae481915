"""The same network in half precision, or in integers of 8 bits: smaller, often faster, and another model to prove.

A variant is made from the graph whose float32 answers were proven, and then stands on its own: its own limits at the parity
gate, its own calibration, its own golden cases, its own bundle.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from appliance.model.inputs import Rows
from export.errors import ConversionError, told
from export.evenly import evenly
from export.graph import Graph, portable
from export.session import GraphSession

RANGE_CASES_MAX = 256  # enough to see the range of each activation; more takes longer and changes little
SPEED_RUNS = 15


def make(precision: str, graph: Graph, input_names: tuple[str, ...], outputs: tuple[str, ...], cases: Rows) -> Graph:
    """The graph in ``fp16`` or ``int8``; its inputs and outputs keep their types. ``cases`` show the range of activations.

    Raises:
        ConversionError: the tool cannot do it, or what it makes may not be served.
    """
    try:
        # The tools print, and warn through the root logger; what matters is in what they raise.
        with contextlib.redirect_stdout(io.StringIO()), _silent_root():
            made = _half(graph) if precision == "fp16" else _integers(graph, input_names, cases)
    except Exception as error:  # the tools raise ValueError, RuntimeError, the runtime's own and more
        raise ConversionError(f"The graph cannot be made {precision}: {told(error)}") from error
    return portable(made, input_names, outputs)


def speeds(sessions: dict[str, GraphSession], cases: Rows, rows_max: int) -> dict[str, dict[str, float]]:
    """Milliseconds a row for each session: alone, and in batches of ``rows_max``; medians of interleaved runs."""
    single, full = (tuple(np.resize(array, (rows, *array.shape[1:])) for array in cases) for rows in (1, rows_max))
    took: dict[str, dict[str, list[float]]] = {name: {"alone": [], "batch": []} for name in sessions}
    for _ in range(SPEED_RUNS):
        for name, session in sessions.items():
            for how, given, rows in (("alone", single, 1), ("batch", full, rows_max)):
                started = perf_counter()
                session.run(given, rows)
                took[name][how].append((perf_counter() - started) * 1000 / rows)
    return {name: {how: median(times) for how, times in each.items()} for name, each in took.items()}


def _half(graph: Graph) -> onnx.ModelProto:
    made = OnnxModel(convert_float_to_float16(graph.model(), keep_io_types=True))
    made.topological_sort()  # the tool puts the casts of its inputs behind what they go into
    model: onnx.ModelProto = made.model
    return model


def _integers(graph: Graph, input_names: tuple[str, ...], cases: Rows) -> onnx.ModelProto:
    """Static quantisation between QuantizeLinear and DequantizeLinear, weights per channel."""
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        ready, made = Path(folder) / "ready.onnx", Path(folder) / "made.onnx"
        graph.write(Path(folder))
        quant_pre_process(Path(folder) / "graph", ready, skip_symbolic_shape=True, save_as_external_data=True)
        quantize_static(
            ready,
            made,
            _Cases(input_names, cases),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            use_external_data_format=True,
        )
        return onnx.load(made)


class _Cases(CalibrationDataReader):  # type: ignore[misc]  # the runtime has no types
    def __init__(self, names: tuple[str, ...], cases: Rows) -> None:
        chosen = evenly(len(cases[0]), RANGE_CASES_MAX)
        self._each: Iterator[dict[str, Any]] = iter(
            [{name: array[i : i + 1] for name, array in zip(names, cases, strict=True)} for i in chosen]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._each, None)


@contextlib.contextmanager
def _silent_root() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(before)
