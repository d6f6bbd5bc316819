"""HTTP: small requests, one in flight on each connection, as binary data and as JSON, beside the same over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import NGHTTP2, Load, Ours, Plan, prepare, start_ours, weighed
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.h2load import H2load
from loadtest.http_v2 import encode_json_request, encode_request, model_path
from proto import grpc_service_pb2 as pb

BINARY = "HTTP, binary data"
JSON = "HTTP, JSON"


def http(plan: Plan) -> dict[str, object]:
    """Eight connections with a request in flight each, in turns against one server."""
    load = plan.load(requests=20_000, connections=8, streams=1)
    with ExitStack() as stack:
        ours = start_ours(stack, plan, NGHTTP2)
        shot = prepare(plan, ours, load)
        shot.warm_up(ours.server)
        turns = {NGHTTP2: partial(shot.fire_counted, ours)}
        request = pb.ModelInferRequest.FromString(shot.workload.bodies[0])
        for name, (headers, body) in ((BINARY, encode_request(request)), (JSON, encode_json_request(request))):
            turns[name] = partial(_fire, plan, shot.h2load, load, ours, name, body, headers)
            turns[name]()
        comparison = take_turns(turns, plan.rounds, ((BINARY, NGHTTP2), (JSON, BINARY)))
    print(comparison.table())
    return {"load": asdict(load), **comparison.as_json()}


def _fire(
    plan: Plan, h2load: H2load, load: Load, ours: Ours, name: str, body: bytes, headers: Mapping[str, str]
) -> Figures:
    """One volley, which the server must have counted exactly."""
    file = plan.out / "request.http"
    file.write_bytes(body)
    before = ours.target.counts(ours.model)
    figures = weighed(
        ours.server,
        load.requests,
        partial(
            h2load.fire_http,
            f"http://127.0.0.1:{ours.server.ports['http']}{model_path(ours.model)}/infer",
            file,
            headers,
            requests=load.requests,
            connections=load.connections,
            log=plan.out / "h2load.log",
        ),
    )
    counted = ours.target.counts(ours.model).since(before)
    if (counted.successes, counted.failures) != (load.requests, 0):
        raise LoadTestError(f"{load.requests} requests sent ({name}), but {ours.server.address} counted {counted}")
    return {**figures, "average_batch": counted.average_batch}
