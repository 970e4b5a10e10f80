# shellcheck shell=bash
# One Python environment per DuckDB version, from PyPI, in the cache.
#
# An environment is made whole or not at all: the list of what is in it is written last, and one
# whose list differs from the wanted one, or whose Python is gone, is made again.

python_of() { printf '%s/pyenv/%s/bin/python' "$CACHE_DIR" "$1"; }

# need_pythons: makes the environments, and sets OPENDUCK_PYTHONS to VERSION=PYTHON,… and
# OPENDUCK_TPCH_PYTHON to the one with the TPC generators.
need_pythons() {
    local version list=()
    for version in "${DUCKDB_VERSIONS[@]}"; do
        need_python "$version"
        list+=("$version=$(python_of "$version")")
    done
    OPENDUCK_PYTHONS=$(
        IFS=,
        printf '%s' "${list[*]}"
    )
    OPENDUCK_TPCH_PYTHON=$(python_of "$TPCH_DUCKDB_VERSION")
    export OPENDUCK_PYTHONS OPENDUCK_TPCH_PYTHON
}

need_python() {
    local version=$1 directory=$CACHE_DIR/pyenv/$1 packages
    mapfile -t packages < <(packages_of "$version")
    if [[ $(cat "$directory/installed" 2>/dev/null) == "${packages[*]}" ]] &&
        "$directory/bin/python" -c 'import duckdb' 2>/dev/null; then
        return
    fi
    say "   installing ${packages[*]}"
    rm -rf "$directory"
    python3 -m venv "$directory"
    quietly "$directory/bin/python" -m pip install --disable-pip-version-check "${packages[@]}"
    printf '%s\n' "${packages[*]}" >"$directory/installed"
}

packages_of() {
    echo "duckdb==$1"
    if [[ $1 == "$TPCH_DUCKDB_VERSION" ]]; then
        echo "duckdb-extension-tpch==$TPCH_EXTENSION_VERSION"
        echo "duckdb-extension-tpcds==$TPCDS_EXTENSION_VERSION"
        echo "duckdb-extension-quack==$QUACK_EXTENSION_VERSION"
        echo "duckdb-extension-httpfs==$QUACK_EXTENSION_VERSION"
    fi
    if [[ $1 == "$PYTEST_DUCKDB_VERSION" ]]; then
        echo "pytest==$PYTEST_VERSION"
        echo "pytest-xdist==$PYTEST_XDIST_VERSION"
        echo "boto3==$BOTO3_VERSION"
        echo "grpcio-tools==$GRPC_VERSION"
        echo "googleapis-common-protos==$GOOGLEAPIS_VERSION"
        echo "pyarrow==$PYARROW_VERSION"
    fi
}
