"""Measures databases whose layers are in an object store: real PostgreSQL, a real S3 server, and a
proxy between them and the hosts that gives the line a length and a width."""
