"""Dashboards as code: each module builds one, `generate` writes them to `dashboards/*.json`, which Grafana reads."""
