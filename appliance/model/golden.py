"""Golden cases: the vendor's own inputs and answers, replayed on the customer's machine before it may serve."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.opening import Buffer
from appliance.errors import FailedGoldenCase, MalformedBundle


@dataclass(frozen=True, eq=False)
class GoldenCases:
    """``images`` are encoded, as a caller would send them; ``logits`` is float32 ``[cases, classes]``."""

    images: tuple[bytes, ...]
    logits: NDArray[np.float32]

    def check(self, case: int, logits: NDArray[np.float32], tolerance: float) -> float:
        """The largest |Δlogit| of one case's replay, logits float32 ``[classes]``.

        Raises:
            FailedGoldenCase: it is over the tolerance, not a number, or of another shape.
        """
        if logits.shape != self.logits[case].shape:
            raise FailedGoldenCase("This machine's answer to a golden case has not the shape of the vendor's.")
        worst = float(np.abs(np.asarray(logits, np.float64) - self.logits[case]).max())
        if not worst <= tolerance:
            raise FailedGoldenCase("This machine does not reproduce the vendor's golden cases within their tolerance.")
        return worst

    def encode(self) -> bytes:
        """The content of a ``selftest`` part (bundle-format section 4.3)."""
        arrays = {f"image_{i}": np.frombuffer(image, np.uint8) for i, image in enumerate(self.images)}
        buffer = io.BytesIO()
        np.savez(buffer, logits=self.logits, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes | Buffer, cases: int, classes: int) -> "GoldenCases":
        """Raises MalformedBundle where the arrays are not what section 4.3 says."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if len(arrays.files) != cases + 1:
                    raise ValueError("arrays")
                logits = arrays["logits"]
                images = tuple(arrays[f"image_{i}"].tobytes() for i in range(cases))
            if logits.shape != (cases, classes) or logits.dtype != np.float32:
                raise ValueError("shape")
        except Exception as error:  # zipfile, zlib and numpy raise errors that have no common base
            raise MalformedBundle("The self-test part is not valid.") from error
        return cls(images, logits)
