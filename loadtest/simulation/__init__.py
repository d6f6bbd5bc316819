"""The server's own batching policies in virtual time: what would happen under a load, without a model or a socket.

`arrivals` and `costs` say what comes and what it takes, `policies` makes the server's queues, `engine` runs them,
`fleet` runs several servers, `tally` counts, `points` runs many of these, `report` shows them, `command` is the command
line.
"""
