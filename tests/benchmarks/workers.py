"""What is run in a process of its own: raw ONNX Runtime, or a load generator against the appliance.

    python -m tests.benchmarks.workers '{"kind": "raw", "model": "small", "concurrency": 8, "seconds": 3, …}'

Both are closed loops: a caller asks again as soon as it has its answer. They print one JSON document: rows a second, and
the latencies in ms.
"""

import asyncio
import json
import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc
import grpc.aio
import numpy as np

from appliance.engine.session import Session, open_session
from appliance.oip import open_inference_pb2 as oip
from tests.benchmarks import networks

WARM_S = 0.5
INFER = "/inference.GRPCInferenceService/ModelInfer"


def raw(model: str, concurrency: int, seconds: float, threads: int, rows: int) -> dict[str, Any]:
    """``concurrency`` threads, each running ``rows`` rows at a time on one session, with the appliance's own options."""
    made = networks.graph(model)
    manifest = networks.manifest(model)
    session = open_session(manifest, bytearray(made.graph), bytearray(made.weights), ("CPUExecutionProvider",), threads)
    images = networks.rows(model, rows)
    _loop_in_threads(session, images, concurrency, WARM_S)
    started = perf_counter()
    latencies = _loop_in_threads(session, images, concurrency, seconds)
    return {"ips": len(latencies) * rows / (perf_counter() - started), "ms": latencies}


def _loop_in_threads(session: Session, images: np.ndarray, concurrency: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    end = perf_counter() + seconds

    def loop() -> None:
        while (started := perf_counter()) < end:
            session.run(images)
            latencies.append((perf_counter() - started) * 1e3)

    callers = [threading.Thread(target=loop) for _ in range(concurrency)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return latencies


async def load(model: str, concurrency: int, seconds: float, address: str, client: str | None) -> dict[str, Any]:
    """``concurrency`` calls of one row at a time outstanding, on one connection; an answer is checked first."""
    images = networks.rows(model, 1)
    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[images.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    request.outputs.add(name="logits")
    message = request.SerializeToString()
    async with _channel(address, client) as channel:
        infer = channel.unary_unary(INFER)  # bytes in, bytes out: the generator's own cost is not what is measured
        _check(model, images, oip.ModelInferResponse.FromString(await infer(message)))
        await _loop(infer, message, concurrency, WARM_S)
        started = perf_counter()
        latencies = await _loop(infer, message, concurrency, seconds)
        return {"ips": len(latencies) / (perf_counter() - started), "ms": latencies}


def _channel(address: str, client: str | None) -> grpc.aio.Channel:
    if client is None:
        return grpc.aio.insecure_channel(address)
    ca, certificate, key = ((Path(client) / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key"))
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate))


def _check(model: str, images: np.ndarray, answer: oip.ModelInferResponse) -> None:
    made = networks.graph(model)
    session = open_session(
        networks.manifest(model), bytearray(made.graph), bytearray(made.weights), ("CPUExecutionProvider",), 1
    )
    wanted = session.run(images).logits
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], "<f4")[None], wanted, atol=1e-2)


async def _loop(infer: Any, message: bytes, concurrency: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    end = perf_counter() + seconds

    async def caller() -> None:
        while (started := perf_counter()) < end:
            await infer(message)
            latencies.append((perf_counter() - started) * 1e3)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return latencies


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    kind = asked.pop("kind")
    print(json.dumps(raw(**asked) if kind == "raw" else asyncio.run(load(**asked))))
