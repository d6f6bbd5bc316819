"""Our engines and what lies under them, side by side on this machine: `python -m loadtest bench WORKLOAD`.

All servers of a workload run all the time and take turns: round after round, one volley each, so that a machine that
grows slower harms all alike. What counts is the median of the rounds, and above all the ratios: absolute figures are
this machine's. Before that, one request to each server is checked in full; after each volley, what a server of ours has
counted must be what was sent.

`workloads` lists the workloads; each is a function from a `Plan` to its section of bench.json: `unary` (small
requests), `large`, `idle` (connections), `loading` (beside serving), `soak` (memory), `analyzer` (perf_analyzer); and
of the load generators themselves: `generator`, `agreement`, `stall`.
They stand on `servers` (what is started and fired at) and `comparison` (turns, medians, ratios, the table).
"""
