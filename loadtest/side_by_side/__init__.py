"""Servers of many makers side by side, each with the same model on the same machine: `python -m loadtest bench`.

One server runs at a time, fresh, and the servers take turns round after round, so that a machine that grows slower
harms all alike, and nobody's idle polling disturbs the others. A turn (`turn`) is: start, the first right answer, idle
memory, volleys of h2load with fixed numbers in flight, Poisson arrivals against an objective. What a turn has shown is
written at once (`records`); `report` makes docs/benchmarks.md of all records, `plots` its pictures. `guard` holds the
ratio of our server to the floors against `loadtest/baseline.json`. The servers are in `loadtest.peers`.
"""
