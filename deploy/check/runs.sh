# Sourced by deploy/check.sh: builds the images, and runs them as docker-compose.yml and the Dockerfile say.

project=convoy-check
repository=$root/.cache/deploy/models
override=$root/.cache/deploy/override.yml
alone=convoy-check-alone
digits=(.venv/bin/python examples/classify_digits.py --all --url)

compose() {
    COMPOSE_PROGRESS=plain COMPOSE_ANSI=never .venv/bin/docker-compose --project-name "$project" \
        --file docker-compose.yml --file "$override" "$@"
}

# What this run has of its own: ports, a tag, a copy of the model repository, one epoch of training; and, in the private
# engine, the machine's network for builds, since it has none of its own.
settings_of_this_run() {
    local network="" service
    ! $stands_in || network="network: host"
    {
        echo "services:"
        for service in server replica loadtest loadtest-worker export; do
            echo "  $service: { build: { $network } }"
        done
        echo "  train: { build: { $network }, command: [train, lenet5, --epochs, '1'] }"
    } >"$override"
    rm -rf "$repository"
    cp -R model_repository "$repository"
    [ "$(id -u)" -ne 0 ] || chown -R 1000:1000 "$repository"
    export CONVOY_TAG=check CONVOY_MODEL_REPOSITORY=$repository CONVOY_LOAD_RUN_TIME=10s
    export CONVOY_LOAD_TARGET=lb:8001 CONVOY_REVISION
    CONVOY_REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    local name
    for name in HTTP GRPC METRICS LB PROMETHEUS GRAFANA LOCUST GPU_HTTP GPU_GRPC GPU_METRICS; do
        export "CONVOY_${name}_PORT=$((port++))"
    done
}

build_images() {
    settings_of_this_run
    check "the image of server, built" build server || exit 1
    check "the image of loadtest, built" build loadtest || exit 1
    if [ "$mode" = --no-train ]; then
        not_run "the image of train" "--no-train"
    else
        ! $stands_in || check "the torch of this machine's pip, for the image" serve_torch || exit 1
        check "the image of train, built" build train || exit 1
    fi
    not_run "the image of server-gpu" "gigabytes of CUDA, and no GPU; linted with the rest of the Dockerfile"
}

build() {
    compose --profile '*' build "$1" && docker image inspect "convoy/$1:check" --format '{{.Size}}' |
        awk '{printf "%d MB with the base image\n", $1 / 1e6}'
}

# Without compose and without an init: the image's own HEALTHCHECK, ENTRYPOINT, USER and STOPSIGNAL.
run_server_alone() {
    check "server alone, read-only, no init: its own HEALTHCHECK says healthy" alone_is_healthy || true
    check "server alone: the probe, from start to exit" probe_time || true
    check "server alone: SIGTERM to the first process, exit code 0" stops_cleanly "$alone" || true
    check "server alone: SIGTERM at once, while it imports" stops_while_it_starts || true
}

start_alone() {
    docker rm --force "$alone" >/dev/null 2>&1 || true
    docker run --detach --name "$alone" --network none --read-only --tmpfs /tmp --cap-drop ALL \
        --security-opt no-new-privileges --volume "$repository:/models:ro" convoy/server:check
}

health() {
    [ "$(docker inspect "$1" --format '{{.State.Health.Status}}')" = healthy ]
}

alone_is_healthy() {
    start_alone && wait_until 90 health "$alone" && docker logs "$alone"
}

probe_time() {
    docker exec "$alone" python -c '
import subprocess, sys, time
times = []
for _ in range(9):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "server.healthcheck"], check=True)
    times.append(time.perf_counter() - began)
print(f"{min(times) * 1e3:.0f} ms at best, {sorted(times)[4] * 1e3:.0f} ms in the middle of nine")'
}

stops_cleanly() { # CONTAINER
    local began=$SECONDS
    docker stop --time 60 "$1" && exit_code_is_0 "$1" && echo "exit code 0 after $((SECONDS - began)) s"
}

exit_code_is_0() {
    local code
    code=$(docker inspect "$1" --format '{{.State.ExitCode}}')
    [ "$code" = 0 ] || { docker logs --tail 10 "$1"; echo "$1: exit code $code"; return 1; }
}

stops_while_it_starts() {
    start_alone && wait_until 20 docker exec "$alone" python -c 'open("/proc/1/maps").read().index("onnxruntime")' &&
        stops_cleanly "$alone"
}

run_compose() {
    check "compose up: server and prometheus are healthy" compose up --detach --no-build --wait server prometheus ||
        return 0
    check "an inference from outside" "${digits[@]}" "127.0.0.1:$CONVOY_GRPC_PORT" || true
    check "hardening, seen from inside the server" hardened || true
    check "prometheus scrapes the server" prometheus_counts 'count(up{job="convoy"} == 1)' 1 || true
    check "profile scale: two replicas and nginx are healthy" \
        compose --profile scale up --detach --no-build --wait server replica lb || return 0
    check "inferences through nginx" "${digits[@]}" "127.0.0.1:$CONVOY_LB_PORT" || true
    check "prometheus found all three" prometheus_counts 'count(up{job="convoy"} == 1)' 3 || true
    check "each of the three has answered" \
        prometheus_counts 'count(nv_inference_request_success{model="lenet5"} > 0)' 3 || true
    check "profile load: Locust's master and workers are healthy" \
        compose --profile load up --detach --no-build --wait loadtest loadtest-worker || return 0
    check "a replica is stopped under load, exit code 0" stops_cleanly "$project-replica-1" || true
    check "Locust's run, through nginx, a replica stopped meanwhile" locust_has_run || true
    check "a load test with a verdict, straight to one server" verdict || true
    if [ "$mode" != --no-train ]; then
        check "profile train: one epoch, exported into the repository" trains || true
        check "the server has taken up the new version by itself" wait_until 60 serves_version_2 || true
    fi
    check "docker compose stop: every exit code is 0" all_stop || true
    ! $stands_in || not_run "grafana" "it is in no Debian package"
}

hardened() {
    docker exec "$project-server-1" python -c '
import os, pathlib
for folder in ("/", "/srv", "/opt/convoy", "/models"):
    try:
        pathlib.Path(folder, "written").touch()
    except OSError:
        continue
    raise SystemExit(f"{folder} can be written to")
for folder in ("/tmp", "/var/cache/convoy"):
    pathlib.Path(folder, "written").touch()
status = dict(line.split(":\t") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
assert os.getuid() == 10001, os.getuid()
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, status
assert status["NoNewPrivs"] == "1"
assert b"init" in pathlib.Path("/proc/1/cmdline").read_bytes().split(b"\0")[0]
' && docker inspect "$project-server-1" \
        --format 'uid 10001, no capability, read-only disk, init; {{.HostConfig.Memory}} bytes, {{.HostConfig.NanoCpus}} nano-CPUs'
}

prometheus_counts() { # QUERY VALUE
    wait_until 60 prometheus_says "$@" && echo "$2"
}

prometheus_says() {
    "$python" - "http://127.0.0.1:$CONVOY_PROMETHEUS_PORT/api/v1/query" "$@" <<'PROGRAM'
import json, sys, urllib.parse, urllib.request

url, query, wanted = sys.argv[1:]
with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode({'query': query})}", timeout=5) as answer:
    result = json.load(answer)["data"]["result"]
sys.exit([sample["value"][1] for sample in result] != [wanted])
PROGRAM
}

locust_has_run() {
    wait_until 60 locust_is stopped && locust_is stopped
}

locust_is() {
    "$python" - "http://127.0.0.1:$CONVOY_LOCUST_PORT/stats/requests" "$1" <<'PROGRAM'
import json, sys, urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
    page = json.load(answer)
total = next(row for row in page["stats"] if row["name"] == "Aggregated")
print(f"{total['num_requests']} requests of {len(page['workers'])} workers, {total['num_failures']} failures")
sys.exit(page["state"] != sys.argv[2] or total["num_requests"] < 100 or total["num_failures"] > 0)
PROGRAM
}

verdict() {
    compose --profile load run --rm --no-deps --entrypoint python loadtest -m loadtest run \
        --url server:8001 --seconds 5 --users 16 --p99-ms 1000
}

all_stop() {
    local container
    compose --profile scale --profile load stop || return 1
    for container in $(compose --profile '*' ps --all --format '{{.Name}}'); do
        exit_code_is_0 "$container" || return 1
        echo "$container"
    done
    echo "$(compose --profile '*' ps --all --quiet | wc -l) containers"
}

trains() {
    compose --profile train run --rm export && compose logs train | tail -n 1 &&
        test -s "$repository/lenet5/2/model.onnx" && (cd "$repository" && ls lenet5/2/*)
}

serves_version_2() {
    docker logs "$project-server-1" 2>&1 | grep "model 'lenet5' version 2 is READY"
}

take_down() {
    docker rm --force "$alone" >/dev/null 2>&1 || true
    [ ! -e "$override" ] || compose --profile '*' down --volumes --timeout 5 >/dev/null 2>&1 || true
}
