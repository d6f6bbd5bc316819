# Sourced by deploy/check.sh: a Docker Engine. The one that runs here, or else Debian's, unpacked into .cache/deploy and
# started for this run alone: no service, no network of the machine's own changed, no firewall rule, stopped at the end.

engine_home=$root/.cache/deploy/engine
engine_pid=""

# Sets DOCKER_HOST and stands_in (whether images come from stand_ins.sh instead of a registry), or says why it cannot.
start_engine() {
    if docker info >/dev/null 2>&1; then
        stands_in=false
        echo "$(docker info --format '{{.ServerVersion}}'), which runs here; published images come from their registries"
        return
    fi
    stands_in=true
    [ "$(id -u)" -eq 0 ] || { echo "no Docker Engine runs here, and only root may start one"; return 1; }
    command -v apt-get >/dev/null || { echo "no Docker Engine runs here, and Debian's is not to be had"; return 1; }
    bash tools/system_packages.sh debootstrap iptables || return 1
    unpack_engine || { echo "Debian's docker.io could not be unpacked"; return 1; }
    export PATH=$engine_home/unpacked/usr/sbin:$engine_home/unpacked/usr/bin:$PATH
    export DOCKER_HOST=unix://$engine_home/docker.sock DOCKER_BUILDKIT=0
    # Its own mount namespace: there the cgroups look like version 1 alone where the machine mounts both.
    unshare --mount bash -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"' engine \
        env LD_LIBRARY_PATH="$(echo "$engine_home"/unpacked/usr/lib/*-linux-gnu)" \
        dockerd --data-root "$engine_home/data" --exec-root "$engine_home/exec" --pidfile "$engine_home/dockerd.pid" \
        --host "$DOCKER_HOST" --iptables=false --ip6tables=false --bridge=none --exec-opt native.cgroupdriver=cgroupfs \
        >"$engine_home/dockerd.log" 2>&1 &
    engine_pid=$!
    wait_until 60 docker info || { tail -n 5 "$engine_home/dockerd.log"; return 1; }
    echo "Debian's $(docker info --format '{{.ServerVersion}}'), started for this run, with its classic builder"
}

unpack_engine() (
    [ ! -e "$engine_home/whole" ] || exit 0
    packages=(docker.io containerd runc tini libdevmapper1.02.1)
    mkdir -p "$engine_home/debs" && cd "$engine_home/debs" || exit 1
    apt-get -q download "${packages[@]}" || { apt-get -q update && apt-get -q download "${packages[@]}"; } || exit 1
    for package in ./*.deb; do dpkg-deb --extract "$package" "$engine_home/unpacked" || exit 1; done
    touch "$engine_home/whole"
)

stop_engine() {
    [ -n "$engine_pid" ] || return 0
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=""
}
