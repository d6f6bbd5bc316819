"""Values of command-line flags, checked: what is wrong with one is said by argparse, with the flag's name."""

from __future__ import annotations

import argparse
from math import isfinite

from loadtest.payload import parse_shape


def positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def count(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def shape(text: str) -> str:
    """NAME:DIM,DIM,..., as `parse_shape` takes it."""
    try:
        parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
