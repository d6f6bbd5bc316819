"""Callers that a server must bear, who do not read or who leave, and one who asks how it is meanwhile.

Each is a process of its own: `python -m loadtest.overload.crew`, `python -m loadtest.overload.prober`.
"""
