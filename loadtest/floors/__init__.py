"""Floors: the least that a part of the work can cost, measured without the rest of it. Each is a program of its own.

`grpc_aio`: gRPC in Python, with a constant answer. `onnxruntime_alone`: the model, without a server, on one thread;
`onnxruntime_throughput`: with the best of batch sizes and threads. `socket_sink` and `socket_source`: bytes over a
socket, without a protocol. `http2_source`: a client that costs next to nothing.
"""
