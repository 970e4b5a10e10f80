-- Version 3: what remote execution keeps here.

CREATE TABLE workers (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('writer', 'reader')),
    database_name TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    secret BLOB NOT NULL CHECK (length(secret) = 32),
    started INTEGER NOT NULL,
    seen INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    -- Names with a space between; NULL: all.
    databases TEXT,
    read_only INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    revoked INTEGER
) STRICT;

CREATE TABLE signing_keys (
    number INTEGER PRIMARY KEY,
    key BLOB NOT NULL CHECK (length(key) = 32),
    created INTEGER NOT NULL
) STRICT;
