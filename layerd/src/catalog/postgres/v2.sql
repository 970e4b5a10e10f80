-- Version 2: what remote execution keeps here. ../sqlite/v3.sql has the same tables.

CREATE TABLE workers (
    id BIGINT PRIMARY KEY,
    address TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('writer', 'reader')),
    database_name TEXT COLLATE "C" NOT NULL,
    host TEXT COLLATE "C" NOT NULL,
    pid BIGINT NOT NULL,
    secret BYTEA NOT NULL CHECK (length(secret) = 32),
    started BIGINT NOT NULL,
    seen BIGINT NOT NULL
);

CREATE TABLE tokens (
    id BIGINT PRIMARY KEY,
    hash BYTEA NOT NULL CHECK (length(hash) = 32),
    -- Names with a space between; NULL: all.
    databases TEXT COLLATE "C",
    read_only BIGINT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT
);

CREATE TABLE signing_keys (
    number BIGINT PRIMARY KEY,
    key BYTEA NOT NULL CHECK (length(key) = 32),
    created BIGINT NOT NULL
);
