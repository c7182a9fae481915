"""The forged model as an MLServer runtime, in MLServer's own venv: it imports nothing of ours. See ``peers.py``.

Written as MLServer's examples are: take the input by its name, decode it with the codec of arrays, answer row for row.
"""

from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Forged(MLModel):
    """Logits = pixels @ W + B + offset, in float32."""

    async def load(self) -> bool:
        extra: dict[str, Any] = self.settings.parameters.extra
        with np.load(extra["weights"]) as arrays:
            self._w, self._b = arrays["W"], arrays["B"] + np.float32(extra["offset"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = next((each for each in payload.inputs if each.name == "image"), None)
        if images is None or images.datatype != "UINT8":
            raise InferenceError("The input must be named image, and of UINT8.")
        pixels = NumpyCodec.decode_input(images)
        if pixels.shape[1:] != (8, 8, 1):
            raise InferenceError("The input's shape must be [rows, 8, 8, 1].")
        logits = pixels.reshape(len(pixels), -1).astype(np.float32) @ self._w + self._b
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])
