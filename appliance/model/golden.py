"""Golden cases: the vendor's own inputs and answers, replayed on the customer's machine before it may serve."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import InputSpec
from appliance.bundle.opening import Buffer
from appliance.errors import FailedGoldenCase, MalformedBundle
from appliance.model.inputs import DTYPES, Content, Encoded, Raw


@dataclass(frozen=True, eq=False)
class GoldenCases:
    """``cases`` are what a caller would send, one row each, for every input; ``logits`` is float32 ``[cases, classes]``."""

    cases: tuple[tuple[Content, ...], ...]
    logits: NDArray[np.float32]

    @classmethod
    def of_encoded(cls, elements: Sequence[bytes], logits: NDArray[np.float32]) -> "GoldenCases":
        """The cases of a model whose one input takes images, or texts."""
        return cls(tuple((Encoded((element,)),) for element in elements), logits)

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
        arrays: dict[str, NDArray[Any]] = {"logits": self.logits}
        for i, case in enumerate(self.cases):
            for j, content in enumerate(case):
                if isinstance(content, Encoded):
                    arrays[f"encoded_{i}_{j}"] = np.frombuffer(content.elements[0], np.uint8)
                else:
                    array = np.frombuffer(content.data, DTYPES[content.datatype]).reshape(content.shape[1:])
                    arrays[f"tensor_{i}_{j}"] = array
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes | Buffer, cases: int, classes: int, inputs: Sequence[InputSpec]) -> "GoldenCases":
        """Raises MalformedBundle where the arrays are not what section 4.3 says."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if len(arrays.files) != cases * len(inputs) + 1:
                    raise ValueError("arrays")
                logits = arrays["logits"]
                given = tuple(tuple(_content(arrays, i, j, spec) for j, spec in enumerate(inputs)) for i in range(cases))
            if logits.shape != (cases, classes) or logits.dtype != np.float32:
                raise ValueError("shape")
        except Exception as error:  # zipfile, zlib and numpy raise errors that have no common base
            raise MalformedBundle("The self-test part is not valid.") from error
        return cls(given, logits)


def _content(arrays: Mapping[str, NDArray[Any]], case: int, place: int, spec: InputSpec) -> Content:
    """What is given to one input in one case. Raises KeyError, ValueError."""
    if spec.image is not None or spec.text is not None:
        encoded = arrays[f"encoded_{case}_{place}"]
        if encoded.dtype != np.uint8 or encoded.ndim != 1:
            raise ValueError("encoded")
        return Encoded((encoded.tobytes(),))
    array = arrays[f"tensor_{case}_{place}"]
    if array.dtype != DTYPES[spec.datatype] or array.shape != spec.shape:
        raise ValueError("tensor")
    return Raw(spec.datatype, (1, *spec.shape), array.tobytes())
