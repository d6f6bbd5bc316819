"""Other people's servers, each with the same model: one file per peer, a table of them all in `catalogue`.

An adapter (`litserve.py`, `mlserver.py`, …) says how its peer is started, what a request to it looks like, and how it
is configured. What runs in a peer's own virtual environment is in `programs/`; `environments` makes these from the
pinned versions in `requirements/`. `base` has the types, `calls` what travels.
"""
