"""What an answer out of the response cache costs, beside one that is computed: LeNet-5, and ResNet-18 with 602 KB in.

Each network is in the repository twice, with `response_cache` and without; one server serves both. All requests of a
volley are the same, so that a model with a cache runs once, and whatever follows is a hit.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from loadtest.bench.comparison import take_turns
from loadtest.bench.networks import write_resnet18
from loadtest.bench.servers import NGHTTP2, Load, Ours, Plan, prepare, start_ours

COMPUTED = "computed"
HIT = "hit"
_CACHED = "_cached"
_SIDE = 224
_CACHE = "--cache-config=local,size=67108864"
_RESNET18_CONFIG = """platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { }
"""


def caching(plan: Plan) -> dict[str, object]:
    """Both networks, one after the other."""
    repository = plan.out / "caching_repository"
    shutil.rmtree(repository, ignore_errors=True)
    shutil.copytree(plan.model_repository / plan.model, repository / plan.model)
    resnet18 = repository / "resnet18"
    write_resnet18(resnet18 / "1" / "model.onnx", _SIDE)
    (resnet18 / "config.pbtxt").write_text(_RESNET18_CONFIG)
    loads = {
        plan.model: plan.load(requests=20_000, connections=4, streams=16),
        "resnet18": plan.load(requests=120, connections=4, streams=2),
    }
    for model in loads:
        _write_cached(repository / model)
    with ExitStack() as stack:
        server = start_ours(stack, replace(plan, model_repository=repository), NGHTTP2, _CACHE, name="caching")
        return {model: _side_by_side(plan, server, model, load) for model, load in loads.items()}


def _write_cached(model: Path) -> None:
    """The same model under another name, with a cache."""
    cached = shutil.copytree(model, model.with_name(model.name + _CACHED))
    config = (model / "config.pbtxt").read_text().replace(f'name: "{model.name}"\n', "")
    (cached / "config.pbtxt").write_text(f"{config}response_cache {{ enable: true }}\n")


def _side_by_side(plan: Plan, server: Ours, model: str, load: Load) -> dict[str, object]:
    turns = {}
    for kind, name in ((COMPUTED, model), (HIT, model + _CACHED)):
        out = plan.out / name
        out.mkdir(exist_ok=True)
        ours = replace(server, model=name)
        shot = prepare(replace(plan, out=out), ours, load)
        shot.warm_up(ours.server)
        turns[kind] = partial(shot.fire, ours.server)
    comparison = take_turns(turns, plan.rounds, ((HIT, COMPUTED),))
    print(model)
    print(comparison.table())
    return {"load": asdict(load), **comparison.as_json()}
