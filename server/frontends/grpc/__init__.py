"""gRPC: engines that carry calls, interchangeable behind `frontends.calls`."""
