"""Models that other frameworks exported, with answers of the frameworks themselves. See docs/models.md."""
