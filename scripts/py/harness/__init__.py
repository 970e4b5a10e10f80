"""What the demo and the benchmark share: a workplace that cleans up after itself, the
`openduck-fs` command, and DuckDB processes of several versions."""
