//! Where a PostgreSQL catalog is: its URL, taken apart.
//!
//! A URL holds a password, so nothing of one that is not understood is ever repeated: a password
//! with a special character in it can look like any other part.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::CONNECT_TIMEOUT;
use super::tls::{Tls, Trust};
use crate::catalog::{CatalogError, Result};

/// The schema where the URL names none.
const SCHEMA: &str = "openduck";
/// So that what is made of it (the channel's name) is a name too: those have up to 63 bytes.
const SCHEMA_LENGTH_MAX: usize = 50;

/// A network that was cut is noticed after this: what was sent, or what is asked each second after
/// the first silence, is not acknowledged. With one more try to connect, a call fails within 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const SILENCE_BEFORE_PROBE: Duration = Duration::from_secs(2);
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A PostgreSQL catalog's place.
#[derive(Clone)]
pub(super) struct Location {
    /// How to connect.
    pub(super) config: Config,
    /// How to trust.
    pub(super) tls: Tls,
    /// The store's own schema: lower-case letters, digits, underscores.
    pub(super) schema: String,
    /// The URL without credentials.
    pub(super) name: String,
}

/// Whether the URL is one of PostgreSQL's.
#[must_use]
pub fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

impl Location {
    /// Takes a URL apart.
    pub(super) fn parse(url: &str) -> Result<Location> {
        let (address, options) = url.split_once('?').unwrap_or((url, ""));
        let mut schema = SCHEMA.to_owned();
        let mut mode = None;
        let mut roots = None;
        let mut rest = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').ok_or_else(not_understood)?;
            let value = || match percent_decode_str(value).decode_utf8() {
                Ok(value) if !value.is_empty() => Ok(value.into_owned()),
                _ => Err(not_understood()),
            };
            match key {
                "schema" => schema = value()?,
                "sslmode" => mode = Some(value()?),
                "sslrootcert" => roots = Some(PathBuf::from(value()?)),
                _ => rest.push(option),
            }
        }
        let url = format!("{address}?{}", rest.join("&"));
        let mut config: Config = url.parse().map_err(|_| not_understood())?;
        let name = name(&config, &schema).ok_or_else(not_understood)?;
        let refused = |reason: &str| CatalogError::Unavailable {
            catalog: name.clone(),
            reason: reason.to_owned(),
        };
        if !is_schema_name(&schema) {
            return Err(refused(
                "its schema's name is none: up to 50 lower-case letters, digits and underscores, \
                 not beginning with a digit or pg_",
            ));
        }
        let tls = Tls::new(mode.as_deref(), roots).ok_or_else(|| {
            refused("its sslmode is none: disable, prefer, require, verify-ca or verify-full")
        })?;
        config.ssl_mode(match tls.trust {
            Trust::Off => SslMode::Disable,
            Trust::IfOffered => SslMode::Prefer,
            Trust::Any | Trust::Authority | Trust::AuthorityAndName => SslMode::Require,
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("openduck");
        }
        config
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives(true)
            .keepalives_idle(SILENCE_BEFORE_PROBE)
            .keepalives_interval(PROBE_EVERY)
            .keepalives_retries(3);
        Ok(Location {
            config,
            tls,
            schema,
            name,
        })
    }

    /// The channel on which changes of this store are told.
    pub(super) fn channel(&self) -> String {
        format!("openduck:{}", self.schema)
    }
}

fn not_understood() -> CatalogError {
    CatalogError::Unavailable {
        catalog: "postgres://…".to_owned(),
        reason: "its URL is not understood; write \
                 postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME&sslmode=MODE, each of \
                 @ : / ? # % & in a name or password as % and its two hexadecimal digits"
            .to_owned(),
    }
}

/// The URL without credentials; `None` if it may hold some where none belong.
fn name(config: &Config, schema: &str) -> Option<String> {
    let mut hosts = Vec::new();
    for (position, host) in config.get_hosts().iter().enumerate() {
        let host = match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(path) => path.to_str()?.to_owned(),
        };
        let ports = config.get_ports();
        let port = ports.get(position).or(ports.first());
        hosts.push(match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        });
    }
    let hosts = hosts.join(",");
    let database = config.get_dbname().unwrap_or_default();
    let is_plain = |text: &str| !text.contains('@') && !text.contains(char::is_control);
    if hosts.is_empty() || !is_plain(&hosts) || !is_plain(database) {
        return None;
    }
    let schema = match schema {
        SCHEMA => String::new(),
        other => format!("?schema={other}"),
    };
    Some(format!("postgres://{hosts}/{database}{schema}"))
}

fn is_schema_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty()
        && name.len() <= SCHEMA_LENGTH_MAX
        && name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.starts_with("pg_")
}
