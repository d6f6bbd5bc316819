"""Convoy's model server: gRPC in, batches through ONNX Runtime, answers out.

Rooms, top to bottom, each importing only those below it: `app` composes, `frontends` speak the wire,
`engine` and `control` are the data and the control plane, `models` owns loaded versions, `scheduling` decides
who runs together, `backends` compute, and the modules beside this file are the base. `make check` enforces it.
"""

__version__ = "0.1.0"
