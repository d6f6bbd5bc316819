"""The scenarios of MLPerf Inference, on a server over the wire: `python -m loadtest mlperf`.

`early_stopping` says how many queries prove a percentile, `report` judges a run, both pure. `subject` is the model that
is asked and its traffic, `scenarios` carries out, `search` looks for the highest valid rate, `sweep` draws latency
against rate, `command` is the command line. The loops are those of `loadtest.open_loop`.
"""
