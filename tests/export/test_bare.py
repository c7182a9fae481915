"""A file that travels tells nothing but its picture."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from export.bare import bare

SECRET = b"DOE^JANE"
PIXELS = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 17, 3), np.uint8))


def saved(kind: str, image: Image.Image = PIXELS, orientation: int | None = None, **options: Any) -> bytes:
    """With the name in each place that a file has for such: texts, remarks, EXIF, and behind the end."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    if orientation:
        exif[0x0112] = orientation
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("PatientName", SECRET.decode())
        texts.add_itxt("PatientName", SECRET.decode())
        options["pnginfo"] = texts
    else:
        options["comment"] = SECRET
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue() + SECRET


@pytest.mark.parametrize("data", [
    saved("PNG"), saved("PNG", PIXELS.convert("P")), saved("PNG", PIXELS.convert("L")), saved("PNG", orientation=6),
    saved("PNG", PIXELS.convert("P"), transparency=3),
    saved("JPEG"), saved("JPEG", progressive=True), saved("JPEG", PIXELS.convert("L"), restart_marker_blocks=1),
    saved("JPEG", orientation=8), saved("JPEG", quality=95, subsampling=0, icc_profile=SECRET),
])  # fmt: skip
def test_nothing_but_the_picture_is_left(data: bytes) -> None:
    """To the bit, whichever way up it is."""
    made = bare(data)
    assert SECRET in data
    assert SECRET not in made
    before, after = (ImageOps.exif_transpose(Image.open(io.BytesIO(one))) for one in (data, made))
    assert np.array_equal(np.asarray(before.convert("RGBA")), np.asarray(after.convert("RGBA")))
    assert bare(made) == made


def test_photographs_of_many_cameras_keep_their_pixels() -> None:
    files = sorted((Path(__file__).parents[3] / "shared" / "data" / "grocery").glob("*/*/*.jpg"))[::20]
    if not files:
        pytest.skip("the real data beside the project (shared/data) is absent")
    for data in (path.read_bytes() for path in files):
        before, after = (np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(one)))) for one in (data, bare(data)))
        assert np.array_equal(before, after)
