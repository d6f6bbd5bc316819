"""What is served: folders on disk, their configurations, and the life of each version.

`lifecycle`, `versions` and `autocomplete` decide and are pure; `repository` reads the disk and writes nothing;
`config` turns config.pbtxt into a frozen `ModelConfig`. This room knows nothing of gRPC or HTTP.
"""
