"""`python -m loadtest tune`: which configuration of a model serves a load best, found by measuring.

The parts: `candidates` (what a configuration decides, to and from `inference.ModelConfig`), `space` (what may be tried
next), `judging` (which of two is better, and when that is noise), `search` (what is tried, and how often), all pure;
`hosts` (a candidate → a model that is served), `measuring` (a load → figures), `config_file` (config.pbtxt, rewritten),
`report` and `command`.
"""
