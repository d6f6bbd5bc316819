"""Microseconds on Locust's web page: a tab with a row for each kind of request, and the same as JSON and CSV.

`/latencies` and `/latencies/csv`, under --web-base-path, and behind --web-login where that is asked for. By the hooks
that Locust documents for extending its page: the page's template arguments, and more in the answer that it polls for.
"""

from __future__ import annotations

import json

from flask import Blueprint, Response, jsonify, request
from locust.env import Environment

from loadtest.swarm.latencies import PERCENTILES, percentile_name
from loadtest.swarm.recording import Recording, options_of
from loadtest.swarm.reports import as_csv, rows

_TAB = "latencies"
_COLUMNS = [
    ("type", "Type"),
    ("name", "Name"),
    ("requests", "# Requests"),
    ("failures", "# Fails"),
    ("min_ms", "Min (ms)"),
    ("mean_ms", "Mean (ms)"),
    *((percentile_name(percent), f"{percent:g}% (ms)") for percent in PERCENTILES),
    ("max_ms", "Max (ms)"),
]


def add_page(environment: Environment, recording: Recording) -> None:
    """Adds it to the page of `environment`, before that is served."""
    web_ui = environment.web_ui
    assert web_ui is not None and web_ui.app is not None, "there is a page"
    base = options_of(environment).web_base_path or ""
    blueprint = Blueprint(_TAB, __name__, url_prefix=base or None)

    @blueprint.route("/latencies")
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def latencies() -> Response:
        return jsonify(rows(recording.refresh().totals))

    @blueprint.route("/latencies/csv")
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def latencies_csv() -> Response:
        disposition = {"Content-Disposition": "attachment;filename=latencies.csv"}
        return Response(as_csv(recording.refresh().totals), mimetype="text/csv", headers=disposition)

    @web_ui.app.after_request
    def with_latencies(response: Response) -> Response:
        if request.path == f"{base}/stats/requests" and response.is_json:
            more = {"extended_stats": [{"key": _TAB, "data": rows(recording.refresh().totals)}]}
            response.set_data(json.dumps({**response.get_json(), **more}))
        return response

    web_ui.app.register_blueprint(blueprint)
    web_ui.template_args |= {
        # No unit: Locust shows titles of tabs in capitals, in which µs reads MS.
        "extended_tabs": [{"title": "Latencies (HDR)", "key": _TAB}],
        "extended_tables": [{"key": _TAB, "structure": [{"key": name, "title": title} for name, title in _COLUMNS]}],
        "extended_csv_files": [{"href": "./latencies/csv", "title": "Download latencies CSV"}],
    }
