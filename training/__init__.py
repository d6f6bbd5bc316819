"""Networks of the papers, trained on the data at hand and exported to ONNX.

Must not know the server: they meet in `model_repository/`.
"""
