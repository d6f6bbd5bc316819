"""One picture in three forms, to a model that reads 1×3×224×224 and hardly looks at it: what decoding costs, and saves.

A ready float32 tensor, a JPEG file of 500×375 pixels, and those pixels.
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial

import numpy as np

from loadtest.bench.comparison import take_turns
from loadtest.bench.large import INPUT, MODEL, write_repository
from loadtest.bench.servers import NGHTTP2, Ours, Plan, Shot, prepare, start_ours
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.h2load import frame
from proto import grpc_service_pb2 as pb

TENSOR, FILE, PIXELS = "float32 tensor", "JPEG file", "pixels"
WIDTH, HEIGHT = 500, 375
QUALITY = 90

_PREPROCESSING = {
    "resize": "256",
    "center_crop": "224",
    "scale": "1/255",
    "mean": "0.485,0.456,0.406",
    "std": "0.229,0.224,0.225",
}
_CONFIG = f"""input {{ name: "{INPUT}" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] }}
output {{ name: "values" data_type: TYPE_FP32 dims: [ 10 ] }}
""" + "".join(
    f'parameters {{ key: "image.{key}" value {{ string_value: "{value}" }} }}\n'
    for key, value in _PREPROCESSING.items()
)


def pictures(plan: Plan) -> dict[str, object]:
    """The nghttp2 engine, which is sent the three forms in turn."""
    load = plan.load(requests=1_000, connections=4, streams=2)
    plan = replace(plan, model=MODEL, model_repository=plan.out / "pictures_repository")
    write_repository(plan.model_repository, _CONFIG)
    with ExitStack() as stack:
        ours = start_ours(stack, plan, NGHTTP2)
        tensor = prepare(plan, ours, load)
        pixels = _photo()
        shots = {
            TENSOR: tensor,
            FILE: _shot(plan, tensor, "BYTES", [1], _jpeg(pixels)),
            PIXELS: _shot(plan, tensor, "UINT8", [1, *pixels.shape], pixels.tobytes()),
        }
        for shot in shots.values():
            shot.warm_up(ours.server)
        turns = {name: partial(_fire, shot, ours) for name, shot in shots.items()}
        comparison = take_turns(turns, plan.rounds, ((FILE, TENSOR), (PIXELS, TENSOR)))
    print(comparison.table())
    return {"load": asdict(load), **comparison.as_json()}


def _fire(shot: Shot, ours: Ours) -> Figures:
    return {"message_bytes": float(shot.body.stat().st_size), **shot.fire_counted(ours)}


def _shot(plan: Plan, like: Shot, datatype: str, shape: list[int], contents: bytes) -> Shot:
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name=INPUT, datatype=datatype, shape=shape)
    request.raw_input_contents.append(contents)
    message = request.SerializeToString()
    body = plan.out / f"request_{datatype}.grpc"
    body.write_bytes(frame(message))
    return replace(like, workload=replace(like.workload, bodies=(message,)), body=body)


def _photo() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Large shapes and some noise, which as a JPEG has about the size of a photograph."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    shapes = np.stack([np.sin(x / period) * np.cos(y / period) for period in (31, 47, 71)], axis=2) * 110 + 128
    pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = (
        (shapes + random.normal(0, 8, shapes.shape)).clip(0, 255).astype(np.uint8)
    )
    return pixels


def _jpeg(pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]) -> bytes:
    """As a BYTES element."""
    try:
        from PIL import Image
    except ImportError as error:
        raise LoadTestError("the package pillow is missing, which writes the file: make install-dev") from error

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return len(file.getvalue()).to_bytes(4, "little") + file.getvalue()
