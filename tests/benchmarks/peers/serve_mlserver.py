# mypy: disable-error-code="import-not-found,misc,method-assign"
"""MLServer with a custom runtime, adaptive batching on, in one process: a second one for inference makes it slower."""

import asyncio
import sys
from pathlib import Path

import networks
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

BATCH_S_MAX = 0.001  # it waits so long for a batch to fill, whatever the load


class Runtime(MLModel):
    async def load(self) -> bool:
        parameters = self.settings.parameters
        assert parameters is not None
        self.network = networks.load(Path(parameters.uri), parameters.threads)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        logits = self.network.run(NumpyCodec.decode_input(given).astype(self.network.input.dtype, copy=False))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self.network.output.name, logits)])


def serve(folder: Path, port: int, threads: int) -> None:
    server = MLServer(
        Settings(
            debug=False, host="127.0.0.1", http_port=0, grpc_port=port, metrics_endpoint=None, parallel_workers=0,
            grpc_max_message_length=64 << 20,
        )
    )  # fmt: skip
    settings = [
        ModelSettings(
            name=path.name,
            implementation=Runtime,
            max_batch_size=32,
            max_batch_time=BATCH_S_MAX,
            parameters=ModelParameters(uri=str(path), threads=threads),
        )
        for path in sorted(folder.iterdir())
    ]
    asyncio.run(server.start(settings))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
