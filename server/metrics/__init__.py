"""The metrics page. Nothing is counted here: a scrape takes a `Snapshot` on the event loop's thread, and what follows
may run on any.

    snapshots   what a scrape finds, copied
    families    a snapshot as Prometheus's metric families: names, types, labels
    machine     the families of the machine and the process, which are read, not counted
    page        all of them together, as text or OpenMetrics
"""
