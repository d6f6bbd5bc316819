"""Why ONNX Runtime does not load a file, in words that say what to do. Pure: its message in, a sentence out.

ONNX Runtime's own words begin with places in its source code, and name the cause without the remedy.
"""

from __future__ import annotations

import re

NEWER = "or install a newer ONNX Runtime"

EXPLANATIONS = {
    r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)": (
        "it is of opset {0} of {1}, and this ONNX Runtime knows opsets up to {2}; export it with an older one "
        f"(torch: opset_version, tf2onnx: opset, skl2onnx: target_opset), {NEWER}"
    ),
    r"Unsupported model IR version: (\d+), max supported IR version: (\d+)": (
        "its format is IR version {0}, and this ONNX Runtime reads up to {1}; set model.ir_version = {1} with the "
        f"package onnx and save it anew, {NEWER}"
    ),
    r"Failed to construct locale with name:(\S+?):": (
        "its text operators want the locale '{0}', which this machine does not have; install it (Debian: package "
        "locales-all), or export the model with locale C.UTF-8 (skl2onnx: options={{TfidfVectorizer: "
        "{{'locale': 'C.UTF-8'}}}})"
    ),
    r"(\S+)\(-?\d+\) is not a registered function/op": (
        "it has the operator '{0}', which ONNX Runtime does not have; name the library that has it in the field "
        "model_operations.op_library_filename (for ai.onnx.contrib: that of onnxruntime-extensions), and start the "
        "server with --allow-custom-ops=true"
    ),
    r"No Op registered for (\S+) with domain_version of (\d+)": (
        "it has the operator '{0}', which opset {1} does not have; export it with a newer opset"
    ),
    r"Could not find an implementation for (\w+)\((\d+)\)": (
        "it has the operator '{0}' of opset {1}, which ONNX Runtime cannot run here in these datatypes; export it "
        "with a newer opset (at least 7), or in float32"
    ),
}
"""What is to be found in a message, and what it means; the first that is found counts."""


def explained(message: str) -> str:
    """The message, behind what it means where that is known."""
    message = message.strip()
    for pattern, meaning in EXPLANATIONS.items():
        found = re.search(pattern, message)
        if found:
            return f"{meaning.format(*found.groups())} ({message})"
    return message


def unserved_type(kind: str, name: str, onnx_type: str) -> str:
    """Why a tensor of this type has no place in the protocol. `kind` is "input" or "output"."""
    what = f"{kind} '{name}' is a {onnx_type}"
    if "map(" in onnx_type:
        return (
            f"{what}, and maps have no place in the protocol; export the model so that it gives a tensor (skl2onnx: "
            "options={'zipmap': False}, onnxmltools: zipmap=False)"
        )
    if not onnx_type.startswith("tensor("):
        return f"{what}, and only tensors have a place in the protocol; export the model with a tensor in its place"
    return f"{what}, a datatype that the protocol does not have; convert it inside of the model, to FP16 for example"
