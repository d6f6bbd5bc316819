"""A program with device memory that it exports, as a client's: commands on stdin, an answer on stdout for each.

It speaks to the driver itself, and so shares no code with what it is a test of.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char, c_int, c_size_t, c_uint64, c_void_p


class Handle(ctypes.Structure):
    _fields_ = (("reserved", c_char * 64),)


def main(byte_size: int) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        status = getattr(cuda, name)(*arguments)
        assert status == 0, f"{name}: {status}"

    device, context, address, handle = c_int(), c_void_p(), c_uint64(), Handle()
    call("cuInit", 0)
    call("cuDeviceGet", byref(device), 0)
    call("cuDevicePrimaryCtxRetain", byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", byref(address), c_size_t(byte_size))
    host = (ctypes.c_ubyte * byte_size)(*(i % 251 for i in range(byte_size)))
    call("cuMemcpyHtoD_v2", address, host, c_size_t(byte_size))
    call("cuIpcGetMemHandle", byref(handle), address)
    print(bytes(handle).hex(), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["read", offset, size]:
                call("cuMemcpyDtoH_v2", host, c_uint64(address.value + int(offset)), c_size_t(int(size)))
                print(bytes(host[: int(size)]).hex(), flush=True)
            case ["free"]:
                call("cuMemFree_v2", address)
                print("freed", flush=True)


main(int(sys.argv[1]))
