"""Answers that were given before: what is kept, under which key, and where. It knows tensors, and no model."""
