"""Data sets as tensors, and their augmentation. A row of `DATA_SETS` is what a recipe may name.

Readers of published formats and the letters' renderer are a file each; `registry` has the rows.
"""

from training.data.augment import augment, distort
from training.data.registry import DATA_SETS, DataSet
from training.data.sets import Data, Normalisation
from training.data.streams import Streamed

__all__ = ["DATA_SETS", "Data", "DataSet", "Normalisation", "Streamed", "augment", "distort"]
