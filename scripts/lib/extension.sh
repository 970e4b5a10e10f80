# shellcheck shell=bash
# The DuckDB extension: a client in Rust, C++ over it, and all of DuckDB that these use, in one file.
#
# DuckDB is linked in statically, and what is not used of it is left out; libstdc++ is the process's own,
# so that exceptions go through. Only the two entry functions are visible. Objects are kept in the
# cache, and only what is older than its sources is compiled again.

EXTENSION_VERSION=v0.1.0

extension_dir() { printf '%s/extension-%s' "$CACHE_DIR" "$(printf '%s' "$REPO_DIR" | sha256sum | cut -c1-12)"; }

extension_client() {
    (cd "$REPO_DIR" && cargo build --quiet --release --locked --package extension)
}

extension_objects() {
    local source=$REPO_DIR/extension/cpp objects name
    local -a flags stale=()
    objects=$(extension_dir)
    mkdir -p "$objects"
    flags=(-std=c++17 -O2 -fPIC -DNDEBUG -fvisibility-inlines-hidden -ffunction-sections -fdata-sections
        -Wall -Werror -Wno-unused-parameter -isystem "$OPENDUCK_LIBDUCKDB/include"
        -I "$REPO_DIR/extension/include")
    # DuckDB's headers are compiled once, for all.
    if [[ ! $objects/duckdb_headers.hpp.gch -nt $source/duckdb_headers.hpp ]]; then
        cp "$source/duckdb_headers.hpp" "$objects/"
        g++ "${flags[@]}" -x c++-header "$objects/duckdb_headers.hpp" -o "$objects/duckdb_headers.hpp.gch"
    fi
    for name in "$source"/*.cpp; do
        name=$(basename "$name" .cpp)
        [[ -e $objects/$name.o && -z $(find "$source" "$REPO_DIR/extension/include" \
            \( -name '*.hpp' -o -name '*.h' -o -name "$name.cpp" \) -newer "$objects/$name.o" -print -quit) ]] ||
            stale+=("$name")
    done
    if ((${#stale[@]} > 0)); then
        printf '%s\0' "${stale[@]}" |
            xargs -0 -P "$(nproc)" -I{} g++ "${flags[@]}" -include "$objects/duckdb_headers.hpp" -c "$source/{}.cpp" -o "$objects/{}.o"
    fi
}

# extension_files OUT_DIR
extension_files() {
    local objects library name
    local -a compiled=()
    objects=$(extension_dir)
    library=$objects/openduck.so
    for name in "$REPO_DIR"/extension/cpp/*.cpp; do
        compiled+=("$objects/$(basename "$name" .cpp).o")
    done
    printf '{ global: openduck_duckdb_cpp_init; od_duckdb_cpp_init; local: *; };\n' >"$objects/exports.map"
    g++ -shared -o "$library" "${compiled[@]}" "$CARGO_TARGET_DIR/release/libopenduck_client.a" \
        "$OPENDUCK_LIBDUCKDB/lib/libduckdb_static.a" -Wl,--gc-sections -Wl,--no-undefined \
        "-Wl,--version-script=$objects/exports.map" -lpthread -ldl -lm -s
    mkdir -p "$1"
    for name in openduck od; do
        { cat "$library" && extension_footer; } >"$1/$name.duckdb_extension.part"
        mv "$1/$name.duckdb_extension.part" "$1/$name.duckdb_extension"
    done
}

# What DuckDB reads at the end of the file: eight fields of 32 bytes, the last one first, then 256
# bytes for a signature.
extension_footer() {
    local field
    for field in '' '' '' CPP "$EXTENSION_VERSION" "v$LIBDUCKDB_VERSION" "$(duckdb_platform)" 4; do
        printf '%s' "$field"
        head -c $((32 - ${#field})) /dev/zero
    done
    head -c 256 /dev/zero
}
