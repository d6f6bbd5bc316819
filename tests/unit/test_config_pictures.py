"""The image.* parameters: what is read, and what is refused by name."""

from __future__ import annotations

import pytest

from server import tensors
from server.models.config import ModelConfig
from server.models.config_pictures import DEFAULT_MAX_PIXELS
from server.pictures.preprocessing import Color, ImagePreprocessing, Interpolation
from tests.unit.test_config import configure, refusal

IMAGE = 'name: "image" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ]'
IMAGENET = {
    "resize": "256",
    "center_crop": "224",
    "scale": "1/255",
    "mean": "0.485,0.456,0.406",
    "std": "0.229, 0.224, 0.225",
}


def text(parameters: dict[str, str], image: str = IMAGE) -> str:
    lines = [f'parameters {{ key: "image.{key}" value {{ string_value: "{v}" }} }}' for key, v in parameters.items()]
    output = 'output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }'
    return "\n".join([f"max_batch_size: 8 input {{ {image} }} {output}", *lines])


def read(parameters: dict[str, str], image: str = IMAGE) -> ImagePreprocessing:
    preprocessing = configure(text(parameters, image)).preprocessing
    assert preprocessing is not None
    return preprocessing


def test_what_imagenets_networks_need_is_read() -> None:
    assert read(IMAGENET) == ImagePreprocessing(
        input="image",
        datatype=tensors.FP32,
        height=224,
        width=224,
        resize=256,
        color=Color.RGB,
        channels_first=True,
        interpolation=Interpolation.BILINEAR,
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        max_pixels=DEFAULT_MAX_PIXELS,
        jpeg_draft=False,
    )


def test_everything_else_is_read() -> None:
    image = 'name: "image" data_type: TYPE_FP16 format: FORMAT_NHWC dims: [ 30, -1, 3 ]'
    more = {"resize": "40x50", "center_crop": "30x48", "color": "BGR", "interpolation": "bicubic", "max_pixels": "1000"}
    got = read(more | {"jpeg_draft": "true", "mean": "-1", "std": "2", "scale": "0.5"}, image)

    assert (got.height, got.width, got.resize, got.shape) == (30, 48, (40, 50), (30, 48, 3))
    assert (got.color, got.interpolation, got.max_pixels, got.jpeg_draft) == ("BGR", "bicubic", 1000, True)
    assert (got.mean, got.std, got.scale, got.datatype) == ((-1.0,) * 3, (2.0,) * 3, 0.5, tensors.FP16)


def test_one_channel_is_gray_and_an_exact_size_needs_no_crop() -> None:
    got = read({"resize": "32x24"}, 'name: "x" data_type: TYPE_UINT8 format: FORMAT_NCHW dims: [ 1, 32, 24 ]')

    assert (got.color, got.shape, got.scale, got.mean, got.std) == (Color.GRAY, (1, 32, 24), 1.0, (0.0,), (1.0,))


def test_a_model_without_parameters_takes_no_pictures() -> None:
    config: ModelConfig = configure(text({}))

    assert config.preprocessing is None


REFUSALS: dict[str, tuple[dict[str, str], str, str]] = {
    "an unknown key": ({"image.sharpen": "1"}, "image.sharpen", "is not supported by this server"),
    "no resize": ({"image.center_crop": "224"}, "image.center_crop", "needs image.resize"),
    "no crop": (
        {"image.resize": "256"},
        "image.resize",
        "set it, or give both sides: 256x256",
    ),
    "no size": ({"image.resize": "0"}, "image.resize", "must be a number of pixels or HEIGHTxWIDTH"),
    "three sizes": ({"image.resize": "1x2x3"}, "image.resize", "not '1x2x3'"),
    "a giant size": ({"image.resize": "99999x2"}, "image.resize", "at most 16384"),
    "a crop larger than the rest": ({"image.center_crop": "300"}, "image.center_crop", "must not be larger than"),
    "no such colour": ({"image.color": "CMYK"}, "image.color", "must be one of RGB, BGR, GRAY, not 'CMYK'"),
    "no such interpolation": ({"image.interpolation": "magic"}, "image.interpolation", "not 'magic'"),
    "two means": ({"image.mean": "0,0"}, "image.mean", "must be 1 or 3 numbers with commas, not 2"),
    "no number": ({"image.mean": "a"}, "image.mean", "must be a number like 0.5 or 1/255, not 'a'"),
    "not finite": ({"image.scale": "nan"}, "image.scale", "must be a number"),
    "division by zero": ({"image.scale": "1/0"}, "image.scale", "must be a number"),
    "no scale": ({"image.scale": "0"}, "image.scale", "must not be 0"),
    "no deviation": ({"image.std": "1,0,1"}, "image.std", "must not be 0"),
    "no pixels": ({"image.max_pixels": "0"}, "image.max_pixels", "must be an integer of at least 1"),
    "no switch": ({"image.jpeg_draft": "yes"}, "image.jpeg_draft", "must be true or false, not 'yes'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_is_refused_by_name(case: str) -> None:
    changes, key, problem = REFUSALS[case]
    base = {"resize": "256", "center_crop": "224"} if case not in ("no resize", "no crop") else {}
    message = refusal(text(base | {name.removeprefix("image."): value for name, value in changes.items()}))

    assert message.startswith(f"m/config.pbtxt: field 'parameters['{key}']'"), message
    assert problem in message


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (IMAGE.replace("format: FORMAT_NCHW", ""), "needs one input with format FORMAT_NCHW or FORMAT_NHWC, and 0"),
        (IMAGE.replace("FP32", "INT64"), "is for inputs of TYPE_FP32, TYPE_FP16 or TYPE_UINT8; 'image' is INT64"),
        (IMAGE.replace("224 ]", "225 ]"), "input['image'].dims' has 225 where the image.* parameters make width 224"),
        (IMAGE.replace("[ 3", "[ 1"), "has 224"),
        (IMAGE.replace("[ 3", "[ 4"), "has 4 where the image.* parameters make 3 channels (RGB)"),
        (IMAGE.replace("NCHW", "NHWC"), "has 224 where the image.* parameters make 3 channels (RGB)"),
        (IMAGE.replace("FP32", "UINT8"), "image.scale']' cannot go with input 'image', which is UINT8; remove it"),
    ],
)
def test_an_input_that_pictures_cannot_become_is_refused(image: str, problem: str) -> None:
    parameters = IMAGENET if "[ 1" not in image else {"resize": "256", "center_crop": "200"}

    assert problem in refusal(text(parameters, image))
