"""From a caller's bytes to what the graph takes: one array for each input, its first dimension the rows.

An input that takes images (bundle-format section 4.1) has three forms under one name: ``UINT8`` pixels, which the graph
itself takes; whole PNG or JPEG files; and ``FP32`` holding the same pixels, 0 to 255. Pixels that somebody normalised
already are refused: the graph does that, and twice is wrong without anybody noticing. An input that takes texts has one
form: UTF-8. Numbers of words are not taken, since one that is out of range would end the whole batch.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from appliance.bundle.manifest import ImageSpec, InputSpec
from appliance.errors import InvalidInput
from appliance.model import text

Images: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = tuple[NDArray[Any], ...]

FORMATS = ("PNG", "JPEG")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
# Little-endian, as the protocol's raw contents are.
DTYPES = {
    "BOOL": np.dtype("?"),
    **{f"{kind}{8 * size}": np.dtype(f"<{kind[0].lower()}{size}") for kind in ("UINT", "INT") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class Encoded:
    """What has to be decoded: whole PNG or JPEG files, or texts in UTF-8.

    ``kind`` is ``images`` or ``texts`` where the caller's protocol tells them apart; otherwise they are what is taken.
    """

    elements: Sequence[bytes | memoryview]
    kind: str = ""

    @property
    def rows(self) -> int:
        return len(self.elements)

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.elements))

    def row(self, i: int) -> bytes | memoryview:
        """A row's bytes as received."""
        return self.elements[i]


@dataclass(frozen=True, slots=True)
class Raw:
    """A tensor's bytes, little-endian and row-major; the first dimension of ``shape`` is that of the rows."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def row(self, i: int) -> memoryview:
        """A row's bytes as received, of a tensor whose length fits its shape."""
        size = len(self.data) // self.rows
        return memoryview(self.data)[i * size : (i + 1) * size]


Content: TypeAlias = Encoded | Raw


def require_kind(spec: InputSpec, content: Content) -> None:
    """Raises InvalidInput where images are sent to an input that takes none, or texts. One of the two read as the other
    would be refused in words that lead astray, or not at all.
    """
    if isinstance(content, Encoded) and content.kind:
        taken = "texts" if spec.text is not None else "images" if spec.image is not None else "tensors"
        if content.kind != taken:
            raise InvalidInput(f"This model takes {taken}, and was sent {content.kind}.")


def read(spec: InputSpec, content: Content) -> NDArray[Any]:
    """One input's array, ``[rows, *spec.shape]``; a view of the caller's bytes where they are what the graph takes.

    Raises:
        InvalidInput: not of the datatype, the shape or the length; an image or a text that cannot be used.
    """
    if isinstance(content, Encoded):
        if spec.text is not None:
            return text.tokens(spec.text, spec.shape[0] - 1, content.elements)
        return decode(spec, content.elements)
    if spec.text is not None:
        raise InvalidInput(f"The input {spec.name} has the datatype BYTES, holding texts.")
    pixels = spec.image is not None and content.datatype == "FP32"
    if content.datatype != spec.datatype and not pixels:
        also = ", or BYTES holding encoded images" if spec.image else ""
        raise InvalidInput(f"The input {spec.name} has the datatype {spec.datatype}{also}.")
    if content.shape[1:] != spec.shape or content.rows < 1:
        raise InvalidInput(f"The input {spec.name} must have the shape [{', '.join(('rows', *map(str, spec.shape)))}].")
    dtype = DTYPES[content.datatype]
    if content.nbytes != content.rows * spec.row_bytes // DTYPES[spec.datatype].itemsize * dtype.itemsize:
        raise InvalidInput(f"The bytes of the input {spec.name} are not as many as its shape says.")
    if content.datatype == "BOOL" and np.frombuffer(content.data, np.uint8).max(initial=0) > 1:
        raise InvalidInput(f"The input {spec.name} holds a byte that is neither 0 nor 1.")
    array = np.frombuffer(content.data, dtype).reshape(content.shape)
    return _pixels(spec, array) if pixels else array


def decode(spec: InputSpec, encoded: Sequence[bytes | memoryview]) -> Images:
    """Encoded images as uint8 ``[N, height, width, channels]``.

    Raises:
        InvalidInput: the input takes none; an image is over a limit, of another format, truncated, or of a pixel mode we
            refuse; the message gives its position, counted from 0.
    """
    if spec.image is None:
        raise InvalidInput(f"The input {spec.name} has the datatype {spec.datatype}, and takes no images.")
    rows = np.empty((len(encoded), *spec.shape), np.uint8)
    for i, data in enumerate(encoded):
        try:
            rows[i] = _decode_one(spec.shape, spec.image, data)
        except InvalidInput as error:
            raise InvalidInput(f"Image {i}: {error}") from error
    return rows


def _pixels(spec: InputSpec, array: NDArray[np.float32]) -> Images:
    with np.errstate(invalid="ignore"):  # a NaN becomes some pixel, which it then does not equal
        pixels = array.astype(np.uint8)
    if not np.array_equal(pixels, array):
        raise InvalidInput(
            f"FP32 in the input {spec.name} must be whole pixels, 0 to 255: the model normalises them itself."
        )
    return pixels


def _decode_one(shape: tuple[int, ...], spec: ImageSpec, data: bytes | memoryview) -> Images:
    if len(data) > spec.bytes_max:
        raise InvalidInput(f"it has more than {spec.bytes_max} bytes.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > spec.pixels_max:
                raise Image.DecompressionBombError
            if image.mode not in MODES:
                raise InvalidInput(f"its pixel mode is not one of {', '.join(MODES)}.")
            if any(";16" in str(tile.args) for tile in image.tile):  # Pillow would drop the low bytes of 16-bit colour
                raise InvalidInput("its pixels have 16 bits a channel.")
            if spec.decode == "draft":
                # Sides that are still at least as long as the input's longer one, whichever way up the image is.
                image.draft(image.mode, (max(shape[:2]),) * 2)
            image.load()
            if image.format == "PNG" and _PNG_END not in bytes(data):  # Pillow takes one whose pixels alone are whole
                raise InvalidInput("it is cut off.")
            return _prepare(shape, spec, image)
    except InvalidInput:
        raise
    except Image.DecompressionBombError:
        raise InvalidInput(f"it has more than {spec.pixels_max} pixels.") from None
    except Exception as error:  # a decoder given hostile bytes may raise anything; every case is the caller's input
        raise InvalidInput("it is not a whole PNG or JPEG image.") from error


def _prepare(shape: tuple[int, ...], spec: ImageSpec, image: Image.Image) -> Images:
    height, width, channels = shape
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    pixels = upright.convert("L" if channels == 1 else "RGB")
    size = (width, height)
    if pixels.size != size:
        if spec.resize == "crop":
            pixels = ImageOps.fit(pixels, size, Image.Resampling.BILINEAR)
        else:
            pixels = pixels.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.uint8).reshape(shape)
