"""Varints of protobuf's encoding, for who takes messages apart or makes them without protobuf."""

from __future__ import annotations


def read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """The number that begins there, and where it ends. Raises `ValueError`, and `IndexError` where it is cut off."""
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def varint(value: int) -> bytes:
    """A number from 0, encoded."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
