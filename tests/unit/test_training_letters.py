"""Letters: which fonts take part, who never sees which, and pictures that can be told apart, and again."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

from training.data import DATA_SETS, Data
from training.data.letters import HELD_OUT_FAMILIES, draw, find_fonts, render
from training.files import TrainingError

NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def data() -> Data:
    return DATA_SETS["letters"].load()


def test_fonts_of_symbols_and_without_letters_take_no_part() -> None:
    names = {font.path.name for font in find_fonts(FONTS)}
    assert len(names) == 22
    assert {"DejaVuSans.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneral.ttf", "cmr10.ttf", "cmtt10.ttf"} <= names
    # Brackets, script capitals, no letters, one box for every letter.
    assert not {"cmex10.ttf", "cmsy10.ttf", "STIXNonUni.ttf", "LastResortHE-Regular.ttf"} & names


def test_no_family_is_on_both_sides() -> None:
    fonts = find_fonts(FONTS)
    held_out = {font.family for font in fonts if font.held_out}
    assert held_out == set(HELD_OUT_FAMILIES)
    assert not held_out & {font.family for font in fonts if not font.held_out}
    assert [font.held_out for font in fonts].count(True) == 9


def test_no_glyph_is_on_both_sides() -> None:
    fonts = find_fonts(FONTS)
    seen, held_out = (
        {glyph.tobytes() for font in fonts if font.held_out == side for glyph in draw(font.path)}
        for side in (False, True)
    )
    assert len(seen) == 13 * 26 and len(held_out) == 9 * 26
    assert not seen & held_out


def test_no_letter_touches_the_border_before_it_is_distorted() -> None:
    for font in find_fonts(FONTS):
        glyphs = draw(font.path)
        assert glyphs.shape == (26, 1, 56, 56) and glyphs.max() == 1
        assert not glyphs[:, :, [0, -1]].any() and not glyphs[:, :, :, [0, -1]].any()
        # Capitals are 36 pixels high, up to the round ones' overshoot.
        assert abs(int(glyphs[NAMES.index("H"), 0].any(axis=1).sum()) - 36) <= 1


def test_the_row_has_each_letter_of_each_font_equally_often(data: Data) -> None:
    assert data.images.shape == (13_520, 1, 28, 28) and data.held_out_images.shape == (4_680, 1, 28, 28)
    assert torch.bincount(data.labels).tolist() == [520] * 26
    assert torch.bincount(data.held_out_labels).tolist() == [180] * 26
    assert data.names == tuple(NAMES) and data.channels == 1
    for images in (data.images, data.held_out_images):
        assert images.dtype == torch.float32 and images.min() >= -0.1001 and images.max() <= 1.1751


def test_rendering_is_decided_by_its_seed() -> None:
    fonts = find_fonts(FONTS)[:2]
    (first, labels), (again, _), (other, _) = render(fonts, 2, 7), render(fonts, 2, 7), render(fonts, 2, 8)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.dtype == np.uint8 and labels.tolist() == [label for label in range(26) for _ in range(2)] * 2


def test_rendering_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    render(find_fonts(FONTS)[:1], 1, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_of_one_glyph_differ_as_they_are_distorted_each_by_itself() -> None:
    images, labels = render(find_fonts(FONTS)[:1], 5, 0)
    assert len({image.tobytes() for image in images}) == len(labels)


def test_letters_of_unseen_fonts_are_near_the_mean_of_their_class(data: Data) -> None:
    """Each class looks like itself: the nearest of 26 mean pictures is right far more often than by chance, 4 %."""
    means = torch.stack([data.images[data.labels == label].mean(0).flatten() for label in range(26)])
    nearest = torch.cdist(data.held_out_images.flatten(1), means).argmin(1)
    right = (nearest == data.held_out_labels).double()
    assert right.mean() > 0.4
    assert min(right[data.held_out_labels == label].mean() for label in range(26)) > 0.1


def test_fonts_that_are_not_there_are_missed_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are none"):
        find_fonts(tmp_path)
    shutil.copy(FONTS / "DejaVuSans.ttf", tmp_path)
    with pytest.raises(TrainingError, match=r"STIXGeneral, cmss10 are expected.*DejaVuSans\.ttf"):
        find_fonts(tmp_path)
