#!/usr/bin/env bash
# make_venv.sh PYTHON FOLDER: a fresh virtual environment with pip, or one sentence that says what is missing.
# Debian keeps ensurepip in a package of its own: root gets it here, anybody else is told its name.
set -euo pipefail

python=$1
folder=$2

fail() {
    echo "make_venv: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "no '$python' here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11 ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Convoy needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Name another: make PYTHON=/path/to/python3.11 ..."
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    [ "$(id -u)" -ne 0 ] || bash "$(dirname "$0")/system_packages.sh" python3-venv || true
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "'$python' cannot make virtual environments (no ensurepip). As root: apt-get install python3-venv"
fi

echo "== making $folder with $("$python" --version 2>&1)"
"$python" -m venv --clear "$folder" || {
    rm -rf "$folder"
    fail "'$python -m venv' failed, see above"
}
