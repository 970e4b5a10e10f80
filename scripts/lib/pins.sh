# shellcheck shell=bash disable=SC2034
# Which versions the scripts install: the one place where they are written.
#
# What cargo builds is pinned by Cargo.lock instead.

# DuckDB from PyPI, one Python environment each; the newest first.
DUCKDB_VERSIONS=(2.0.0 1.5.5 1.4.5)

# This environment also gets the TPC generators (the extensions are built for exactly this DuckDB).
TPCH_DUCKDB_VERSION=1.5.5
TPCH_EXTENSION_VERSION=1.5.5
TPCDS_EXTENSION_VERSION=1.5.5
# DuckDB's own protocol, which scripts/bench/exec compares with, and the extension that it needs.
QUACK_EXTENSION_VERSION=1.5.5

# This environment also gets pytest, and runs fuse-tests.
PYTEST_DUCKDB_VERSION=2.0.0
PYTEST_VERSION=9.2.0
# Several tests at once, for those that mostly wait.
PYTEST_XDIST_VERSION=3.8.0

# And the client that looks into the S3 server below.
BOTO3_VERSION=1.44.5

# The independent client of the gateway, and Arrow Flight to compare with.
GRPC_VERSION=1.85.1
GOOGLEAPIS_VERSION=1.76.0
PYARROW_VERSION=26.0.1

# The file-system exerciser, from crates.io.
FSX_VERSION=0.3.2

# The S3 server of the tests, from crates.io. It needs Rust 1.92; the next one needs 1.96, and older
# ones read a whole object for each range of it.
S3_SERVER_VERSION=0.14.1

# DuckDB as a library: the version, its source id, and what is known of the places it comes from.
LIBDUCKDB_VERSION=2.0.0
LIBDUCKDB_SOURCE_ID=d54cbbe3df
LIBDUCKDB_PREBUILT_SHA256=834eff2b9776dfe9a9f44b4ef02e26da961485bf5e9318fbddac94781143e549
LIBDUCKDB_RELEASE_URL=https://install.duckdb.org/v2.0.0
LIBDUCKDB_SDIST_SHA256=09de511ef0dc76a5213e8d3d87a8b89bb4d3e8a6fe73a9f60dc001269946b44f
LIBDUCKDB_BUILD_TOOLS=(cmake ninja)

# The crate that carries DuckDB's source at this commit, for its headers; the hash of that archive.
LIBDUCKDB_CRATE_VERSION=1.20000.1
LIBDUCKDB_CRATE_SHA256=14f16777c569dd0090db7c80dc7a1eba8ffbb36cf3f6e008dd9c002356162c29
