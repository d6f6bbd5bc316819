"""Where wire words live, and nowhere else: gRPC, HTTP, protobuf, JSON, status codes."""
