# shellcheck shell=bash
# The Rust toolchain, and what is built with it.

# need_rust: the toolchain on PATH, or Debian 12's own (its security archive keeps one for the web
# browsers), or a word on where to get one.
need_rust() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO_DIR/Cargo.toml")
    if rust_is_at_least "$wanted"; then
        return
    fi
    if ! command -v rustc >/dev/null; then
        say "   no Rust here; trying Debian's"
        install_debian_packages rustc-web cargo-web rustfmt-web
        hash -r
    fi
    rust_is_at_least "$wanted" ||
        die "Rust $wanted or newer is needed, and $(rustc --version 2>/dev/null || echo none) is here; get one from https://rustup.rs"
}

rust_is_at_least() {
    command -v cargo >/dev/null && command -v rustc >/dev/null || return 1
    local version
    version=$(rustc --version | cut -d' ' -f2)
    printf '%s\n' "$1" "${version%%-*}" | sort --version-sort --check=quiet
}

# build_openduck_fs: makes the release binary, and sets OPENDUCK_FS to it.
build_openduck_fs() {
    cargo build --manifest-path "$REPO_DIR/Cargo.toml" --release --locked -p difffs
    export OPENDUCK_FS=$CARGO_TARGET_DIR/release/openduck-fs
}

# build_openduck: makes the release binary, and sets OPENDUCK to it. Needs need_libduckdb before.
build_openduck() {
    cargo build --manifest-path "$REPO_DIR/Cargo.toml" --release --locked -p exec
    export OPENDUCK=$CARGO_TARGET_DIR/release/openduck
}

# build_measuring_client: the client of scripts/bench/exec; sets OPENDUCK_CLIENT to it.
build_measuring_client() {
    cargo build --manifest-path "$REPO_DIR/Cargo.toml" --release --locked -p exec --example client
    export OPENDUCK_CLIENT=$CARGO_TARGET_DIR/release/examples/client
}

# need_fsx: the file-system exerciser; sets OPENDUCK_FSX to it.
need_fsx() {
    export OPENDUCK_FSX=$CACHE_DIR/fsx/bin/fsx
    if [[ $("$OPENDUCK_FSX" --version 2>/dev/null) != "fsx $FSX_VERSION" ]]; then
        cargo install --locked --force --root "$CACHE_DIR/fsx" --version "=$FSX_VERSION" fsx
    fi
}

# need_s3_server: a real S3 server for the tests; sets OPENDUCK_S3_SERVER to it.
need_s3_server() {
    local root=$CACHE_DIR/s3s-fs
    export OPENDUCK_S3_SERVER=$root/bin/s3s-fs
    if [[ $("$OPENDUCK_S3_SERVER" --version 2>/dev/null) != "s3s-fs $S3_SERVER_VERSION" ]]; then
        cargo install --locked --force --root "$root" --target-dir "$root/target" \
            --version "=$S3_SERVER_VERSION" --features binary s3s-fs
        rm -rf "$root/target"
    fi
}
