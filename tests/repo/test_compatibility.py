"""`docs/compatibility.md` names all that Triton offers and all that this server offers, and what it says is so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from proto import grpc_service_pb2, model_config_pb2
from server.flags import parser
from server.metrics.page import Request
from server.metrics_config import MetricsConfig
from server.models.config_fields import KNOWN_PARAMETERS, FieldInvalid, refuse_unserved
from server.settings import parse
from server.triton_flags import INSTEAD
from tests.real.clients import SERVICE, Client, read_url
from tests.real.conftest import RunningServer, connect, start
from tests.repo import triton_surface
from tests.unit.metric_pages import GPU, page_of, snapshot, version

OFFERED = {"same", "better", "other"}
"""What the page calls what Triton has and this server has too."""


class Row(NamedTuple):
    """One feature."""

    status: str
    text: str


def rows(section: str) -> dict[str, Row]:
    """The table below a heading, by name."""
    page = (Path(__file__).parents[2] / "docs/compatibility.md").read_text()
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \| ?(.*?) ?\|$", text, re.MULTILINE)
    names = [name for name, _, _ in found]
    assert len(names) == len(set(names)), "a name has two rows"
    return {name: Row(status, why) for name, status, why in found}


def claimed(table: dict[str, Row], *statuses: str) -> set[str]:
    return {name for name, row in table.items() if row.status in statuses}


def check(table: dict[str, Row], tritons: set[str], offered: set[str]) -> None:
    """Every name of either side has a row, which says on which side it is, and says more where there is more to say."""
    assert set(table) == tritons | offered
    assert claimed(table, *OFFERED) == tritons & offered
    assert claimed(table, "ours") == offered - tritons
    assert claimed(table, "not here") == tritons - offered
    assert [name for name, row in table.items() if row.status != "same" and not row.text] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with everything switched on, and no model."""
    folder = tmp_path_factory.mktemp("server")
    flags = ("--allow-client-shm=true", "--http-metrics=true", f"--trace-config=triton,file={folder / 'traces'}")
    server = start(folder, *flags, "--model-control-mode=explicit", model_repository=tmp_path_factory.mktemp("models"))
    yield server
    assert server.terminate() == 0, server.log.read_text()


def shown(server: RunningServer, path: str) -> Any:
    return json.loads(read_url(f"{server.http_url}/{path}"))


def test_every_flag_has_a_row() -> None:
    ours = set(parser()._option_string_actions) - {"-h", "--model-namespacing"}
    check(rows("Flags"), set(triton_surface.FLAGS), ours)


def test_a_flag_that_is_not_here_is_refused_as_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    for name in claimed(rows("Flags"), "not here"):
        with pytest.raises(SystemExit):
            parse(["--model-repository=models", f"{name}=true"])
        error = capsys.readouterr().err.splitlines()[-1]
        assert name in error
        assert "unrecognized" not in error
        if name in INSTEAD:
            assert rows("Flags")[name].text == INSTEAD[name] == error.strip().removeprefix(f"{name}: ")


def test_every_rpc_has_a_row(server: RunningServer) -> None:
    names = set(grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)
    with connect(server) as channel:
        client = Client(channel)
        unknown = client.refusal("Unknown", b"")
        assert unknown.status is grpc.StatusCode.UNIMPLEMENTED

        def is_known(name: str) -> bool:
            if name == "ModelStreamInfer":
                return list(channel.stream_stream(f"{SERVICE}/{name}")(iter([]))) == []
            error = client.start(name, b"").exception()
            return error is None or error.details() != unknown.message.replace("Unknown", name)

        assert not is_known("NoSuchMethod")
        offered = {name for name in names if is_known(name)}
    check(rows("RPCs"), names, offered)


def test_every_extension_has_a_row(server: RunningServer) -> None:
    offered = {*shown(server, "v2")["extensions"], "cuda_shared_memory"}  # which only a server with a GPU has
    check(rows("Extensions"), set(triton_surface.EXTENSIONS), offered)


def test_every_route_has_a_row(server: RunningServer) -> None:
    paths = shown(server, "v2/openapi.json")["paths"]
    offered = {f"{verb.upper()} {path[1:]}" for path, verbs in paths.items() for verb in verbs}
    check(rows("HTTP routes"), set(triton_surface.ROUTES), offered)


def fields(kind: Descriptor, prefix: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The way to each field that holds no other fields; a map counts as one."""
    for field in kind.fields:
        way, inner = (*prefix, field), field.message_type
        if inner is None or inner.GetOptions().map_entry or not inner.fields:
            yield way
        else:
            yield from fields(inner, way)


def is_served(way: tuple[FieldDescriptor, ...]) -> bool:
    """Whether a configuration with nothing but this field is read."""
    config = model_config_pb2.ModelConfig()
    message: Message = config
    for field in way[:-1]:
        inner = getattr(message, field.name)
        message = inner.add() if field.is_repeated else inner
    _set(message, way[-1])
    try:
        refuse_unserved(config)
    except FieldInvalid:
        return False
    return True


def _set(message: Message, field: FieldDescriptor) -> None:
    """Set a field to something other than its default."""
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key_type = field.message_type.fields_by_name["key"].cpp_type
        key: Any = "key" if key_type == FieldDescriptor.CPPTYPE_STRING else 1
        if field.message_type.fields_by_name["value"].message_type is not None:
            value.get_or_create(key)
        else:
            value[key] = "value"
    elif field.message_type is not None:
        value.SetInParent()
    else:
        other: Any = "text" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 1
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            other = field.enum_type.values[-1].number
        if field.is_repeated:
            value.append(other)
        else:
            setattr(message, field.name, other)


def test_every_field_of_a_configuration_has_a_row() -> None:
    ways = {".".join(field.name for field in way): way for way in fields(model_config_pb2.ModelConfig.DESCRIPTOR)}
    check(rows("Fields of config.pbtxt"), set(ways), {name for name, way in ways.items() if is_served(way)})


def test_every_parameter_of_a_configuration_has_a_row() -> None:
    check(rows("Parameters of config.pbtxt"), set(triton_surface.PARAMETERS), set(KNOWN_PARAMETERS))


def test_every_metric_of_triton_has_a_row() -> None:
    config = MetricsConfig(summary_latencies=True)
    page = page_of(config, cpu=True, gpus=[GPU]).render(snapshot(version()), Request()).body.decode()
    offered = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    check(rows("Metrics"), set(triton_surface.METRICS), offered & set(triton_surface.METRICS))


def test_every_setting_has_a_row(server: RunningServer) -> None:
    offered = {*shown(server, "v2/trace/setting"), *shown(server, "v2/logging")}
    check(rows("Settings"), set(triton_surface.SETTINGS), offered)
