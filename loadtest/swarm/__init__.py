"""Users as Locust runs them: a closed loop, in one process or in many.

The parts: `flags` (what Locust and `python -m loadtest run` are both told), `mix` (which models, how often), `users`
(who sends what), `shapes` (how many users, when), `latencies` (microseconds in HDR histograms; pure), `levels` (what was
measured at each number of users; pure), `recording` (the two, fed by Locust's events, across its workers), `page` (the
same on Locust's web page), `reports` (files). `users` patches the standard library for gevent, as Locust does.
"""
