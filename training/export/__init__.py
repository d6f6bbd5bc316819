"""From a network to a served model: ONNX, proof that ONNX Runtime computes what torch computes, and only then files.

    python -m training export lenet5 [--output softmax|logits] [--input tensor|pixels] [--fp16 | --int8] …

`options` says in which form, `source` what of; `publish` has the steps in their order. See docs/export.md.
"""

from training.export.repository import next_version
from training.export.run import export_run
from training.export_options import ExportOptions

__all__ = ["ExportOptions", "export_run", "next_version"]
