# shellcheck shell=bash disable=SC2034
# Which versions the scripts install: the one place where they are written.
#
# What cargo builds is pinned by Cargo.lock instead.

# DuckDB from PyPI, one Python environment each; the newest first.
DUCKDB_VERSIONS=(2.0.0 1.5.5 1.4.5)

# This environment also gets the TPC-H generator (the extension is built for exactly this DuckDB).
TPCH_DUCKDB_VERSION=1.5.5
TPCH_EXTENSION_VERSION=1.5.5

# This environment also gets pytest, and runs fuse-tests.
PYTEST_DUCKDB_VERSION=2.0.0
PYTEST_VERSION=9.2.0
# Several tests at once, for those that mostly wait.
PYTEST_XDIST_VERSION=3.8.0

# And the client that looks into the S3 server below.
BOTO3_VERSION=1.44.5

# The file-system exerciser, from crates.io.
FSX_VERSION=0.3.2

# The S3 server of the tests, from crates.io. It needs Rust 1.92; the next one needs 1.96, and older
# ones read a whole object for each range of it.
S3_SERVER_VERSION=0.14.1
