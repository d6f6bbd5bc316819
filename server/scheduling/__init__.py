"""Who runs together, and when. `queue` and `policy` decide and are pure; `batcher`, `lanes`, `clock` are the shell."""
