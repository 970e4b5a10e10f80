"""Measures remote execution against DuckDB in process, Arrow Flight and Quack."""
