"""Reads header blocks that the server packed, with libnghttp2's own decoder."""

from __future__ import annotations

import ctypes
import ctypes.util

from tests.hostile.frames import Header

_EMIT, _FINAL = 2, 1


class _Field(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.POINTER(ctypes.c_ubyte)),
        ("value", ctypes.POINTER(ctypes.c_ubyte)),
        ("name_length", ctypes.c_size_t),
        ("value_length", ctypes.c_size_t),
        ("flags", ctypes.c_ubyte),
    ]


class Decoder:
    """The receiving end of one connection's header compression."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("nghttp2") or "libnghttp2.so.14")
        self._library.nghttp2_hd_inflate_hd2.restype = ctypes.c_ssize_t
        self._library.nghttp2_hd_inflate_del.argtypes = [ctypes.c_void_p]
        self._handle = ctypes.c_void_p()
        assert self._library.nghttp2_hd_inflate_new(ctypes.byref(self._handle)) == 0

    def __del__(self) -> None:
        self._library.nghttp2_hd_inflate_del(self._handle)

    def decode(self, block: bytes) -> list[Header]:
        headers: list[Header] = []
        field, flags, position = _Field(), ctypes.c_int(0), 0
        while True:
            rest = block[position:]
            taken = self._library.nghttp2_hd_inflate_hd2(
                self._handle, ctypes.byref(field), ctypes.byref(flags), rest, ctypes.c_size_t(len(rest)), 1
            )
            assert taken >= 0, "a broken header block"
            position += taken
            if flags.value & _EMIT:
                name = ctypes.string_at(field.name, field.name_length)
                headers.append((name, ctypes.string_at(field.value, field.value_length)))
            if flags.value & _FINAL:
                self._library.nghttp2_hd_inflate_end_headers(self._handle)
                return headers
