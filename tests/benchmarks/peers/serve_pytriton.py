# mypy: disable-error-code="import-not-found,misc,method-assign"
"""pytriton: Triton's own server and dynamic batcher, with its Python backend, which calls back into this process."""

import os
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

import networks
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def serve(folder: Path, port: int, threads: int) -> None:
    # Triton's backend is a program that wants a libpython, and must find that of this Python, not another of its version.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    config = TritonConfig(
        allow_metrics=False,
        grpc_address="127.0.0.1",
        grpc_port=port,
        http_address="127.0.0.1",
        http_port=_free_port(),
    )
    with Triton(config=config) as triton:
        for network in networks.load_all(folder, threads):
            _bind(triton, network)
        triton.serve()


def _bind(triton: Triton, network: networks.Network) -> None:
    given, made = network.input, network.output

    @batch  # type: ignore[untyped-decorator]
    def infer(**inputs: Any) -> dict[str, Any]:
        return {made.name: network.run(inputs[given.name])}

    triton.bind(
        model_name=network.name,
        infer_func=infer,
        inputs=[Tensor(name=given.name, dtype=given.dtype, shape=tuple(given.shape))],
        outputs=[Tensor(name=made.name, dtype=made.dtype, shape=tuple(made.shape))],
        config=ModelConfig(max_batch_size=network.rows_max, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        strict=False,
    )


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
