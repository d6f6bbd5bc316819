"""What the text behind a flag may be: words, or what a function takes that raises `ArgumentTypeError`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from server.header_pattern import HeaderPattern
from server.urls import RepositoryUrl

E = TypeVar("E", bound=StrEnum)


BYTE_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
"""Powers of two."""


class ModelControlMode(StrEnum):
    """Which models are loaded."""

    NONE = "none"
    """All models of the repositories, when the server starts."""
    EXPLICIT = "explicit"
    """Those that --load-model names, when the server starts; others, and again, as callers ask for it."""
    POLL = "poll"
    """All models of the repositories, now and as they change."""


class GrpcEngine(StrEnum):
    """What carries gRPC calls."""

    AUTO = "auto"
    """nghttp2 where it was built, else grpcio."""
    NGHTTP2 = "nghttp2"
    GRPCIO = "grpcio"


class CompressionLevel(StrEnum):
    """How much is done to make answers shorter. In the order of grpc core's numbers."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    DEFAULT = "default"
    ISO8601 = "ISO8601"
    JSON = "json"


def one_of(kind: type[E]) -> Callable[[str], E]:
    """For a flag that takes one of the words of `kind`."""

    def word(text: str) -> E:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(kind)}, not '{text}'") from None

    return word


def lower_case_of(kind: type[E]) -> Callable[[str], E]:
    """As `one_of`, in capital or small letters."""
    return lambda text: one_of(kind)(text.lower())


def boolean(text: str) -> bool:
    match text.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise argparse.ArgumentTypeError(f"must be true or false, not '{text}'")


def port(text: str) -> int:
    if text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a port number from 0 to 65535, not '{text}'")


def positive_int(text: str) -> int:
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a positive integer, not '{text}'")


def byte_size(text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if number.isdecimal() and int(number) > 0 and unit in BYTE_UNITS:
        return int(number) << BYTE_UNITS[unit]
    raise argparse.ArgumentTypeError(f"must be a number of bytes, with K, M, G or T after it or not, not '{text}'")


def natural(text: str) -> int:
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be an integer of at least 0, not '{text}'")


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"must be a number of seconds, not '{text}'")


def interval(text: str) -> float:
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return value


def repository(text: str) -> Path | RepositoryUrl:
    return RepositoryUrl(text) if "://" in text else Path(text)


def header_pattern(text: str) -> HeaderPattern | None:
    """None for an empty one, which matches nothing in Triton."""
    try:
        return HeaderPattern(text) if text else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def backend_config(text: str) -> int:
    """The default of max_batch_size: the only setting of the only backend."""
    key, _, value = text.partition("=")
    if key == "onnxruntime,default-max-batch-size" and value.isdecimal() and len(value) <= 9:
        return int(value)
    raise argparse.ArgumentTypeError(f"knows onnxruntime,default-max-batch-size=N only, not '{text}'")


def file_stem(text: str) -> str:
    if text and not text.startswith(".") and not any(c in "/\\" or c.isspace() or not c.isprintable() for c in text):
        return text
    raise argparse.ArgumentTypeError(f"must be a file's name without its ending, and without spaces, not '{text}'")
