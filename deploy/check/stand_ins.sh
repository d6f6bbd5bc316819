# Sourced by deploy/check.sh: images that stand in for those of a registry, made of Debian packages under the same names.
# They live in the private engine of engine.sh only.
#
#   python      bookworm with Debian's python3.11: the same release and folders, another build of Python
#   prometheus  that of Debian forky, as the user and with the volume of the published image
#   nginx       that of Debian forky: bookworm's knows no `resolve`
#   grafana     is not in Debian: not run

make_stand_ins() {
    local image
    for image in $(python_image) $(.venv/bin/docker-compose --profile '*' config --images); do
        have "$image" && continue
        case $image in
        python:*) make_python "$image" ;;
        nginx:*) from_forky "$image" 'STOPSIGNAL SIGQUIT' ;;
        prom/prometheus:*)
            from_forky "$image" 'RUN install -d -o 65534 -g 65534 /prometheus' 'VOLUME /prometheus' \
                'ENTRYPOINT ["/usr/bin/prometheus"]'
            ;;
        *) continue ;;
        esac || return 1
    done
    echo "python, nginx, prometheus"
}

python_image() {
    sed -n 's/^ARG PYTHON_IMAGE=//p' deploy/docker/Dockerfile
}

have() {
    docker image inspect "$1" >/dev/null 2>&1
}

bootstrap() { # SUITE PACKAGES: a root of that release in .cache/deploy/SUITE
    local suite=$1 packages=$2 into=$root/.cache/deploy/$1
    [ ! -e "$into/.whole" ] || return 0
    rm -rf "$into"
    debootstrap --variant=minbase --include="$packages" "$suite" "$into" "$(debian_mirror)" \
        /usr/share/debootstrap/scripts/sid || return 1
    touch "$into/.whole"
}

debian_mirror() { # the one that this machine's apt uses
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m 1 '/debian/\?$'
}

make_python() {
    local image=$1 into=$root/.cache/deploy/bookworm
    bootstrap bookworm python3,python3-venv,python3-dev,ca-certificates || return 1
    ln -sf ../../bin/python3 "$into/usr/local/bin/python"
    # What this machine's pip knows about the way to the index must be known in there as well.
    {
        echo "[global]"
        "$python" -m pip config list |
            sed -nE "s/^[^.]+\.(index-url|trusted-host|proxy|default-timeout|timeout)='(.*)'$/\1 = \2/p"
        echo "cert = /etc/ssl/certs/ca-certificates.crt"
    } >"$into/etc/pip.conf"
    # As published images have it: apt keeps neither packages nor its caches.
    printf '%s\n' 'APT::Keep-Downloaded-Packages "false";' 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' \
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' \
        'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' \
        >"$into/etc/apt/apt.conf.d/docker-clean"
    cp /etc/ssl/certs/ca-certificates.crt "$into/etc/ssl/certs/ca-certificates.crt"
    import "$into" "$image"
}

from_forky() { # IMAGE LINE...: forky with nginx and Prometheus, and further lines of a Dockerfile
    local image=$1
    shift
    bootstrap forky nginx-light,netcat-openbsd,prometheus || return 1
    have convoy-check/forky || import "$root/.cache/deploy/forky" convoy-check/forky || return 1
    printf '%s\n' 'FROM convoy-check/forky' 'ENV PATH=/usr/sbin:/usr/bin' "$@" |
        docker build --quiet --tag "$image" -
}

import() {
    tar -C "$1" --exclude './var/cache/apt/archives/*.deb' --exclude ./.whole -c . | docker import - "$2"
}

# The torch that this machine's pip finds, which may be a build for CPUs that PyPI does not have, as a package index.
serve_torch() {
    local folder=$root/.cache/deploy/index/simple/torch
    mkdir -p "$folder"
    "$python" -m pip download --quiet --no-deps --constraint constraints.txt --dest "$folder" torch || return 1
    "$python" -m http.server --bind 127.0.0.1 --directory "$root/.cache/deploy/index" "$index_port" >/dev/null 2>&1 &
    index_pid=$!
    export CONVOY_TORCH_INDEX_URL=http://127.0.0.1:$index_port/simple
    ls "$folder"
}
