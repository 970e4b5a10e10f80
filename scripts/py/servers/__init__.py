"""Real servers for the tests and the benchmark: PostgreSQL, an S3 server, and a proxy that misbehaves.

Each is a process of its own on a free loopback port, with all its files below one directory, and ends with
the process that started it, also where that one is killed.
"""
