"""One picture, from a file or pixels to what a model reads: the same numbers as torchvision's steps one by one."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from server import tensors
from server.pictures.decode import MAX_JPEG_SCANS, ORIENTATION, UPRIGHT, decode
from server.pictures.pixels import Normalization, PictureRows
from server.pictures.preprocessing import Color, ImageInvalid, ImagePreprocessing, Interpolation
from server.tensors import Array
from tests.pictures import PNG, encoded, photo, png_header, png_with_text, preprocessing, reference

ONE_STEP = 1.01
"""Of 8 bits: resizing and cropping at once may round otherwise than one after the other."""

PLAIN: dict[str, Any] = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
GRAY: dict[str, Any] = {"color": Color.GRAY, "scale": 1.0, "mean": (0.0,), "std": (1.0,)}


def model_input(data: bytes | Array, wanted: ImagePreprocessing) -> Array:
    """What the model is given of a picture."""
    rows = np.empty((1, *wanted.shape), wanted.datatype.dtype)
    PictureRows([decode(data, wanted)], Normalization(wanted)).write_into(rows)
    return rows[0]


def refusal(data: bytes, **changes: Any) -> str:
    with pytest.raises(ImageInvalid) as caught:
        decode(data, preprocessing(**changes))
    return str(caught.value)


@pytest.mark.parametrize("size", [(50, 37), (37, 50), (500, 375), (31, 640), (20, 20), (28, 28), (1, 1)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels_first": False},
        {"color": Color.BGR},
        {"resize": (28, 28)},
        {"resize": (40, 30)},
        {"height": 20, "resize": (31, 28), "channels_first": False, "color": Color.BGR},
    ],
    ids=str,
)
def test_a_picture_is_what_the_steps_one_by_one_make_of_it(size: tuple[int, int], changes: dict[str, Any]) -> None:
    image, wanted = photo(*size), preprocessing(**PLAIN, **changes)

    np.testing.assert_allclose(model_input(encoded(image), wanted), reference(image, wanted), rtol=0, atol=ONE_STEP)


@pytest.mark.parametrize("interpolation", [Interpolation.BICUBIC, Interpolation.LANCZOS])
def test_other_interpolations_are_pillows(interpolation: Interpolation) -> None:
    image, wanted = photo(120, 90), preprocessing(**PLAIN, interpolation=interpolation)

    np.testing.assert_allclose(model_input(encoded(image), wanted), reference(image, wanted), rtol=0, atol=ONE_STEP)


def test_nearest_takes_pixels_as_they_are() -> None:
    image, wanted = photo(129, 97), preprocessing(**PLAIN, interpolation=Interpolation.NEAREST)  # no two equally near

    np.testing.assert_array_equal(model_input(encoded(image), wanted), reference(image, wanted))


@pytest.mark.parametrize("channels_first", [True, False])
def test_normalization_is_exact_to_a_millionth(channels_first: bool) -> None:
    image, wanted = photo(28, 28), preprocessing(resize=(28, 28), channels_first=channels_first)

    np.testing.assert_allclose(model_input(encoded(image), wanted), reference(image, wanted), rtol=0, atol=1e-6)


def test_a_negative_scale_inverts() -> None:
    wanted = preprocessing(**GRAY | {"scale": -1 / 255, "mean": (-1.0,)})
    white = Image.new("L", (28, 28), 255)

    np.testing.assert_allclose(model_input(encoded(white), wanted), 0, atol=1e-6)


def test_a_half_precision_input_is_rounded_once() -> None:
    image, wanted = photo(28, 28), preprocessing(resize=(28, 28), datatype=tensors.FP16)

    expected = reference(image, wanted).astype(np.float16)
    np.testing.assert_allclose(model_input(encoded(image), wanted), expected, rtol=1e-3, atol=1e-3)


def test_an_input_of_8_bits_is_the_pixels() -> None:
    image = photo(28, 28)
    wanted = preprocessing(**PLAIN, resize=(28, 28), datatype=tensors.UINT8, channels_first=False)

    np.testing.assert_array_equal(model_input(encoded(image), wanted), np.asarray(image))


def test_a_jpeg_is_what_pillow_decodes() -> None:
    file, wanted = encoded(photo(500, 375), "JPEG", quality=90), preprocessing(**PLAIN)

    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_allclose(model_input(file, wanted), reference(image, wanted), rtol=0, atol=ONE_STEP)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("changes", [PLAIN, GRAY], ids=["colour", "grey"])
def test_pixels_are_treated_as_a_file_of_them(mode: str, changes: dict[str, Any]) -> None:
    image, wanted = photo(60, 40, mode), preprocessing(**changes)
    pixels = np.asarray(image).reshape(40, 60, -1)

    np.testing.assert_array_equal(model_input(pixels, wanted), model_input(encoded(image), wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_whatever_its_exif_orientation(orientation: int) -> None:
    upright, wanted = photo(60, 40), preprocessing(**PLAIN)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # all others undo themselves
    turn = undo.get(orientation, UPRIGHT.get(orientation))
    stored = upright if turn is None else upright.transpose(turn)

    np.testing.assert_array_equal(
        model_input(encoded(stored, exif=exif), wanted), model_input(encoded(upright), wanted)
    )


@pytest.mark.filterwarnings("ignore")  # Pillow warns
def test_broken_exif_leaves_a_picture_as_it_is() -> None:
    image, wanted = photo(60, 40), preprocessing(**PLAIN)
    broken = encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")

    np.testing.assert_array_equal(model_input(broken, wanted), model_input(encoded(image, "JPEG"), wanted))


def test_alpha_is_dropped() -> None:
    image, wanted = photo(60, 40, "RGBA"), preprocessing(**PLAIN)

    np.testing.assert_allclose(model_input(encoded(image), wanted), reference(image, wanted), rtol=0, atol=ONE_STEP)


def test_a_palette_is_its_colours() -> None:
    image = photo(60, 40).quantize(200)
    wanted = preprocessing(**PLAIN)

    for options in ({}, {"transparency": bytes(range(200))}):
        got = model_input(encoded(image, **options), wanted)
        np.testing.assert_allclose(got, reference(image, wanted), rtol=0, atol=ONE_STEP)


def test_black_and_white_is_grey() -> None:
    image, wanted = photo(60, 40, "L").convert("1"), preprocessing(**GRAY)

    np.testing.assert_allclose(model_input(encoded(image), wanted), reference(image, wanted), rtol=0, atol=ONE_STEP)


def test_16_bits_keep_the_upper_8() -> None:
    image, wanted = photo(60, 40, "L"), preprocessing(**GRAY)
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 256 + 255)

    np.testing.assert_array_equal(model_input(encoded(deep), wanted), model_input(encoded(image), wanted))


def test_cmyk_is_converted_plainly() -> None:
    file, wanted = encoded(photo(60, 40, "CMYK"), "JPEG"), preprocessing(**PLAIN)

    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_allclose(model_input(file, wanted), reference(image, wanted), rtol=0, atol=ONE_STEP)


def test_of_an_animation_the_first_picture_counts() -> None:
    first, wanted = photo(60, 40), preprocessing(**PLAIN)
    animation = encoded(first, save_all=True, append_images=[photo(60, 40, seed=1)])

    np.testing.assert_array_equal(model_input(animation, wanted), model_input(encoded(first), wanted))


def test_a_draft_is_near_and_only_taken_where_the_picture_is_large_enough() -> None:
    wanted, draft = preprocessing(**PLAIN), preprocessing(**PLAIN, jpeg_draft=True)
    for size, near in (((127, 127), 0), ((640, 480), 8)):
        file = encoded(photo(*size), "JPEG", quality=90)
        difference = np.abs(model_input(file, wanted) - model_input(file, draft))
        assert difference.max() <= near
        assert bool(difference.max()) == bool(near)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"no picture" * 50,
        PNG,
        encoded(photo(9, 9), "GIF"),
        encoded(photo(9, 9), "TIFF"),
    ],
)
def test_what_is_no_jpeg_and_no_png_is_refused(data: bytes) -> None:
    assert "neither a JPEG nor a PNG file" in refusal(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    file = encoded(photo(200, 200), kind)

    assert "cannot be decoded" in refusal(file[: len(file) // 2])


def test_a_png_with_a_damaged_header_is_refused() -> None:
    file = bytearray(encoded(photo(200, 200)))
    file[20] ^= 1  # the width; its checksum stays

    assert refusal(bytes(file))


def test_a_picture_that_claims_too_many_pixels_is_refused_by_its_header() -> None:
    assert refusal(png_header(100_000, 100_000)) == (
        "has 100000×100000 pixels; this model takes 25000000 (image.max_pixels)"
    )
    assert "has 33×30 pixels; this model takes 989" in refusal(encoded(photo(33, 30)), max_pixels=989)


@pytest.mark.parametrize("size", [(1, 90_000), (90_000, 1)])
def test_a_picture_that_resizing_would_blow_up_is_refused(size: tuple[int, int]) -> None:
    file = encoded(Image.new("RGB", size))

    assert "too thin" in refusal(file, resize=(28, 28), max_pixels=1_000_000)


@pytest.mark.parametrize("size", [(1, 90_000), (90_000, 1)])
def test_of_a_thin_picture_only_what_the_model_sees_is_made(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (7, 8, 9))

    pixels = decode(encoded(image), preprocessing(max_pixels=100_000))  # resized first, it would be 32 × 2,880,000

    assert pixels.reshape(3, -1).max(axis=1).tolist() == [7, 8, 9]


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    file = encoded(photo(64, 64), "JPEG", progressive=True)
    start = file.rindex(b"\xff\xda")
    scan = file[start:-2]

    assert decode(file, preprocessing()).shape == (3, 28, 28)
    assert f"more than {MAX_JPEG_SCANS} are not decoded" in refusal(file[:start] + scan * MAX_JPEG_SCANS + file[-2:])


def test_a_png_with_very_much_compressed_text_is_refused() -> None:
    image = photo(60, 40)

    assert decode(png_with_text(encoded(image), 1, 1000), preprocessing()).shape == (3, 28, 28)
    assert "cannot be decoded" in refusal(png_with_text(encoded(image), 10, 900_000))


SEEDS = (
    encoded(photo(40, 30), "JPEG"),
    encoded(photo(40, 30), "JPEG", progressive=True),
    encoded(photo(40, 30)),
    encoded(photo(40, 30).quantize(16), transparency=bytes(16)),
)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6))
def test_a_damaged_file_is_a_picture_or_a_refusal(file: bytes, damage: list[tuple[float, int]]) -> None:
    damaged = bytearray(file)
    for where, value in damage:
        damaged[int(where * len(file))] = value
    try:
        pixels = decode(bytes(damaged), preprocessing(max_pixels=100_000))
    except ImageInvalid:
        return
    assert (pixels.shape, pixels.dtype) == ((3, 28, 28), np.uint8)
