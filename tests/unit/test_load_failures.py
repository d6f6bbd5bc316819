"""ONNX Runtime's reasons, said so that somebody can act on them. Its own words are as ONNX Runtime 1.32 has them."""

from __future__ import annotations

import pytest

from server.backends.load_failures import explained, unserved_type

SAID = {
    "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 99 "
    "is under development and this is limited. Current official support for domain ai.onnx is till opset 28.": (
        "it is of opset 99 of ai.onnx, and this ONNX Runtime knows opsets up to 28; export it with an older one"
    ),
    "model.cc:256 Unsupported model IR version: 99, max supported IR version: 14": (
        "its format is IR version 99, and this ONNX Runtime reads up to 14; set model.ir_version = 14"
    ),
    "Failed to construct locale with name:en_US.UTF-8:locale::facet::_S_create_c_locale name not valid": (
        "its text operators want the locale 'en_US.UTF-8', which this machine does not have; install it"
    ),
    "failed:Fatal error: ai.onnx.contrib:BertTokenizer(-1) is not a registered function/op": (
        "it has the operator 'ai.onnx.contrib:BertTokenizer', which ONNX Runtime does not have; name the library"
    ),
    "Error No Op registered for Gelu with domain_version of 18": (
        "it has the operator 'Gelu', which opset 18 does not have; export it with a newer opset"
    ),
    "Could not find an implementation for MatMul(13) node with name ''": (
        "it has the operator 'MatMul' of opset 13, which ONNX Runtime cannot run here in these datatypes"
    ),
}


@pytest.mark.parametrize("message", SAID)
def test_a_known_failure_says_what_to_do_and_keeps_what_onnx_runtime_said(message: str) -> None:
    reason = explained(f"[ONNXRuntimeError] : 1 : FAIL : {message}\n")

    assert reason.startswith(SAID[message])
    assert reason.endswith(f"([ONNXRuntimeError] : 1 : FAIL : {message})")


def test_the_locale_that_every_machine_has_is_named_as_python() -> None:
    assert "options={TfidfVectorizer: {'locale': 'C.UTF-8'}}" in explained(
        "Failed to construct locale with name:xx: no"
    )


def test_an_unknown_failure_is_what_onnx_runtime_said() -> None:
    assert explained(" something {else}\n") == "something {else}"


@pytest.mark.parametrize(
    ("onnx_type", "reason"),
    [
        ("seq(map(int64,tensor(float)))", "maps have no place in the protocol; export the model so that it gives"),
        ("seq(tensor(float))", "only tensors have a place in the protocol"),
        ("optional(tensor(float))", "only tensors have a place in the protocol"),
        ("tensor(float8e4m3fn)", "a datatype that the protocol does not have; convert it inside of the model"),
    ],
)
def test_a_type_without_a_place_in_the_protocol_is_named_with_its_tensor(onnx_type: str, reason: str) -> None:
    said = unserved_type("output", "y", onnx_type)

    assert said.startswith(f"output 'y' is a {onnx_type}, ")
    assert reason in said
    assert ("zipmap" in said) == ("map(" in onnx_type)
