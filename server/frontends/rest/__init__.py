"""HTTP: health today, the whole v2 protocol later, and the metrics page."""
