"""The wire: the protocol's `.proto` files and the Python code generated from them, checked in.

`python -m proto.generate` writes the `*_pb2.py` and `*_pb2.pyi` files; nobody edits them by hand. Descriptors are
registered under the names `grpc_service.proto`, `model_config.proto` and `grpc_health/v1/health.proto`, and equal
those of tritonclient and grpcio-health-checking, so that all can be imported into one process. This room knows
nothing of the server.
"""
