"""Decoded pictures on their way into a batch: 8 bits a value until they are written where the model reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.pictures.preprocessing import ImagePreprocessing
from server.tensors import Array

Pixels = NDArray[np.uint8]
"""One picture in the model's layout, size and channel order: uint8, shaped `ImagePreprocessing.shape`."""


class Normalization:
    """Turns pixels into a model's numbers."""

    def __init__(self, preprocessing: ImagePreprocessing) -> None:
        self._a, self._b = preprocessing.factors()

    def write(self, pixels: Pixels, row: Array) -> None:
        """Fill `row`, of the same number of elements. The interpreter lock is free meanwhile."""
        target = row.reshape(pixels.shape)
        if target.dtype == np.uint8:
            target[...] = pixels
        elif target.dtype == np.float32:
            np.multiply(pixels, self._a, out=target)
            np.add(target, self._b, out=target)
        else:
            target[...] = pixels * self._a + self._b


class PictureRows:
    """The pictures of one request. Implements `scheduling.assembly.Rows`."""

    __slots__ = ("_normalization", "_pictures")

    def __init__(self, pictures: Sequence[Pixels], normalization: Normalization) -> None:
        self._pictures = pictures
        self._normalization = normalization

    @property
    def nbytes(self) -> int:
        """The memory that they take while they wait."""
        return sum([picture.nbytes for picture in self._pictures])

    def write_into(self, rows: Array) -> None:
        """See `scheduling.assembly.Rows`."""
        for picture, row in zip(self._pictures, rows, strict=True):
            self._normalization.write(picture, row)

    def part(self, start: int, count: int) -> PictureRows:
        """See `scheduling.assembly.Rows`."""
        return PictureRows(self._pictures[start : start + count], self._normalization)
