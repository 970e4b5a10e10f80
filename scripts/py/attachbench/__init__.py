"""The extension measured: what a client of DuckDB waits for, against others that do the same."""
