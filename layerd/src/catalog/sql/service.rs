//! Workers, tokens, and signing keys.

use std::time::Duration;

use super::fault::{Fault, Outcome};
use super::tx::{Query, Tx};
use super::value::{Row, earlier, later, values};
use crate::catalog::CatalogError;
use crate::catalog::service::{KnownWorker, NewToken, SigningKey, Token, Tokens, Worker};
use crate::id::{DatabaseName, Timestamp, TokenId, WorkerId, random_u64};

/// How long a worker that is not announced any more is remembered.
const WORKER_KEPT: Duration = Duration::from_secs(86_400);

pub(super) fn announce(tx: &dyn Tx, worker: &Worker) -> Outcome<()> {
    let now = tx.now()?;
    tx.execute(
        "INSERT INTO workers (id, address, kind, database_name, host, pid, secret, started, seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
         ON CONFLICT (id) DO UPDATE SET address = excluded.address, seen = excluded.seen",
        values![
            worker.id,
            worker.address.as_str(),
            worker.kind,
            &worker.database,
            worker.host.as_str(),
            worker.pid,
            worker.secret,
            now,
        ],
    )?;
    tx.execute(
        "DELETE FROM workers WHERE seen < ?1",
        values![earlier(now, WORKER_KEPT)],
    )
}

pub(super) fn workers(tx: &dyn Tx, ttl: Duration) -> Outcome<Vec<KnownWorker>> {
    let since = earlier(tx.now()?, ttl);
    let rows = tx.query(Query::new(
        "SELECT * FROM workers WHERE seen > ?1 ORDER BY started, id",
        values![since],
    ))?;
    rows.iter().map(worker).collect()
}

fn worker(row: &Row) -> Outcome<KnownWorker> {
    Ok(KnownWorker {
        worker: Worker {
            id: row.get("id")?,
            address: row.get("address")?,
            kind: row.get("kind")?,
            database: row.get("database_name")?,
            host: row.get("host")?,
            pid: row.get("pid")?,
            secret: row.get("secret")?,
        },
        started: row.get("started")?,
        seen: row.get("seen")?,
    })
}

pub(super) fn remove_worker(tx: &dyn Tx, id: WorkerId) -> Outcome<()> {
    tx.execute("DELETE FROM workers WHERE id = ?1", values![id])
}

pub(super) fn add_token(tx: &dyn Tx, new: &NewToken) -> Outcome<Token> {
    let created = tx.now()?;
    let token = Token {
        id: new.id,
        hash: new.hash,
        databases: new.databases.clone(),
        read_only: new.read_only,
        created,
        expires: new.lifetime.map(|lifetime| later(created, lifetime)),
        revoked: None,
    };
    tx.execute(
        "INSERT INTO tokens (id, hash, databases, read_only, created, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        values![
            token.id,
            token.hash,
            token.databases.as_deref().map(joined),
            token.read_only,
            token.created,
            token.expires,
        ],
    )?;
    Ok(token)
}

pub(super) fn tokens(tx: &dyn Tx) -> Outcome<Tokens> {
    let rows = tx.query(Query::new(
        "SELECT * FROM tokens ORDER BY created, id",
        values![],
    ))?;
    Ok(Tokens {
        now: tx.now()?,
        tokens: rows.iter().map(token).collect::<Outcome<_>>()?,
    })
}

pub(super) fn revoke_token(tx: &dyn Tx, id: TokenId) -> Outcome<Token> {
    let now = tx.now()?;
    tx.execute(
        "UPDATE tokens SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL",
        values![id, now],
    )?;
    let row = tx.query_row(Query::new(
        "SELECT * FROM tokens WHERE id = ?1",
        values![id],
    ))?;
    token(&row.ok_or(CatalogError::NoSuchToken(id))?)
}

fn token(row: &Row) -> Outcome<Token> {
    let databases: Option<String> = row.get("databases")?;
    Ok(Token {
        id: row.get("id")?,
        hash: row.get("hash")?,
        databases: databases.map(|names| parted(&names)).transpose()?,
        read_only: row.get("read_only")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
        revoked: row.get("revoked")?,
    })
}

/// Names in one text: no name holds a space.
fn joined(names: &[DatabaseName]) -> String {
    let names: Vec<&str> = names.iter().map(DatabaseName::as_str).collect();
    names.join(" ")
}

fn parted(names: &str) -> Outcome<Vec<DatabaseName>> {
    let parse = |name: &str| {
        name.parse()
            .map_err(|_| Fault::Damaged(format!("a token is for the database {name:?}")))
    };
    names.split_whitespace().map(parse).collect()
}

pub(super) fn signing_keys(tx: &dyn Tx) -> Outcome<(Timestamp, Vec<SigningKey>)> {
    let rows = tx.query(Query::new(
        "SELECT * FROM signing_keys ORDER BY number DESC",
        values![],
    ))?;
    let keys = rows.iter().map(signing_key).collect::<Outcome<_>>()?;
    Ok((tx.now()?, keys))
}

/// Whether none of the keys, newest first, is young enough to sign.
pub(super) fn wants_new_key(keys: &[SigningKey], now: Timestamp, renew_after: Duration) -> bool {
    keys.first()
        .is_none_or(|newest| newest.created <= earlier(now, renew_after))
}

pub(super) fn renew_signing_keys(
    tx: &dyn Tx,
    renew_after: Duration,
    keep: Duration,
) -> Outcome<Vec<SigningKey>> {
    let (now, mut keys) = signing_keys(tx)?;
    if !wants_new_key(&keys, now, renew_after) {
        return Ok(keys);
    }
    let mut key = [0; 32];
    for part in key.chunks_mut(8) {
        part.copy_from_slice(&random_u64().to_ne_bytes());
    }
    let new = SigningKey {
        number: keys
            .first()
            .map_or(1, |newest| newest.number.wrapping_add(1)),
        key,
        created: now,
    };
    tx.execute(
        "INSERT INTO signing_keys (number, key, created) VALUES (?1, ?2, ?3)",
        values![new.number, new.key, new.created],
    )?;
    keys.insert(0, new);
    // A key was the newest until the one before it in this list was made.
    let forgotten = (1..keys.len()).find(|&place| keys[place - 1].created <= earlier(now, keep));
    for old in keys.drain(forgotten.unwrap_or(keys.len())..) {
        tx.execute(
            "DELETE FROM signing_keys WHERE number = ?1",
            values![old.number],
        )?;
    }
    Ok(keys)
}

fn signing_key(row: &Row) -> Outcome<SigningKey> {
    Ok(SigningKey {
        number: row.get("number")?,
        key: row.get("key")?,
        created: row.get("created")?,
    })
}
