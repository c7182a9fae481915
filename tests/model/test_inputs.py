"""From a caller's bytes to the graph's input: every image we accept has one right answer, and the others are refused."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from appliance.bundle.manifest import ImageSpec, InputSpec
from appliance.errors import InvalidInput
from appliance.model import inputs
from appliance.model.inputs import Encoded, Raw
from tests import forge

GREY = InputSpec("image", "UINT8", (8, 8, 1), ImageSpec("stretch", "full", 1_000_000, 1 << 20))
RGB = replace(GREY, shape=(8, 8, 3))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image(spec: InputSpec, **changes: Any) -> InputSpec:
    """A spec whose images are read in another way."""
    assert spec.image is not None
    return replace(spec, image=replace(spec.image, **changes))


def one(data: bytes, spec: InputSpec = GREY) -> np.ndarray:
    return inputs.decode(spec, [data])[0]


def refuses(data: bytes, sentence: str, spec: InputSpec = GREY) -> None:
    with pytest.raises(InvalidInput, match=f"^Image 0: .*{sentence}"):
        one(data, spec)


@given(st.binary(min_size=192, max_size=192))
def test_png_of_the_right_size_comes_through_byte_for_byte(pixels: bytes) -> None:
    colour = np.frombuffer(pixels, np.uint8).reshape(8, 8, 3)
    assert np.array_equal(one(encoded(Image.fromarray(colour)), RGB), colour)
    assert np.array_equal(one(encoded(Image.fromarray(colour[..., 0]))), colour[..., :1])


def test_jpeg_is_what_pillow_makes_of_it() -> None:
    data = encoded(Image.fromarray(forge.image(1)[..., 0]), "JPEG", quality=95)
    assert np.array_equal(one(data)[..., 0], np.asarray(Image.open(io.BytesIO(data))))


def test_images_of_one_call_keep_their_places() -> None:
    images = [forge.image(seed) for seed in range(4)]
    assert np.array_equal(inputs.decode(GREY, [forge.png(image) for image in images]), np.stack(images))


def test_no_images_are_no_rows() -> None:
    assert inputs.decode(GREY, []).shape == (0, 8, 8, 1)


@pytest.mark.parametrize(("orientation", "back"), [
    (1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (4, np.flipud), (5, np.transpose),
    (6, lambda a: np.rot90(a, -1)), (7, lambda a: np.rot90(a, 2).T), (8, lambda a: np.rot90(a, 1)),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_put_upright(kind: str, orientation: int, back: Callable[[np.ndarray], np.ndarray]) -> None:
    """Against numpy's own turns, so that a picture of a scanner held sideways is the picture."""
    quarter = np.zeros((8, 8), np.uint8)
    quarter[:4, :4], quarter[:4, 4:] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(quarter), kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    assert np.abs(one(data)[..., 0].astype(int) - back(quarter)).max() <= 2


def test_transparency_is_put_on_white() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, 4:, 3] = 255
    found = one(encoded(Image.fromarray(pixels)), RGB)
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == 0).all()


def test_half_transparent_grey_is_half_white() -> None:
    layers = np.full((8, 8, 2), [0, 128], np.uint8)
    assert np.abs(one(encoded(Image.fromarray(layers, "LA"))).astype(int) - 127).max() <= 1


def test_palette_and_its_transparent_colour_are_looked_up() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(1, (0, 0, 4, 8))
    found = one(encoded(image), RGB)
    assert (found[0, 0].tolist(), found[0, 7].tolist()) == ([40, 50, 60], [10, 20, 30])
    found = one(encoded(image, transparency=0), RGB)
    assert found[0, 7].tolist() == [255, 255, 255]


def test_one_bit_is_black_or_white() -> None:
    found = one(encoded(Image.fromarray(np.eye(8, dtype=bool))))
    assert np.array_equal(found[..., 0], np.eye(8) * 255)


def test_grey_and_colour_are_converted_as_pillow_does() -> None:
    grey = Image.fromarray(forge.image(3)[..., 0])
    assert np.array_equal(one(encoded(grey), RGB), np.repeat(forge.image(3), 3, axis=2))
    red = one(encoded(Image.new("RGB", (8, 8), (255, 0, 0))))
    assert np.unique(red).tolist() == [76]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_channel_are_refused(colour: int, channels: int) -> None:
    """In colour too, where Pillow would quietly keep the high byte."""
    rows = (b"\0" + b"\x12\x34" * 8 * channels) * 8
    refuses(raw_png(8, 8, 16, colour, rows), "pixel mode|16 bits", RGB)
    eight = (b"\0" + b"\x12" * 8 * channels) * 8
    assert one(raw_png(8, 8, 8, colour, eight), RGB).shape == (8, 8, 3)


def test_cmyk_is_refused() -> None:
    refuses(encoded(Image.new("CMYK", (8, 8)), "JPEG"), "pixel mode is not one of 1, L, LA")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "PDF"])
def test_other_formats_are_refused(kind: str) -> None:
    try:
        data = encoded(Image.new("RGB", (8, 8)), kind)
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow here does not write {kind}: {error}")
    refuses(data, "not a whole PNG or JPEG image")


JPEG = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)))


@pytest.mark.parametrize("at", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("data", [JPEG, PNG], ids=["jpeg", "png"])
def test_truncated_image_is_refused(data: bytes, at: float) -> None:
    """Half a radiograph with a grey rest would look like one."""
    refuses(data[: int(len(data) * at)], "not a whole")


@pytest.mark.parametrize("data", [b"", b"\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"<svg/>", bytes(1000)])
def test_other_bytes_are_refused(data: bytes) -> None:
    refuses(data, "not a whole")


@given(st.integers(0, len(PNG) - 1), st.integers(1, 255), st.sampled_from([PNG, JPEG]))
def test_a_damaged_image_decodes_or_is_the_callers_fault(at: int, by: int, data: bytes) -> None:
    changed = bytearray(data)
    changed[at % len(data)] ^= by
    with suppress(InvalidInput):
        assert one(bytes(changed), RGB).shape == (8, 8, 3)


def test_header_that_promises_too_many_pixels_is_refused_without_making_room() -> None:
    """50,000 × 50,000 in a file of 70 bytes."""
    tracemalloc.start()
    try:
        for side in (1001, 50_000):
            refuses(raw_png(side, side, 8, 0), "has more than 1000000 pixels")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_limits_of_bytes_and_pixels_are_inclusive() -> None:
    data = forge.png(forge.image(1))
    exact = image(GREY, bytes_max=len(data), pixels_max=64)
    assert one(data, exact).shape == (8, 8, 1)
    refuses(data, f"has more than {len(data) - 1} bytes", image(exact, bytes_max=len(data) - 1))
    refuses(data, "has more than 63 pixels", image(exact, pixels_max=63))


def test_the_message_names_the_image_that_is_wrong() -> None:
    with pytest.raises(InvalidInput, match=r"^Image 2: "):
        inputs.decode(GREY, [forge.png(forge.image(1)), forge.png(forge.image(2)), b""])


def bands() -> Image.Image:
    """24 × 8: black, white, black."""
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 255
    return Image.fromarray(pixels)


def test_crop_keeps_the_centre_and_stretch_keeps_everything() -> None:
    assert (one(encoded(bands()), image(GREY, resize="crop")) == 255).all()
    stretched = one(encoded(bands()))[4, :, 0]
    assert (stretched[0], stretched[-1]) == (0, 0)
    assert stretched.max() > 200


def test_stretch_is_pillows_antialiased_bilinear() -> None:
    big = Image.fromarray(np.random.default_rng(2).integers(0, 256, (50, 31), np.uint8))
    expected = np.asarray(big.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(one(encoded(big))[..., 0], expected)


def test_height_and_width_are_not_confused() -> None:
    assert inputs.decode(replace(GREY, shape=(5, 9, 1)), [encoded(bands())]).shape == (1, 5, 9, 1)


def raw(data: bytes | memoryview, *shape: int, datatype: str = "UINT8") -> Raw:
    return Raw(datatype, shape, data)


def test_raw_pixels_are_viewed_without_a_copy() -> None:
    buffer = bytearray(3 * 64)
    rows = inputs.read(GREY, raw(memoryview(buffer), 3, 8, 8, 1))
    buffer[64] = 200
    assert (rows.shape, rows[1, 0, 0, 0]) == ((3, 8, 8, 1), 200)


@pytest.mark.parametrize(
    "shape", [[], [3], [3, 8, 8], [3, 64], [3, 8, 8, 3], [3, 1, 8, 8], [-3, 8, 8, 1], [3, 8, 8, 1, 1], [3, -8, -8, 1]]
)
def test_raw_pixels_of_another_shape_are_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidInput, match=r"must have the shape \[rows, 8, 8, 1\]"):
        inputs.read(GREY, raw(bytes(192), *shape))


@pytest.mark.parametrize("size", [0, 191, 193, 64])
def test_raw_pixels_must_be_as_many_as_their_shape_says(size: int) -> None:
    with pytest.raises(InvalidInput, match="not as many"):
        inputs.read(GREY, raw(bytes(size), 3, 8, 8, 1))


def test_pixels_may_come_as_floats_and_normalised_ones_are_refused() -> None:
    """The third form of an image: what a client's library makes of it, as long as nobody has scaled it yet."""
    pixels = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    found = inputs.read(GREY, raw(pixels.tobytes(), 1, 8, 8, 1, datatype="FP32"))
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)
    for wrong in (pixels / 255, pixels + 0.5, pixels * 10, pixels - 1, pixels * np.nan, pixels + np.inf):
        with pytest.raises(InvalidInput, match="whole pixels"):
            inputs.read(GREY, raw(wrong.astype(np.float32).tobytes(), 1, 8, 8, 1, datatype="FP32"))


@pytest.mark.parametrize("datatype", sorted(inputs.DTYPES))
def test_a_tensor_of_any_datatype_is_read_as_it_is(datatype: str) -> None:
    spec = InputSpec("x", datatype, (2, 3), None)
    wanted = np.arange(12).reshape(2, 2, 3).astype(inputs.DTYPES[datatype])
    assert spec.row_bytes == 6 * wanted.itemsize
    found = inputs.read(spec, raw(wanted.tobytes(), 2, 2, 3, datatype=datatype))
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)
    other = "INT8" if datatype != "INT8" else "UINT8"
    with pytest.raises(InvalidInput, match=f"has the datatype {datatype}"):
        inputs.read(spec, raw(wanted.tobytes(), 2, 2, 3, datatype=other))
    with pytest.raises(InvalidInput, match="takes no images"):
        inputs.read(spec, Encoded([forge.png(forge.image(1))]))


def test_a_boolean_that_is_neither_is_refused() -> None:
    with pytest.raises(InvalidInput, match="neither 0 nor 1"):
        inputs.read(InputSpec("x", "BOOL", (2,), None), raw(b"\x01\x02", 1, 2, datatype="BOOL"))


def jpeg(pixels: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_draft_is_near_the_full_image_and_never_smaller_than_the_input(orientation: int) -> None:
    """Decoding at an eighth of the size is another recipe: near, and not the same."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)).resize((640, 400), 1)
    spec = InputSpec("image", "UINT8", (48, 32, 3), ImageSpec("stretch", "full", 1_000_000, 1 << 20))
    full, draft = (one(jpeg(big, exif=exif), s).astype(int) for s in (spec, image(spec, decode="draft")))
    assert full.shape == draft.shape
    assert 0 < np.abs(full - draft).mean() < 4
    assert np.array_equal(one(encoded(big), spec), one(encoded(big), image(spec, decode="draft")))  # of a PNG there is none
