"""Letters A to Z rendered from the fonts that matplotlib ships, distorted, blurred and noisy. Held out: whole families.

A font takes part if it has 26 different glyphs at the codes of A to Z, and no symbols there. A family is one design in
its weights and slants; what the held-out families look like, training never sees. The pictures are a function of
`SEED`, of the fonts, and of the versions of FreeType and torch.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from training.augmentations import Affine
from training.data.augment import distort
from training.data.sets import INK, Data, to_data
from training.files import TrainingError

NAMES = tuple(string.ascii_uppercase)
SIDE = 28
SEED = 0
SEEN_PER_GLYPH = 40
HELD_OUT_PER_GLYPH = 20

# A sans serif of fixed width, a Times, and the sans serif of Computer Modern: of 22 fonts, 9.
HELD_OUT_FAMILIES = ("DejaVu Sans Mono", "STIXGeneral", "cmss10")
# Encoded as A to Z, but these are TeX's brackets, arrows and script capitals.
SYMBOLS = ("cmex10", "cmsy10")

OVERSAMPLING = 2  # glyphs are drawn and distorted at twice the size: each pixel is the mean of four
CAPITAL_HEIGHT = 18  # of 28 pixels, before distortion
WIDEST = 26  # a W of a bold font would be wider than its picture: it is drawn smaller
DISTORTION = Affine(rotation=10, scale=0.15, shift=2 * OVERSAMPLING, shear=0.15)
BLUR = 0.9  # the greatest standard deviation, pixels
NOISE = 0.08  # the greatest standard deviation, of a scale where ink is 1
REACH = 3  # pixels to each side that a blur looks at


@dataclass(frozen=True, slots=True)
class Font:
    """One file: a family in one weight and slant."""

    path: Path
    family: str

    @property
    def held_out(self) -> bool:
        """Whether training never sees it."""
        return self.family in HELD_OUT_FAMILIES


def load_letters() -> Data:
    """13 fonts to learn from and 9 held out, 40 and 20 pictures of each letter in each, (N, 1, 28, 28)."""
    import matplotlib as mpl

    fonts = find_fonts(Path(mpl.get_data_path()) / "fonts" / "ttf")
    seen = render([font for font in fonts if not font.held_out], SEEN_PER_GLYPH, SEED)
    held_out = render([font for font in fonts if font.held_out], HELD_OUT_PER_GLYPH, SEED + 1)
    return to_data(seen, held_out, NAMES, INK)


def find_fonts(folder: Path) -> list[Font]:
    """The folder's TrueType fonts that draw 26 different letters, by file name. Both sides get at least one."""
    fonts = []
    for path in sorted(folder.glob("*.ttf")):
        family = str(ImageFont.truetype(path, 1).getname()[0])
        if family not in SYMBOLS and len({glyph.tobytes() for glyph in draw(path)}) == len(NAMES):
            fonts.append(Font(path, family))
    if len({font.held_out for font in fonts}) < 2:
        raise TrainingError(
            f"{folder}: fonts to learn from and fonts of {', '.join(HELD_OUT_FAMILIES)} are expected, as matplotlib "
            f"ships them; there are {', '.join(font.path.name for font in fonts) or 'none'}. Install matplotlib anew."
        )
    return fonts


def render(fonts: list[Font], per_glyph: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`per_glyph` pictures of each letter in each font: images (N, 1, 28, 28), ink 255; labels (N,), 0 to 25."""
    generator = torch.Generator().manual_seed(seed)
    images = [worn(torch.from_numpy(draw(font.path)).repeat_interleave(per_glyph, 0), generator) for font in fonts]
    labels = np.tile(np.arange(len(NAMES), dtype=np.uint8).repeat(per_glyph), len(fonts))
    return np.concatenate(images), labels


def draw(path: Path) -> NDArray[np.float32]:
    """Each letter in the middle of its picture, 36 pixels high, less if it is very wide: (26, 1, 56, 56), ink 1."""
    side = SIDE * OVERSAMPLING
    em = 100
    _, top, _, bottom = ImageFont.truetype(path, em, layout_engine=ImageFont.Layout.BASIC).getbbox("H")
    size = em * CAPITAL_HEIGHT * OVERSAMPLING / max(1, bottom - top)
    usual = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    pictures = np.zeros((len(NAMES), 1, side, side), np.float32)
    for picture, letter in zip(pictures, NAMES, strict=True):
        font = usual
        left, top, right, bottom = font.getbbox(letter)
        if right - left > WIDEST * OVERSAMPLING:
            font = font.font_variant(size=size * WIDEST * OVERSAMPLING / (right - left))
            left, top, right, bottom = font.getbbox(letter)
        canvas = Image.new("L", (side, side))
        place = ((side - right - left) / 2, (side - bottom - top) / 2)
        ImageDraw.Draw(canvas).text(place, letter, fill=255, font=font)
        picture[0] = np.asarray(canvas, np.float32) / 255
    return pictures


def worn(glyphs: Tensor, generator: torch.Generator) -> NDArray[np.uint8]:
    """Distorted, scaled down, blurred and noisy, each by its own draw. (N, 1, 56, 56) → (N, 1, 28, 28), ink 255."""
    count = len(glyphs)
    small = functional.avg_pool2d(distort(glyphs, DISTORTION, 0.0, generator), OVERSAMPLING)
    deviation = (torch.rand(count, 1, generator=generator) * BLUR).clamp(min=1e-3)
    weights = torch.exp(-0.5 * (torch.arange(-REACH, REACH + 1) / deviation).square())
    weights = weights / weights.sum(dim=1, keepdim=True)
    # One group for each picture: each has a kernel of its own, first along the columns, then along the rows.
    image = functional.conv2d(small.transpose(0, 1), weights[:, None, :, None], padding=(REACH, 0), groups=count)
    image = functional.conv2d(image, weights[:, None, None, :], padding=(0, REACH), groups=count).transpose(0, 1)
    noise = torch.rand(count, 1, 1, 1, generator=generator) * NOISE
    image = image + noise * torch.randn(image.shape, generator=generator)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
