"""Validation images as they stand in the report: small, inside the page, beside what their answer hung on.

They are the vendor's validation images and may be patients'. A report that leaves the desk can do without them.
"""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from appliance.model.inputs import Images

SIDE_MAX = 160  # pixels of a page
SMALL = 64  # up to here the pixels themselves are shown
DROP_MIN = 0.05  # a map of smaller drops stays pale
_MARK = np.array([214, 90, 0], np.float64)


def picture(pixels: Images) -> Image.Image:
    """Pillow's image of uint8 ``[height, width, 1 or 3]``."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def thumbnail(pixels: Images) -> str:
    """Uint8 ``[height, width, channels]`` as a data URI."""
    return _uri(picture(pixels))


def heat(pixels: Images, drop: NDArray[np.float64]) -> str:
    """The image in grey, its fields ``[rows, columns]`` the more orange the more the answer hung on them."""
    image = picture(pixels).convert("L")
    scale = max(1, SMALL // max(image.size))  # a field of a tiny image needs room to be seen
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    weight = np.clip(drop / max(DROP_MIN, float(drop.max())), 0, 1)
    # Fields as the probe covered them, edge by edge.
    places = [
        np.searchsorted(np.linspace(0, side, count + 1).round(), np.arange(side), side="right") - 1
        for side, count in zip(pixels.shape[:2], drop.shape, strict=True)
    ]
    over = 0.75 * np.repeat(np.repeat(weight[np.ix_(*places)], scale, axis=0), scale, axis=1)[:, :, None]
    mixed = np.asarray(image, np.float64)[:, :, None] * (1 - over) + _MARK * over
    return _uri(Image.fromarray(mixed.round().astype(np.uint8)))


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(buffer, "PNG")
        kind = "png"
    else:
        image.thumbnail((SIDE_MAX, SIDE_MAX), Image.Resampling.BILINEAR)
        image.save(buffer, "JPEG", quality=82)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
