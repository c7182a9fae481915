"""From a caller's bytes to the graph's input: uint8 ``[N, height, width, channels]`` (bundle-format section 4.1)."""

import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from appliance.bundle.manifest import InputSpec
from appliance.errors import InvalidInput

Images: TypeAlias = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG")
_PNG_END = b"IEND\xaeB`\x82"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def decode(spec: InputSpec, encoded: Sequence[bytes]) -> Images:
    """Encoded images as the graph's input.

    Raises:
        InvalidInput: an image is over a limit, of another format, truncated, or of a pixel mode we refuse; the message
            gives its position, counted from 0.
    """
    rows = np.empty((len(encoded), spec.height, spec.width, spec.channels), np.uint8)
    for i, data in enumerate(encoded):
        try:
            rows[i] = _decode_one(spec, data)
        except InvalidInput as error:
            raise InvalidInput(f"Image {i}: {error}") from error
    return rows


def view(spec: InputSpec, raw: bytes | memoryview, shape: Sequence[int]) -> Images:
    """Raw pixels as the graph's input, without copying.

    Raises:
        InvalidInput: the shape is not the model's, or the bytes are not as many as the shape says.
    """
    wanted = (spec.height, spec.width, spec.channels)
    if tuple(shape[1:]) != wanted or shape[0] < 0:
        raise InvalidInput(f"The input's shape must be [rows, {', '.join(map(str, wanted))}].")
    if len(raw) != shape[0] * spec.row_bytes:
        raise InvalidInput("The input's bytes are not as many as its shape says.")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _decode_one(spec: InputSpec, data: bytes) -> Images:
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
            image.load()
            if image.format == "PNG" and _PNG_END not in data:  # Pillow takes one whose pixels alone are whole
                raise InvalidInput("it is cut off.")
            return _prepare(spec, image)
    except InvalidInput:
        raise
    except Image.DecompressionBombError:
        raise InvalidInput(f"it has more than {spec.pixels_max} pixels.") from None
    except Exception as error:  # a decoder given hostile bytes may raise anything; every case is the caller's input
        raise InvalidInput("it is not a whole PNG or JPEG image.") from error


def _prepare(spec: InputSpec, image: Image.Image) -> Images:
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    pixels = upright.convert("L" if spec.channels == 1 else "RGB")
    size = (spec.width, spec.height)
    if pixels.size != size:
        if spec.resize == "crop":
            pixels = ImageOps.fit(pixels, size, Image.Resampling.BILINEAR)
        else:
            pixels = pixels.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.uint8).reshape(spec.height, spec.width, spec.channels)
