"""HTTP: health, costs, and the metrics page."""
