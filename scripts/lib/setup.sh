# shellcheck shell=bash source-path=SCRIPTDIR
# Everything a fresh Debian 12 machine needs, in order; quick where it is there already.

LIB_DIR=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=common.sh
. "$LIB_DIR/common.sh"
# shellcheck source=pins.sh
. "$LIB_DIR/pins.sh"
# shellcheck source=debian.sh
. "$LIB_DIR/debian.sh"
# shellcheck source=rust.sh
. "$LIB_DIR/rust.sh"
# shellcheck source=python.sh
. "$LIB_DIR/python.sh"
# shellcheck source=libduckdb.sh
. "$LIB_DIR/libduckdb.sh"
# shellcheck source=extension.sh
. "$LIB_DIR/extension.sh"

# setup_to_run: what the demo and the benchmark need.
setup_to_run() {
    in_turn set_up_tools
    step "openduck-fs (cargo build --release)" build_openduck_fs
}

# setup_to_test: the servers and the file-system exerciser on top.
setup_to_test() {
    setup_to_run
    setup_to_serve
    setup_to_attach
    setup_servers
    in_turn step "fsx $FSX_VERSION" need_fsx
}

# setup_to_serve: the gateway and its workers on top of setup_to_run.
setup_to_serve() {
    in_turn step "DuckDB $LIBDUCKDB_VERSION as a library" need_libduckdb
    step "openduck (cargo build --release)" build_openduck
}

# setup_to_attach: the DuckDB extension on top of setup_to_serve; sets OPENDUCK_EXTENSION_DIR to where it is.
setup_to_attach() {
    in_turn step "the extension's client, in Rust" extension_client
    in_turn step "the extension, in C++" extension_objects
    export OPENDUCK_EXTENSION_DIR=$CACHE_DIR/extension
    in_turn step "the extension's files" extension_files "$OPENDUCK_EXTENSION_DIR"
}

# setup_servers: what several hosts share.
setup_servers() {
    in_turn step "PostgreSQL" need_postgresql
    in_turn step "S3 server (s3s-fs $S3_SERVER_VERSION)" need_s3_server
}

set_up_tools() {
    step "Debian packages" need_debian_packages
    step "Rust" need_rust
    step "Python with DuckDB ${DUCKDB_VERSIONS[*]}" need_pythons
}
