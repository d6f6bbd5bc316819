"""Mutations that know a format: parts are dropped, doubled, exchanged and changed, and lengths and checksums put right.

Without them most mutants of a format with lengths die at the first length. One in three is left to libFuzzer's own
mutations all the same: wrong lengths are inputs, too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random

from tests.hostile import frames

Part = tuple[bytes, bytes]
"""What says what it is, and its contents."""
Split = Callable[[bytes], list[Part]]
Join = Callable[[list[Part]], bytes]
Havoc = Callable[[bytes, int], bytes]
"""libFuzzer's own mutation of some bytes, of at most so many."""
Mutate = Callable[[bytes, int, int, Havoc], bytes]
"""Input, most bytes, seed."""

MAX_PARTS = 200


def by_parts(
    split: Split,
    join: Join,
    prefix_bytes: int = 0,
    *,
    nested: bool = False,
    respell: Callable[[bytes], bytes] | None = None,
) -> Mutate:
    """`prefix_bytes`: a target's own choices before the format. `nested`: contents may be of the format themselves.
    `respell`: another way to write what says what a part is."""

    def change(data: bytes, most: int, random: Random, havoc: Havoc) -> bytes:
        parts = split(data)[:MAX_PARTS]
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            if not parts:
                break
            at, other = random.randrange(len(parts)), random.randrange(len(parts))
            kind, contents = parts[at]
            match random.randrange(8):
                case 0:
                    del parts[at]
                case 1:
                    parts.insert(other, parts[at])
                case 2:
                    parts[at], parts[other] = parts[other], parts[at]
                case 3:
                    parts[at] = (parts[other][0], contents)
                case 4 if respell is not None:
                    parts[at] = (respell(kind), contents)
                case 4:
                    parts[at] = (havoc(kind, len(kind))[: len(kind)].ljust(len(kind), b"\0"), contents)
                case _ if nested and len(split(contents)) > 0 and random.random() < 0.7:
                    parts[at] = (kind, change(contents, most, random, havoc))
                case _:
                    parts[at] = (kind, havoc(contents, len(contents) + 64))
        return join(parts)

    def mutate(data: bytes, most: int, seed: int, havoc: Havoc) -> bytes:
        random = Random(seed)
        if random.random() < 1 / 3:
            return havoc(data, most)
        head, rest = data[:prefix_bytes], data[prefix_bytes:]
        if head and random.random() < 0.1:
            head = havoc(head, prefix_bytes).ljust(prefix_bytes, b"\0")
        return (head + change(rest, most, random, havoc))[:most]

    return mutate


# --- protobuf: the tag, and what a length says ---


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def split_protobuf(data: bytes) -> list[Part]:
    """The whole fields at the start of a message; none for what cannot be one."""
    parts: list[Part] = []
    position = 0
    while position < len(data):
        begin = position
        tag, position = number(data, begin)
        kind, spelled = tag & 7, data[begin:position]
        if tag < 8 or kind not in (0, 1, 2, 5) or position < 0:
            return []
        start = position
        if kind == 0:
            _, position = number(data, position)
        elif kind == 2:
            length, start = number(data, position)
            position = start + length if start >= 0 else -1
        else:
            position += 8 if kind == 1 else 4
        if not 0 <= position <= len(data):
            return []
        parts.append((spelled, data[start:position]))
    return parts


def join_protobuf(parts: list[Part]) -> bytes:
    return b"".join(tag + (varint(len(value)) + value if tag[0] & 7 == 2 else value) for tag, value in parts)


def longer_varint(spelled: bytes) -> bytes:
    """The same number in one byte more, which protobuf reads all the same."""
    return spelled[:-1] + bytes((spelled[-1] | 0x80, 0)) if 0 < len(spelled) < 5 else spelled


def number(data: bytes, position: int = 0) -> tuple[int, int]:
    """A varint, and where it ends; -1 where it does not."""
    value = shift = 0
    while 0 <= position < len(data) and shift < 70:
        value |= (data[position] & 0x7F) << shift
        position += 1
        if data[position - 1] < 0x80:
            return value, position
        shift += 7
    return 0, -1


# --- gRPC messages, HTTP/2 frames, chunks of a PNG file, segments of a JPEG file ---


def split_messages(data: bytes) -> list[Part]:
    parts: list[Part] = []
    while len(data) >= 5:
        end = 5 + int.from_bytes(data[1:5], "big")
        parts.append((data[:1], data[5:end]))
        data = data[end:]
    return parts


def join_messages(parts: list[Part]) -> bytes:
    return b"".join(flag + len(message).to_bytes(4, "big") + message for flag, message in parts)


def split_frames(data: bytes) -> list[Part]:
    """Type, flags and stream of each; the preface is the first part."""
    head = data[: len(frames.PREFACE)]
    found = frames.parse(data[len(head) :])
    return [(b"", head), *((struct.pack(">BBI", f.type, f.flags, f.stream_id), f.payload) for f in found)]


def join_frames(parts: list[Part]) -> bytes:
    return b"".join(len(payload).to_bytes(3, "big") + kind + payload if kind else payload for kind, payload in parts)


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def split_picture(data: bytes) -> list[Part]:
    return _split_png(data) if data.startswith(PNG_SIGNATURE) else _split_jpeg(data)


def join_picture(parts: list[Part]) -> bytes:
    if all(len(kind) == 4 for kind, _ in parts):
        return PNG_SIGNATURE + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )
    return b"".join(
        kind + (len(data) + 2).to_bytes(2, "big") + data if len(kind) == 2 else data for kind, data in parts
    )


def _split_png(data: bytes) -> list[Part]:
    parts: list[Part] = []
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        parts.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return parts


def _split_jpeg(data: bytes) -> list[Part]:
    """Markers with a length and their segments; what has none, and the coded picture, is a part of one byte's kind."""
    parts: list[Part] = []
    position = 0
    while position < len(data):
        marker = data[position : position + 2]
        plain = marker[:1] != b"\xff" or marker[1:] in (b"\xd8", b"\xd9", b"")
        if plain:
            end = data.find(b"\xff", position + 2)
            while 0 <= end < len(data) - 1 and data[end + 1] in (0, *range(0xD0, 0xD8)):
                end = data.find(b"\xff", end + 2)
            end = len(data) if end < 0 else end
            parts.append((b"-", data[position:end]))
        else:
            end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
            parts.append((marker, data[position + 4 : end]))
        position = end
    return parts
