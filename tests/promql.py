"""What an expression of PromQL is about: the metrics that it names, found without Prometheus."""

from __future__ import annotations

import re

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_MATCHERS = re.compile(r"\{[^{}]*\}")
_RANGES = re.compile(r"\[[^\]]*\]")
_LABEL_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAMES = re.compile(r"(?<![\w.$:])([a-zA-Z_][\w:]*)(?!\s*\()(?![\w:])")
_WORDS = {"and", "or", "unless", "by", "on", "bool", "offset", "Inf", "inf", "NaN", "atan2"}
_SUFFIXES = ("_bucket", "_count", "_sum")


def metric_names(expression: str) -> set[str]:
    """The series that an expression reads."""
    text = _STRINGS.sub('""', expression)
    for part in (_MATCHERS, _RANGES, _LABEL_LISTS):
        text = part.sub(" ", text)
    return set(_NAMES.findall(text)) - _WORDS


def without_suffix(name: str, histograms: set[str]) -> str:
    """The family that a series belongs to: a histogram has three."""
    for suffix in _SUFFIXES:
        if name.removesuffix(suffix) in histograms:
            return name.removesuffix(suffix)
    return name


def without_threshold(expression: str) -> str:
    """An alert's expression that answers whether or not it fires: comparisons give 0 or 1 and drop nothing.

    What follows `unless` is left as it is.
    """
    absent = re.fullmatch(r"absent\((.*)\)", expression.strip())
    compared, unless, exceptions = (absent[1] if absent else expression).partition(" unless ")
    return re.sub(r" (==|!=|>=|<=|>|<) ", r" \1 bool ", compared) + unless + exceptions
