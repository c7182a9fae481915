"""What a peer is to serve, opened in the same way for all of them, which is also how ONNX Runtime alone is measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

DTYPES: dict[str, Any] = {"UINT8": np.uint8, "FP32": np.float32}


@dataclass(frozen=True)
class Tensor:
    """One row of it; the number of rows comes before ``shape``."""

    name: str
    datatype: str
    shape: Sequence[int]

    @property
    def dtype(self) -> Any:
        return DTYPES[self.datatype]


@dataclass(frozen=True)
class Network:
    name: str
    input: Tensor
    output: Tensor
    rows_max: int
    session: ort.InferenceSession

    def run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.session.run([self.output.name], {self.input.name: rows})[0]
        return found


def load(folder: Path, threads: int) -> Network:
    said = json.loads((folder / "network.json").read_text())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(folder / "graph.onnx", sess_options=options, providers=["CPUExecutionProvider"])
    return Network(said["name"], Tensor(**said["input"]), Tensor(**said["output"]), said["rows_max"], session)


def load_all(folder: Path, threads: int) -> list[Network]:
    return [load(path, threads) for path in sorted(folder.iterdir())]
