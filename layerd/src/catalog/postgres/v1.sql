-- Version 1. See ../sql/value.rs for how numbers and names are stored, and ../sqlite/v1.sql, which
-- has the same tables. Texts are compared byte by byte, as SQLite does it.

CREATE TABLE catalog_version (version BIGINT NOT NULL);

CREATE TABLE databases (
    id BIGINT PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    dropped BIGINT,
    retention_s BIGINT NOT NULL,
    head_layer TEXT COLLATE "C",
    head_lsn BIGINT,
    head_time BIGINT NOT NULL,
    head_written_bytes BIGINT NOT NULL,
    base_database BIGINT REFERENCES databases (id),
    base_layer TEXT COLLATE "C",
    base_lsn BIGINT,
    -- The newest epoch ever granted: it outlives the lease.
    epoch BIGINT NOT NULL DEFAULT 0,
    generation BIGINT NOT NULL DEFAULT 0,
    CHECK ((head_layer IS NULL) = (head_lsn IS NULL)),
    CHECK ((base_layer IS NULL) = (base_lsn IS NULL)),
    CHECK (base_layer IS NULL OR base_database IS NOT NULL)
);

CREATE UNIQUE INDEX databases_living_name ON databases (name) WHERE dropped IS NULL;
CREATE INDEX databases_by_name ON databases (name);
CREATE INDEX databases_by_base ON databases (base_database) WHERE base_database IS NOT NULL;

CREATE TABLE leases (
    database_id BIGINT PRIMARY KEY REFERENCES databases (id) ON DELETE CASCADE,
    epoch BIGINT NOT NULL,
    host TEXT COLLATE "C" NOT NULL,
    pid BIGINT NOT NULL,
    instance TEXT COLLATE "C" NOT NULL,
    renewed BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    wanted BIGINT NOT NULL
);

-- Nothing that refers to a layer (parent, head, base, image, pin) is a foreign key: a dead row
-- may outlive the dead row that it stands on, and a clone's base is history once the clone's own
-- layers no longer need it. Living references are checked when they are written, and moved all at
-- once when layers are replaced.
CREATE TABLE layers (
    id TEXT COLLATE "C" PRIMARY KEY,
    database_id BIGINT NOT NULL REFERENCES databases (id),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('delta', 'image')),
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'rotated', 'sealed')),
    parent_layer TEXT COLLATE "C",
    parent_lsn BIGINT,
    first_lsn BIGINT NOT NULL,
    last_lsn BIGINT,
    first_time BIGINT,
    last_time BIGINT,
    end_offset BIGINT,
    bytes BIGINT,
    hash BYTEA,
    created BIGINT NOT NULL,
    dead_since BIGINT,
    -- Its commits live in other layers now, or it never had any: it never lives again.
    spent BIGINT NOT NULL DEFAULT 0,
    CHECK ((parent_layer IS NULL) = (parent_lsn IS NULL)),
    -- LSNs fall towards the bottom of a chain: so no chain is a ring.
    CHECK (parent_lsn IS NULL OR parent_lsn < first_lsn),
    CHECK (last_lsn IS NULL OR first_lsn <= last_lsn),
    CHECK (state <> 'active' OR (kind = 'delta' AND last_lsn IS NULL AND end_offset IS NULL)),
    CHECK (state <> 'sealed' OR (end_offset IS NOT NULL AND bytes IS NOT NULL AND hash IS NOT NULL)),
    CHECK (kind <> 'image' OR (parent_layer IS NULL AND last_lsn IS NULL)),
    CHECK (hash IS NULL OR length(hash) = 32)
);

CREATE INDEX layers_by_database ON layers (database_id, first_lsn);
CREATE INDEX layers_by_parent ON layers (parent_layer) WHERE parent_layer IS NOT NULL;

CREATE TABLE layer_images (
    layer TEXT COLLATE "C" NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    image TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (layer, position)
);

CREATE INDEX layer_images_by_image ON layer_images (image);

CREATE TABLE snapshots (
    -- Orders snapshots that were taken at one moment.
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id BIGINT NOT NULL UNIQUE,
    database_id BIGINT NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    name TEXT COLLATE "C",
    lsn BIGINT NOT NULL,
    time BIGINT NOT NULL,
    written_bytes BIGINT NOT NULL,
    created BIGINT NOT NULL,
    UNIQUE (database_id, name)
);

CREATE INDEX snapshots_by_lsn ON snapshots (database_id, lsn);

CREATE TABLE pins (
    id BIGINT PRIMARY KEY,
    host TEXT COLLATE "C" NOT NULL,
    pid BIGINT NOT NULL,
    instance TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE pin_layers (
    pin BIGINT NOT NULL REFERENCES pins (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    layer TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (pin, position),
    UNIQUE (pin, layer)
);

CREATE TABLE segments (
    layer TEXT COLLATE "C" NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    begin_offset BIGINT NOT NULL,
    end_offset BIGINT NOT NULL,
    key TEXT COLLATE "C" NOT NULL UNIQUE,
    bytes BIGINT NOT NULL,
    tail BIGINT NOT NULL,
    first_lsn BIGINT,
    last_lsn BIGINT,
    first_time BIGINT,
    last_time BIGINT,
    -- Several may begin in one page; each ends behind the one before.
    PRIMARY KEY (layer, end_offset),
    CHECK (begin_offset % 4096 = 0 AND begin_offset < end_offset),
    CHECK ((first_lsn IS NULL) = (last_lsn IS NULL)),
    CHECK ((first_lsn IS NULL) = (first_time IS NULL)),
    CHECK ((first_lsn IS NULL) = (last_time IS NULL))
);

-- Objects that were a segment's, and are to be deleted.
CREATE TABLE garbage (
    key TEXT COLLATE "C" PRIMARY KEY,
    since BIGINT NOT NULL
);

CREATE INDEX garbage_by_age ON garbage (since);
