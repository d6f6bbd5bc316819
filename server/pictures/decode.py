"""One picture, from a file or from pixels of any size to what a model reads, still 8 bits a value. Needs Pillow.

Callers run it on threads: Pillow releases the interpreter lock while it decodes and resizes.

Memory is bounded before it is taken: a picture's size is known from its header. Decoded it has 4 bytes a pixel; a
progressive JPEG takes 6 to 8 more until then, and turning or converting it 4 more after that.
"""

from __future__ import annotations

import io
import warnings
from math import ceil

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from server.pictures.pixels import Pixels
from server.pictures.preprocessing import (
    CHANNEL_COUNTS,
    Color,
    ImageInvalid,
    ImagePreprocessing,
    Interpolation,
    Window,
)
from server.tensors import Array, Buffer

FORMATS = ("JPEG", "PNG")

MAX_JPEG_SCANS = 500
"""Each scan of a progressive JPEG may change every pixel and may be a few bytes long: time is bounded by their number.
Files in the wild have about ten; libjpeg-turbo's own fuzzers stop at 500."""

DRAFT_FACTOR = 2
"""A draft is at least so many times as large as what it is resized to, which hides how it was made."""

ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture upright, by its EXIF orientation; 1 is upright."""

_RESAMPLING = {how: Image.Resampling[how.name] for how in Interpolation}

# Process-wide, as Pillow has them. Its own bound on pixels warns where `max_pixels` refuses; compressed text in a PNG
# may not take 64 MiB before a pixel is seen; and what it warns of is in the pictures of strangers, not here.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_MEMORY = 4 << 20
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: Buffer | Array, preprocessing: ImagePreprocessing) -> Pixels:
    """A JPEG or PNG file, or pixels (height, width, 1, 3 or 4 channels) uint8, as the model's input without its
    normalization. Raises `ImageInvalid`, and `MemoryError`.
    """
    try:
        image = _from_pixels(data) if isinstance(data, np.ndarray) else _from_file(data, preprocessing)
        _check_size(image, preprocessing)
        image = _in_color(image, preprocessing.color)
        return _in_layout(_resized(image, preprocessing), preprocessing)
    except (ImageInvalid, MemoryError):
        raise
    except Exception as error:  # Pillow raises half a dozen kinds for files that are not as they should be
        raise ImageInvalid(f"cannot be decoded: {error}") from error


def _from_pixels(pixels: Array) -> Image.Image:
    assert pixels.ndim == 3 and pixels.shape[2] in CHANNEL_COUNTS, "admission sees to it"
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _from_file(data: Buffer, preprocessing: ImagePreprocessing) -> Image.Image:
    """Decoded, and upright."""
    file = bytes(data)  # a view is copied once; a BytesIO shares what is bytes
    try:
        image = Image.open(io.BytesIO(file), formats=FORMATS)  # reads the header
    except UnidentifiedImageError:
        raise ImageInvalid("is neither a JPEG nor a PNG file, or its header is broken") from None
    if image.width * image.height > preprocessing.max_pixels:
        raise ImageInvalid(
            f"has {image.width}×{image.height} pixels; this model takes {preprocessing.max_pixels} (image.max_pixels)"
        )
    orientation = _orientation(image)
    if image.format != "PNG":
        scans = file.count(b"\xff\xda")  # start of scan: within a scan no 0xff goes before anything but markers
        if scans > MAX_JPEG_SCANS:
            raise ImageInvalid(f"has {scans} scans; more than {MAX_JPEG_SCANS} are not decoded")
        if preprocessing.jpeg_draft:
            _draft(image, preprocessing, turned=orientation >= 5)
    image.load()
    turn = UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 -- what a camera has written beside a picture does not make it worse
        return 1
    return value if isinstance(value, int) else 1


def _draft(image: Image.Image, preprocessing: ImagePreprocessing, *, turned: bool) -> None:
    """Let the JPEG decoder leave detail out that would be averaged away."""
    height, width = (image.width, image.height) if turned else image.size[::-1]
    rows, columns = preprocessing.resized(height, width)
    if turned:
        rows, columns = columns, rows
    image.draft(None, (columns * DRAFT_FACTOR, rows * DRAFT_FACTOR))


def _check_size(image: Image.Image, preprocessing: ImagePreprocessing) -> None:
    """Refuse what resizing would blow up: it does one direction after the other, and a picture may be very thin."""
    window = preprocessing.window(image.height, image.width)
    wide = preprocessing.height * ceil(window.right - window.left)
    high = preprocessing.width * ceil(window.bottom - window.top)
    if max(wide, high) > max(preprocessing.max_pixels, preprocessing.width * preprocessing.height):
        raise ImageInvalid(
            f"has {image.width}×{image.height} pixels, which is too thin: on its way to {preprocessing.width}×"
            f"{preprocessing.height} it would have more than {preprocessing.max_pixels} pixels (image.max_pixels)"
        )


def _in_color(image: Image.Image, color: Color) -> Image.Image:
    """As Pillow converts, and with it most training code: alpha is dropped, grey is Rec. 601 luma."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would clip at 255
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    mode = "L" if color is Color.GRAY else "RGB"
    return image if image.mode == mode else image.convert(mode)  # convert always copies


def _resized(image: Image.Image, preprocessing: ImagePreprocessing) -> Image.Image:
    """Resized and cropped in one step: nothing is made that the crop would cut off."""
    size = (preprocessing.width, preprocessing.height)
    window = preprocessing.window(image.height, image.width)
    if image.size == size and window == Window(0, 0, *size):
        return image
    return image.resize(size, _RESAMPLING[preprocessing.interpolation], box=window)


def _in_layout(image: Image.Image, preprocessing: ImagePreprocessing) -> Pixels:
    pixels: Pixels = np.asarray(image)
    if preprocessing.color is Color.GRAY:
        return pixels.reshape(preprocessing.shape)
    if preprocessing.color is Color.BGR:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if preprocessing.channels_first else pixels)
