"""Asks a copy of libduckdb.so whether it is the one that the project needs."""
