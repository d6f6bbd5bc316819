"""Sizes of layers, as the lecture has them. Whole numbers in, whole numbers out."""

from __future__ import annotations


def convolved(width: int, kernel: int, padding: int = 0, stride: int = 1) -> int:
    """W₂ = (W₁ − F + 2P)/S + 1: the width, or height, of what a convolution makes. A rest is cut off, as torch does."""
    return (width - kernel + 2 * padding) // stride + 1


def pooled(width: int, kernel: int, stride: int) -> int:
    """W₂ = (W₁ − F)/S + 1."""
    return convolved(width, kernel, stride=stride)


def convolution_parameters(kernel: int, depth: int, filters: int) -> int:
    """F·F·D₁·K weights and K biases."""
    return kernel * kernel * depth * filters + filters
