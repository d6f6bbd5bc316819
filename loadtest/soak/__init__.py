"""Everything that clients do, for half an hour, to one server: does it leak, lose a request, or answer a wrong one?

`python -m loadtest soak`. What is pure: `schedule` (what is done when, by a seed), `cases` (requests whose answers are
known), `tally` (what clients saw), `books` (whether the server counted the same) and `verdict` (whether a series of
samples is flat). At the edge: `models` writes the repository, `callers`, `http_connection` and `triton_clients` speak
the protocols, `actions` does what the schedule says, `player` runs it all in processes of its own, `sampling` looks at
the server meanwhile, `report` writes what came of it, and `command` puts them together.
"""
