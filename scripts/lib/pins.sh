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

# The file-system exerciser, from crates.io.
FSX_VERSION=0.3.2
