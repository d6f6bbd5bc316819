"""Users as Locust runs them: a closed loop, in one process or in many.

Pure, and free of Locust, whose import patches the standard library for gevent: `flags` (what Locust and `python -m
loadtest run` are both told), `mix` (which models, how often), `plans` (how many users, when), `latencies` (microseconds
in HDR histograms), `levels` (what was measured, in all and at each number of users), `reports` (the same as files).
On Locust: `users` (who sends what), `shapes` (plans as Locust's shapes), `recording` (levels, fed by Locust's events
across its workers), `page` (the same on Locust's web page).
"""
