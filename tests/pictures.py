"""Pictures for tests, and what a model must be given of them, by a plain reading of torchvision's rules."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server import tensors
from server.pictures.preprocessing import Color, ImagePreprocessing, Interpolation

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

ONE_STEP = 1.01 / 255 / min(STD)
"""Of 8 bits, normalized: resizing and cropping at once may round otherwise than one after the other."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How every PNG begins."""


def preprocessing(**changes: Any) -> ImagePreprocessing:
    """ImageNet's, for a small model; `changes` are fields."""
    fields: dict[str, Any] = {
        "input": "x",
        "datatype": tensors.FP32,
        "height": 28,
        "width": 28,
        "resize": 32,
        "color": Color.RGB,
        "channels_first": True,
        "interpolation": Interpolation.BILINEAR,
        "scale": 1 / 255,
        "mean": MEAN,
        "std": STD,
        "max_pixels": 25_000_000,
        "jpeg_draft": False,
    }
    return ImagePreprocessing(**(fields | changes))


def photo(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture with large shapes and some noise, different for every seed."""
    random = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    shapes = random.integers(0, 256, (4, 5, channels), dtype=np.uint8)
    bands = [
        Image.fromarray(shapes[:, :, i]).resize((width, height), Image.Resampling.BICUBIC) for i in range(channels)
    ]
    noise = random.integers(-8, 9, (channels, height, width))
    arrays = [
        (np.asarray(band).astype(np.int16) + rough).clip(0, 255).astype(np.uint8)
        for band, rough in zip(bands, noise, strict=True)
    ]
    return Image.merge(mode, [Image.fromarray(array) for array in arrays])


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reference(image: Image.Image, wanted: ImagePreprocessing) -> NDArray[np.float32]:
    """Convert, resize, crop, scale, normalize, lay out: one after the other, as training code does it."""
    image = image.convert("L" if wanted.color is Color.GRAY else "RGB")
    if isinstance(wanted.resize, tuple):
        height, width = wanted.resize
    elif image.width <= image.height:
        height, width = int(wanted.resize * image.height / image.width), wanted.resize
    else:
        height, width = wanted.resize, int(wanted.resize * image.width / image.height)
    image = image.resize((width, height), Image.Resampling[wanted.interpolation.name])
    left, top = round((width - wanted.width) / 2), round((height - wanted.height) / 2)
    image = image.crop((left, top, left + wanted.width, top + wanted.height))
    pixels = np.asarray(image, np.float64).reshape(wanted.height, wanted.width, -1)
    if wanted.color is Color.BGR:
        pixels = pixels[:, :, ::-1]
    values = (pixels * wanted.scale - wanted.mean) / wanted.std
    return (values.transpose(2, 0, 1) if wanted.channels_first else values).astype(np.float32)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and has no pixels."""
    return PNG + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + _chunk(b"IDAT")


def png_bomb(side: int) -> bytes:
    """A whole PNG of side × side black pixels: a thousandth of what it takes decoded."""
    rows = zlib.compress(bytes((1 + side // 8) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND")


def png_with_text(png: bytes, chunks: int, size: int) -> bytes:
    """A PNG with compressed text of so many bytes in each of so many chunks, right behind its header."""
    text = _chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(size), 9))
    return png[:33] + text * chunks + png[33:]


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
