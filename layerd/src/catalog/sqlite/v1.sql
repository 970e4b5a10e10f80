-- Version 1. See ../sql/value.rs for how numbers and names are stored.

CREATE TABLE databases (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    dropped INTEGER,
    retention_s INTEGER NOT NULL,
    head_layer TEXT,
    head_lsn INTEGER,
    head_time INTEGER NOT NULL,
    head_written_bytes INTEGER NOT NULL,
    base_database INTEGER REFERENCES databases (id),
    base_layer TEXT,
    base_lsn INTEGER,
    -- The newest epoch ever granted: it outlives the lease.
    epoch INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    CHECK ((head_layer IS NULL) = (head_lsn IS NULL)),
    CHECK ((base_layer IS NULL) = (base_lsn IS NULL)),
    CHECK (base_layer IS NULL OR base_database IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX databases_living_name ON databases (name) WHERE dropped IS NULL;
CREATE INDEX databases_by_name ON databases (name);
CREATE INDEX databases_by_base ON databases (base_database) WHERE base_database IS NOT NULL;

CREATE TABLE leases (
    database_id INTEGER PRIMARY KEY REFERENCES databases (id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    instance TEXT NOT NULL,
    renewed INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    wanted INTEGER NOT NULL
) STRICT;

-- Nothing that refers to a layer (parent, head, base, image, pin) is a foreign key: a dead row
-- may outlive the dead row that it stands on, and a clone's base is history once the clone's own
-- layers no longer need it. Living references are checked when they are written, and moved all at
-- once when layers are replaced.
CREATE TABLE layers (
    id TEXT PRIMARY KEY,
    database_id INTEGER NOT NULL REFERENCES databases (id),
    kind TEXT NOT NULL CHECK (kind IN ('delta', 'image')),
    state TEXT NOT NULL CHECK (state IN ('active', 'rotated', 'sealed')),
    parent_layer TEXT,
    parent_lsn INTEGER,
    first_lsn INTEGER NOT NULL,
    last_lsn INTEGER,
    first_time INTEGER,
    last_time INTEGER,
    end_offset INTEGER,
    bytes INTEGER,
    hash BLOB,
    created INTEGER NOT NULL,
    dead_since INTEGER,
    -- Its commits live in other layers now, or it never had any: it never lives again.
    spent INTEGER NOT NULL DEFAULT 0,
    CHECK ((parent_layer IS NULL) = (parent_lsn IS NULL)),
    -- LSNs fall towards the bottom of a chain: so no chain is a ring.
    CHECK (parent_lsn IS NULL OR parent_lsn < first_lsn),
    CHECK (last_lsn IS NULL OR first_lsn <= last_lsn),
    CHECK (state <> 'active' OR (kind = 'delta' AND last_lsn IS NULL AND end_offset IS NULL)),
    CHECK (state <> 'sealed' OR (end_offset IS NOT NULL AND bytes IS NOT NULL AND hash IS NOT NULL)),
    CHECK (kind <> 'image' OR (parent_layer IS NULL AND last_lsn IS NULL)),
    CHECK (hash IS NULL OR length(hash) = 32)
) STRICT, WITHOUT ROWID;

CREATE INDEX layers_by_database ON layers (database_id, first_lsn);
CREATE INDEX layers_by_parent ON layers (parent_layer) WHERE parent_layer IS NOT NULL;

CREATE TABLE layer_images (
    layer TEXT NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    image TEXT NOT NULL,
    PRIMARY KEY (layer, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX layer_images_by_image ON layer_images (image);

CREATE TABLE snapshots (
    -- Orders snapshots that were taken at one moment.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id INTEGER NOT NULL UNIQUE,
    database_id INTEGER NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
    name TEXT,
    lsn INTEGER NOT NULL,
    time INTEGER NOT NULL,
    written_bytes INTEGER NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (database_id, name)
) STRICT;

CREATE INDEX snapshots_by_lsn ON snapshots (database_id, lsn);

CREATE TABLE pins (
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    instance TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

CREATE TABLE pin_layers (
    pin INTEGER NOT NULL REFERENCES pins (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (pin, position),
    UNIQUE (pin, layer)
) STRICT, WITHOUT ROWID;
