"""What the tests stand on: commands, mounts, DuckDB processes and disks that clean up after themselves.

Nothing in here knows how openduck-fs works inside: it runs the binary, reads its `--json` documents, and
looks at the files of a home only from outside.
"""
