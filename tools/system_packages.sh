#!/usr/bin/env bash
# system_packages.sh PACKAGE...: makes Debian packages usable, in the first of these ways that works:
#   1. it is installed already;
#   2. root: apt-get install, but not for `unpack:PACKAGE`, which would start a service of the system;
#   3. otherwise: downloaded with what it depends on, and unpacked into .cache/debian (nothing on the system changes;
#      who uses such a package looks for it there too).
# Otherwise says which package is missing and the command that installs it, and exits with 1. What needs the package
# (a test, a benchmark) then says so itself: callers may go on.
set -euo pipefail

cd "$(dirname "$0")/.."
unpacked=$PWD/.cache/debian
apt=(timeout 300 apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Acquire::http::Timeout=30)
export DEBIAN_FRONTEND=noninteractive

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install() {
    [ "$(id -u)" -eq 0 ] || return 1
    "${apt[@]}" install --no-install-recommends "$1" && return
    echo "system_packages: fetching the lists of packages and trying once more"
    "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$1"
}

unpack() {
    unpack_now "$1" && return
    [ "$(id -u)" -eq 0 ] || return 1
    echo "system_packages: fetching the lists of packages and trying once more"
    "${apt[@]}" update && unpack_now "$1"
}

unpack_now() (
    mkdir -p "$unpacked/archives"
    cd "$unpacked/archives"
    rm -f ./*.deb
    needed=$("${apt[@]}" --simulate --no-install-recommends install "$1" | awk '$1 == "Inst" {print $2}')
    [ -n "$needed" ] || exit 1
    for package in $needed; do
        "${apt[@]}" download "$package" || exit 1
        dpkg-deb --extract "$package"_*.deb "$unpacked" || exit 1
    done
    touch "$unpacked/$1.unpacked"
)

missing=()
for wanted in "$@"; do
    package=${wanted#unpack:}
    if is_installed "$package"; then
        echo "system_packages: $package is installed"
    elif [ -e "$unpacked/$package.unpacked" ]; then
        echo "system_packages: $package is unpacked in .cache/debian"
    elif ! command -v apt-get >/dev/null; then
        missing+=("$package")
    elif [ "$wanted" = "$package" ] && install "$package"; then
        echo "system_packages: installed $package"
    elif unpack "$package"; then
        echo "system_packages: unpacked $package into .cache/debian"
    else
        missing+=("$package")
    fi
done

if [ ${#missing[@]} -gt 0 ]; then
    echo "system_packages: MISSING ${missing[*]}. What needs them is skipped. As root: apt-get install ${missing[*]}" >&2
    exit 1
fi
