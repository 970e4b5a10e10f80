# shellcheck shell=bash
# The Debian packages that everything else stands on.
#
# What counts is whether a thing works, not who installed it: a package is asked for only where
# its program is missing, so a machine with its own compiler or Python keeps them.

# need_debian_packages: installs what is missing.
need_debian_packages() {
    local missing=()
    command -v fusermount3 >/dev/null || missing+=(fuse3)
    command -v cc >/dev/null || missing+=(build-essential)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
    command -v ip >/dev/null || missing+=(iproute2)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    install_debian_packages "${missing[@]}"
    [[ -e /dev/fuse ]] || as_root modprobe fuse ||
        die "there is no /dev/fuse: load the kernel's fuse module (modprobe fuse), or start the container with --device /dev/fuse"
}

# need_postgresql: PostgreSQL's programs. The tests start servers of their own, so none is set up or
# started for the machine where this installs it.
need_postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    local settings=/etc/postgresql-common/createcluster.d/openduck.conf
    as_root mkdir -p "${settings%/*}"
    echo "create_main_cluster = false" | as_root tee "$settings" >/dev/null
    install_debian_packages postgresql openssl
    as_root rm "$settings"
}

install_debian_packages() {
    (($# > 0)) || return 0
    say "   installing Debian packages: $*"
    command -v apt-get >/dev/null ||
        die "this is not a Debian system: install what these packages hold, then run again: $*"
    quietly as_root apt-get update
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends --no-remove "$@"
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed, and there is no sudo; run this as root, then try again: $*"
    fi
}
