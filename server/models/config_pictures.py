"""The `image.*` parameters of config.pbtxt. A part of `config`, for its length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from math import isfinite
from typing import TypeVar

from proto import model_config_pb2 as pb
from server.models.config_fields import FieldInvalid
from server.models.config_types import TensorConfig
from server.pictures.preprocessing import Color, ImagePreprocessing, Interpolation
from server.tensors import FP16, FP32, UINT8

E = TypeVar("E", bound=StrEnum)

PREFIX = "image."
RESIZE = "image.resize"

DEFAULT_MAX_PIXELS = 25_000_000
"""More than most cameras take; some 100 MB while it is decoded."""

MAX_SIDE = 16_384
"""A model that reads larger pictures cannot be meant."""

_SIZE = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")
_FRACTION = re.compile(r"([^/]+)/([^/]+)")


def read_preprocessing(
    message: pb.ModelConfig, inputs: tuple[TensorConfig, ...], parameters: Mapping[str, str]
) -> ImagePreprocessing | None:
    """How the model takes pictures; None where it takes none. Raises FieldInvalid."""
    given = sorted(key for key in parameters if key.startswith(PREFIX))
    if not given:
        return None
    if RESIZE not in parameters:
        raise FieldInvalid(_field(given[0]), f"needs {RESIZE}; set it, or remove")
    tensor, channels_first = _image_input(message, inputs)
    channels, height, width = tensor.dims if channels_first else (tensor.dims[2], *tensor.dims[:2])
    color = _choice(parameters, "image.color", Color, Color.GRAY if channels == 1 else Color.RGB)
    resize = _size(parameters, RESIZE)
    final = _final_size(parameters, resize)
    for dim, want, what in (
        (channels, color.channels, f"{color.channels} channels ({color})"),
        (height, final[0], f"height {final[0]}"),
        (width, final[1], f"width {final[1]}"),
    ):
        if dim not in (-1, want):
            raise FieldInvalid(f"input['{tensor.name}'].dims", f"has {dim} where the image.* parameters make {what}")
    for key in ("image.scale", "image.mean", "image.std"):
        if tensor.datatype is UINT8 and key in parameters:
            raise FieldInvalid(_field(key), f"cannot go with input '{tensor.name}', which is UINT8; remove it")
    scale = _number(_field("image.scale"), parameters.get("image.scale", "1"))
    if scale == 0:
        raise FieldInvalid(_field("image.scale"), "must not be 0")
    std = _per_channel(parameters, "image.std", "1", color)
    if 0 in std:
        raise FieldInvalid(_field("image.std"), "must not be 0")
    return ImagePreprocessing(
        input=tensor.name,
        datatype=tensor.datatype,
        height=final[0],
        width=final[1],
        resize=resize,
        color=color,
        channels_first=channels_first,
        interpolation=_choice(parameters, "image.interpolation", Interpolation, Interpolation.BILINEAR),
        scale=scale,
        mean=_per_channel(parameters, "image.mean", "0", color),
        std=std,
        max_pixels=_max_pixels(parameters),
        jpeg_draft=parameters.get("image.jpeg_draft") == "true",
    )


def _image_input(message: pb.ModelConfig, inputs: tuple[TensorConfig, ...]) -> tuple[TensorConfig, bool]:
    """The input that has a format, and whether channels come first in it."""
    field = _field(RESIZE)
    formats = {tensor.name: tensor.format for tensor in message.input if tensor.format != pb.ModelInput.FORMAT_NONE}
    if len(formats) != 1:
        raise FieldInvalid(
            field, f"needs one input with format FORMAT_NCHW or FORMAT_NHWC, and {len(formats)} of them have a format"
        )
    ((name, layout),) = formats.items()
    tensor = next(tensor for tensor in inputs if tensor.name == name)
    if tensor.datatype not in (FP32, FP16, UINT8):
        raise FieldInvalid(
            field, f"is for inputs of TYPE_FP32, TYPE_FP16 or TYPE_UINT8; '{name}' is {tensor.datatype.name}"
        )
    return tensor, layout == pb.ModelInput.FORMAT_NCHW


def _final_size(parameters: Mapping[str, str], resize: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width after resizing and cropping."""
    key = "image.center_crop"
    if key not in parameters:
        if isinstance(resize, int):
            raise FieldInvalid(
                _field(RESIZE), f"is the shorter side, which needs {key}; set it, or give both sides: {resize}x{resize}"
            )
        return resize
    crop = _size(parameters, key)
    final = (crop, crop) if isinstance(crop, int) else crop
    height, width = (resize, resize) if isinstance(resize, int) else resize
    if final[0] > height or final[1] > width:
        raise FieldInvalid(_field(key), f"must not be larger than {RESIZE}, which is {parameters[RESIZE]}")
    return final


def _size(parameters: Mapping[str, str], key: str) -> int | tuple[int, int]:
    match = _SIZE.fullmatch(parameters[key])
    if match is None or any(int(side) > MAX_SIDE for side in match.groups() if side):
        raise FieldInvalid(
            _field(key), f"must be a number of pixels or HEIGHTxWIDTH, at most {MAX_SIDE}, not '{parameters[key]}'"
        )
    height, width = match.groups()
    return int(height) if width is None else (int(height), int(width))


def _choice(parameters: Mapping[str, str], key: str, kind: type[E], default: E) -> E:
    try:
        return kind(parameters.get(key, default))
    except ValueError:
        raise FieldInvalid(_field(key), f"must be one of {', '.join(kind)}, not '{parameters[key]}'") from None


def _per_channel(parameters: Mapping[str, str], key: str, default: str, color: Color) -> tuple[float, ...]:
    """One number for each channel; a single one is for all."""
    numbers = [_number(_field(key), text) for text in parameters.get(key, default).split(",")]
    if len(numbers) == 1:
        numbers *= color.channels
    if len(numbers) != color.channels:
        raise FieldInvalid(_field(key), f"must be 1 or {color.channels} numbers with commas, not {len(numbers)}")
    return tuple(numbers)


def _number(field: str, text: str) -> float:
    """A decimal number, or a fraction of two."""
    fraction = _FRACTION.fullmatch(text)
    try:
        value = float(fraction[1]) / float(fraction[2]) if fraction else float(text)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not isfinite(value):
        raise FieldInvalid(field, f"must be a number like 0.5 or 1/255, not '{text}'")
    return value


def _max_pixels(parameters: Mapping[str, str]) -> int:
    text = parameters.get("image.max_pixels", str(DEFAULT_MAX_PIXELS))
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise FieldInvalid(_field("image.max_pixels"), f"must be an integer of at least 1, not '{text}'")
    return int(text)


def _field(key: str) -> str:
    return f"parameters['{key}']"
