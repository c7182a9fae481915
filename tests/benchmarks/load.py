"""The callers: N requests of one row outstanding over gRPC, each asked again as soon as it is answered.

The load takes its processor time from the machine it measures, so it does as little as it can: a request is serialised
once, an answer is not parsed. That the answers are right is checked before, against ONNX Runtime itself.
"""

import asyncio
import sys
from itertools import chain
from pathlib import Path
from time import perf_counter

import grpc.aio
import numpy as np

from appliance.oip import open_inference_pb2 as oip
from tests.benchmarks import models
from tests.benchmarks.models import Made
from tests.benchmarks.rounds import Round, answer_each

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def message(made: Made, sample: int) -> bytes:
    """A serialised request for the logits of one image."""
    image = made.images[sample]
    request = oip.ModelInferRequest(model_name=made.network.name, raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=[1, *image.shape])
    request.outputs.add(name="logits")
    return request.SerializeToString()


class Load:
    """Callers with the certificate in a folder, or with none for the loopback listener."""

    def __init__(self, certificates: Path) -> None:
        ca, certificate, key = ((certificates / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key"))
        self._credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        self._made = {network.name: models.make(network) for network in models.NETWORKS}

    def measure(self, model: str, port: int, tls: bool, callers: int, warm_s: float, seconds: float) -> Round:
        return asyncio.run(self._measure(self._made[model], port, tls, callers, warm_s, seconds))

    async def _measure(self, made: Made, port: int, tls: bool, callers: int, warm_s: float, seconds: float) -> Round:
        address = f"localhost:{port}"
        async with (
            grpc.aio.secure_channel(address, self._credentials) if tls else grpc.aio.insecure_channel(address) as channel
        ):
            call = channel.unary_unary(METHOD)
            messages = [message(made, i) for i in range(models.SAMPLES)]
            for i in range(models.SAMPLES):
                check(made, i, await call(messages[i]))

            begin = perf_counter() + warm_s
            end = begin + seconds

            async def loop(caller: int) -> list[tuple[float, float]]:
                asked = messages[caller % models.SAMPLES]
                requests, now = [], perf_counter()
                while now < end:
                    before = now
                    await call(asked)
                    now = perf_counter()
                    requests.append((before, now))
                return requests

            return Round.of(list(chain(*await asyncio.gather(*map(loop, range(callers))))), 1, (begin, end))


def check(made: Made, sample: int, answer: bytes) -> None:
    """Ends the benchmark unless the answer is ONNX Runtime's own: speed without it is worth nothing."""
    response = oip.ModelInferResponse.FromString(answer)
    assert [output.name for output in response.outputs] == ["logits"]
    logits = np.frombuffer(response.raw_output_contents[0], "<f4")
    np.testing.assert_allclose(logits, made.logits[sample], rtol=1e-4, atol=1e-4 * np.abs(made.logits).max())


if __name__ == "__main__":
    answer_each(Load(Path(sys.argv[1])).measure)
