"""Values of command-line flags, checked: what is wrong with one is said by argparse, with the flag's name."""

from __future__ import annotations

import argparse
from math import isfinite

from loadtest.payload import parse_shape


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def limit(text: str) -> float:
    """A number above 0; infinite where there is no limit."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def count(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def seed(text: str) -> int:
    """An integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def address(text: str) -> str:
    """Where a server listens, in plain text: "host:port". "grpc://" and "http://" before it say no more than that."""
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in ("grpc", "http"):
        raise argparse.ArgumentTypeError(f"{text}: load tests speak grpc:// and http://, both in plain text")
    host, _, port = rest.removesuffix("/").rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return f"{host}:{port}"


def shape(text: str) -> str:
    """NAME:DIM,DIM,..., as `parse_shape` takes it."""
    try:
        parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None
