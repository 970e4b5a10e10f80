# shellcheck shell=bash
# DuckDB as a library, in the cache: headers, shared and static library, and the loadable TPC
# extensions of the tests. Everything here that needs DuckDB links against this one copy.
#
# It is taken from where it is cheapest, and a copy counts only after it has answered queries of its
# own: PyPI's client has core_functions, parquet, json and icu linked in, and so must this.
# A directory appears whole or not at all: it is filled under another name and renamed.

libduckdb_dir() { printf '%s/libduckdb-%s-linux-%s' "$CACHE_DIR" "$LIBDUCKDB_VERSION" "$(uname -m)"; }

# need_libduckdb: makes the directory where it lacks, and sets OPENDUCK_LIBDUCKDB to it.
need_libduckdb() {
    OPENDUCK_LIBDUCKDB=$(libduckdb_dir)
    export OPENDUCK_LIBDUCKDB
    [[ -e $OPENDUCK_LIBDUCKDB/origin ]] && return
    local source part=$OPENDUCK_LIBDUCKDB.part
    for source in given prebuilt official compiled; do
        rm -rf "$part"
        mkdir -p "$part"/{include,lib,extensions}
        "libduckdb_$source" "$part" || continue
        if ! libduckdb_answers "$part"; then
            say "   what the $source library answers is not what is needed"
            [[ $source != given ]] || die "DUCKDB_LIB_DIR=$DUCKDB_LIB_DIR does not hold DuckDB $LIBDUCKDB_VERSION with icu"
            continue
        fi
        printf '%s\n' "$source" >"$part/origin"
        rm -rf "$OPENDUCK_LIBDUCKDB"
        mv "$part" "$OPENDUCK_LIBDUCKDB"
        return
    done
    rm -rf "$part"
    die "there is no way to get DuckDB $LIBDUCKDB_VERSION here; set DUCKDB_LIB_DIR to a folder with libduckdb.so and libduckdb_static.a"
}

libduckdb_answers() { PYTHONPATH=$REPO_DIR/scripts/py python3 -B -m libduckdb "$1" "$LIBDUCKDB_SOURCE_ID"; }

# From a folder of the user's, which may lack the TPC extensions; DUCKDB_INCLUDE_DIR may hold its
# headers.
libduckdb_given() {
    [[ -n ${DUCKDB_LIB_DIR:-} ]] || return
    say "   copying $DUCKDB_LIB_DIR"
    cp "$DUCKDB_LIB_DIR"/libduckdb.so "$DUCKDB_LIB_DIR"/libduckdb_static.a "$1/lib/" ||
        die "DUCKDB_LIB_DIR=$DUCKDB_LIB_DIR lacks libduckdb.so or libduckdb_static.a"
    cp "$DUCKDB_LIB_DIR"/*.duckdb_extension "$1/extensions/" 2>/dev/null || true
    if [[ -n ${DUCKDB_INCLUDE_DIR:-} ]]; then
        cp -r "$DUCKDB_INCLUDE_DIR/." "$1/include/"
    else
        libduckdb_headers "$1"
    fi
}

# From an archive beside the checkout.
libduckdb_prebuilt() {
    local name archive
    name=libduckdb-$LIBDUCKDB_VERSION-linux-$(uname -m)
    archive=$REPO_DIR/../shared/prebuilt/$name.tar.zst
    [[ -e $archive ]] && command -v zstd >/dev/null && runs_x86_64_v3 || return
    echo "$LIBDUCKDB_PREBUILT_SHA256  $archive" | sha256sum --check --status || return
    say "   unpacking $archive"
    tar --zstd -xf "$archive" -C "$1" --strip-components=1 && libduckdb_headers "$1"
}

# x86-64-v3, which DuckDB's own builds ask for: Haswell and later.
runs_x86_64_v3() {
    local flag
    [[ $(uname -m) == x86_64 ]] || return
    for flag in avx avx2 bmi1 bmi2 f16c fma abm movbe xsave; do
        grep -qw -m1 "$flag" /proc/cpuinfo || return
    done
}

# From DuckDB's own release: one archive of shared libraries, one of static ones. Their hashes are
# not published with them, so that they come over TLS from DuckDB's host, and what they answer, is all
# that is known of them. They bring no TPC extensions, which are signed and on another host.
libduckdb_official() {
    local platform kind
    case $(uname -m) in
        x86_64) platform=linux-amd64 ;;
        aarch64) platform=linux-arm64 ;;
        *) return 1 ;;
    esac
    command -v curl >/dev/null || return
    for kind in shared static; do
        curl --fail --silent --show-error --location --proto =https --connect-timeout 5 --max-time 900 \
            "$LIBDUCKDB_RELEASE_URL/duckdb-$kind-libs-$platform.tar.gz" 2>/dev/null |
            tar -xz -C "$1/lib" 2>/dev/null || return
    done
    find "$1/lib" -name '*.a' ! -name libduckdb_static.a -print0 | join_archives "$1/lib/libduckdb_static.a"
    [[ -e $1/lib/libduckdb.so ]] && libduckdb_headers "$1"
}

# The headers, from a crate that carries DuckDB's source at the same commit.
libduckdb_headers() {
    local work status=0
    work=$(mktemp -d "$CACHE_DIR/headers.XXXXXX")
    unpack_headers "$work" "$1/include" || status=$?
    rm -rf "$work"
    return "$status"
}

unpack_headers() {
    mkdir "$1/src"
    : >"$1/src/lib.rs"
    printf '%s\n' '[package]' 'name = "headers"' 'edition = "2024"' '[dependencies]' \
        "libduckdb-sys = { version = \"=$LIBDUCKDB_CRATE_VERSION\", default-features = false }" \
        '[workspace]' >"$1/Cargo.toml"
    (cd "$1" && quietly cargo vendor --quiet) || return
    echo "$LIBDUCKDB_CRATE_SHA256  $1/vendor/libduckdb-sys/duckdb.tar.gz" | sha256sum --check --status ||
        die "the source in libduckdb-sys $LIBDUCKDB_CRATE_VERSION is not the one that was known when this was written"
    tar -xzf "$1/vendor/libduckdb-sys/duckdb.tar.gz" -C "$2" --strip-components=3 duckdb/src/include
}

# Compiles the full source in PyPI's sdist: half an hour or more.
libduckdb_compiled() {
    local work=$CACHE_DIR/libduckdb-build
    mkdir -p "$work"
    say "   compiling DuckDB $LIBDUCKDB_VERSION; this takes about 70 minutes of one processor's time, once"
    fetch_duckdb_source "$work"
    local source=$work/duckdb-$LIBDUCKDB_VERSION/external/duckdb build=$work/build
    PATH=$work/venv/bin:$PATH quietly cmake -G Ninja -S "$source" -B "$build" \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHELL=0 -DBUILD_UNITTESTS=0 \
        -DBUILD_EXTENSIONS="icu;tpch;tpcds;json;parquet;core_functions" \
        -DOVERRIDE_GIT_DESCRIBE="v$LIBDUCKDB_VERSION" -DGIT_COMMIT_HASH="$LIBDUCKDB_SOURCE_ID" \
        -DDUCKDB_EXPLICIT_PLATFORM="$(duckdb_platform)" \
        -DDUCKDB_OPTIMIZATION_PROFILE="$(runs_x86_64_v3 && echo CLI || echo EXTENSION)"
    PATH=$work/venv/bin:$PATH ninja -C "$build" src/libduckdb.so src/libduckdb_static.a \
        extension/tpch/tpch.duckdb_extension extension/tpcds/tpcds.duckdb_extension >&2 ||
        die "DuckDB did not compile; what was made is kept in $work, and the next run goes on from there"
    cp "$build/src/libduckdb.so" "$1/lib/"
    find "$build" -name '*.a' ! -path '*/loadable_extension*' -print0 | join_archives "$1/lib/libduckdb_static.a"
    cp "$build"/extension/{tpch,tpcds}/*.duckdb_extension "$1/extensions/"
    cp -r "$source/src/include/." "$1/include/"
    rm -rf "$work"
}

duckdb_platform() {
    case $(uname -m) in
        x86_64) echo linux_amd64 ;;
        aarch64) echo linux_arm64 ;;
        *) echo "linux_$(uname -m)" ;;
    esac
}

# fetch_duckdb_source WORK: CMake, ninja and the source, all from PyPI, into WORK.
fetch_duckdb_source() {
    [[ -e $1/duckdb-$LIBDUCKDB_VERSION/external/duckdb/CMakeLists.txt ]] && return
    python3 -m venv "$1/venv"
    quietly "$1/venv/bin/python" -m pip install --disable-pip-version-check "${LIBDUCKDB_BUILD_TOOLS[@]}"
    printf 'duckdb==%s --hash=sha256:%s\n' "$LIBDUCKDB_VERSION" "$LIBDUCKDB_SDIST_SHA256" >"$1/requirements"
    PATH=$1/venv/bin:$PATH quietly "$1/venv/bin/python" -m pip download --disable-pip-version-check \
        --no-deps --no-binary duckdb --require-hashes --requirement "$1/requirements" --dest "$1"
    tar -xzf "$1/duckdb-$LIBDUCKDB_VERSION.tar.gz" -C "$1"
}

# join_archives OUTPUT: makes one static library of those that are named on stdin, NUL-separated.
join_archives() {
    local archive
    {
        echo "CREATE $1.joined"
        if [[ -e $1 ]]; then echo "ADDLIB $1"; fi
        while IFS= read -r -d '' archive; do echo "ADDLIB $archive"; done
        printf 'SAVE\nEND\n'
    } | ar -M && mv "$1.joined" "$1"
}
