-- Version 2: the objects of a remote store.

CREATE TABLE segments (
    layer TEXT NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    begin_offset INTEGER NOT NULL,
    end_offset INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    first_lsn INTEGER,
    last_lsn INTEGER,
    first_time INTEGER,
    last_time INTEGER,
    -- Several may begin in one page; each ends behind the one before.
    PRIMARY KEY (layer, end_offset),
    CHECK (begin_offset % 4096 = 0 AND begin_offset < end_offset),
    CHECK ((first_lsn IS NULL) = (last_lsn IS NULL)),
    CHECK ((first_lsn IS NULL) = (first_time IS NULL)),
    CHECK ((first_lsn IS NULL) = (last_time IS NULL))
) STRICT, WITHOUT ROWID;

-- Objects that were a segment's, and are to be deleted.
CREATE TABLE garbage (
    key TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX garbage_by_age ON garbage (since);
