#!/usr/bin/env bash
# check.sh [--static | --no-train]: lints what lies in deploy/ and docker-compose.yml, then builds the images and runs
# them: with the Docker Engine of this machine and its registry, or, where there is none, with Debian's engine and with
# images made of Debian packages (deploy/check/). docs/deployment.md says what that proves and what it does not.
#
#   --static     lint only: no engine, no root, seconds
#   --no-train   all but the image that holds PyTorch
#
# Wants .venv with everything (make install-dev). The first run takes a quarter of an hour, later ones some minutes;
# what it keeps is in .cache/deploy (10 GB and, as the source changes, more; remove it at will).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
python=$root/.venv/bin/python
port=${CONVOY_CHECK_PORTS:-18000} # and the dozen after it
index_port=$((port + 12))
index_pid=""
mode=${1:-}
failures=0
summary=()
mkdir -p .cache/deploy
log=$root/.cache/deploy/last-step.log

# shellcheck source=deploy/check/engine.sh
. deploy/check/engine.sh
# shellcheck source=deploy/check/stand_ins.sh
. deploy/check/stand_ins.sh
# shellcheck source=deploy/check/runs.sh
. deploy/check/runs.sh

check() { # WHAT COMMAND...: the verdict, and the last line that the command printed
    local what=$1 verdict=ok said
    shift
    echo "== $what"
    "$@" >"$log" 2>&1 || { verdict=FAIL failures=$((failures + 1)); tail -n 25 "$log"; }
    said=$(tail -n 1 "$log" | cut -c 1-160)
    summary+=("$(printf '%-4s  %s%s' "$verdict" "$what" "${said:+: $said}")")
    echo "   $verdict${said:+: $said}"
    [ "$verdict" = ok ]
}

not_run() { # WHAT WHY
    summary+=("      not run: $1: $2")
}

wait_until() { # SECONDS COMMAND...
    local last=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$last" ] || { echo "not within the time: $*"; return 1; }
        sleep 0.3
    done
}

finish() {
    local status=$?
    trap - EXIT INT TERM
    [ "$mode" = --static ] || take_down || true
    [ -z "$index_pid" ] || kill "$index_pid" 2>/dev/null || true
    stop_engine
    echo
    echo "deploy/check.sh, $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD 2>/dev/null || echo 'no git'):"
    printf '  %s\n' "${summary[@]}"
    [ "$status" -eq 0 ] || echo "  stopped early"
    [ "$failures" -eq 0 ] || echo "  $failures failed"
    exit $((status ? status : failures > 0))
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

lint_dockerfile() {
    .venv/bin/hadolint deploy/docker/Dockerfile && .venv/bin/hadolint --version
}

lint_compose() {
    .venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml >/dev/null || return 1
    .venv/bin/docker-compose --profile '*' config --quiet && .venv/bin/docker-compose version
}

lint_shell() {
    if command -v shellcheck >/dev/null; then shellcheck -x deploy/check.sh && echo shellcheck; else bash -n deploy/check.sh; fi
}

check "the Dockerfile, linted by hadolint" lint_dockerfile || true
check "docker-compose.yml, by the schema of compose-spec and by Docker Compose" lint_compose || true
check "these scripts" lint_shell || true
[ "$mode" != --static ] || exit 0

check "a Docker Engine" start_engine || exit 1
if $stands_in; then
    check "images of Debian packages that stand in for published ones" make_stand_ins || exit 1
fi
build_images
run_server_alone
run_compose
