"""Load tests and benchmarks. This room meets the server on the wire and nowhere else: it imports neither `server` nor
`training`, and starts a server as any user does, as a process.

`python -m loadtest run` puts Locust users on a server and judges the outcome; `python -m loadtest mlperf` offers a rate
and keeps to it; `python -m loadtest tune` looks for the best configuration; `python -m loadtest bench` measures servers
side by side. The parts: `payload` and `samples` (what is sent, and whether an answer is right), `target` and `http_v2`
(a server as seen on the wire: gRPC, HTTP v2), `processes` (servers of our own), `figures` and `verdict` (arithmetic,
limits), `open_loop`, `h2load` and `perf_analyzer` (load generators), `mlperf` (scenarios), `tune`, `bench` (one file
per kind of workload), `floors` (what others cost), `swarm` (Locust), and `locustfile`, which is also usable with plain
`locust -f`.
"""
