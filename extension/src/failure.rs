//! What goes wrong, in the words and the exception types of DuckDB.
//!
//! A failure of DuckDB on the other side keeps its type, message and details. One of the way there
//! names the endpoint and the next step. Tokens are never part of a message.

use std::collections::HashMap;

use prost::Message as _;
use proto::v1::{ErrorDetail, Reason};
use tonic::{Code, Status};

/// The name of the details' type, as `google.protobuf.Any` has it.
const DETAIL_TYPE: &str = "type.googleapis.com/openduck.v1.ErrorDetail";

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// DuckDB's name of the exception's type: `Binder`, `IO`, ….
    pub kind: String,
    /// What happened, and what to do.
    pub message: String,
    /// Where in the SQL that was sent, in bytes.
    pub position: Option<u64>,
    /// What else DuckDB tells of it.
    pub extra: HashMap<String, String>,
    /// Whether it may be tried again: nothing is known to have happened.
    pub again: bool,
    /// Whether the backend itself asked for that: it is starting.
    pub starting: bool,
}

impl Failure {
    /// A failure that DuckDB would raise as this type.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.into(),
            position: None,
            extra: HashMap::new(),
            again: false,
            starting: false,
        }
    }

    /// A failure of the way there and back.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new("IO", message)
    }

    /// A backend that breaks the protocol's rules.
    pub fn broken(endpoint: &str, what: impl std::fmt::Display) -> Self {
        Self::io(format!(
            "{endpoint} answered what no backend answers: {what}; is it an OpenDuck server of this version?"
        ))
    }

    /// The caller did not want to wait any more.
    pub fn interrupted() -> Self {
        Self::new("INTERRUPT", "Interrupted!")
    }

    /// What a status says.
    pub fn of(endpoint: &str, status: &Status) -> Self {
        let detail = detail(status);
        let reason = detail
            .as_ref()
            .map_or(Reason::Unspecified, ErrorDetail::reason);
        if let Some(detail) = &detail
            && !detail.exception_type.is_empty()
        {
            return Self {
                position: detail.position,
                extra: detail.extra.clone(),
                ..Self::new(&detail.exception_type, status.message())
            };
        }
        let said = status.message();
        let (kind, message) = match (status.code(), reason) {
            (Code::Unauthenticated, _) => (
                "Permission",
                format!(
                    "{endpoint} wants a valid token: {said}. Give one with TOKEN, OPENDUCK_TOKEN or CREATE SECRET (TYPE openduck, TOKEN …)"
                ),
            ),
            (Code::PermissionDenied, _) => ("Permission", format!("{endpoint} refused: {said}")),
            (_, Reason::OutcomeUnknown) => (
                "IO",
                format!("{said}: it may have happened or not; look before you repeat it"),
            ),
            (_, Reason::Gone) => (
                "TransactionContext",
                format!("{endpoint}: {said}; begin the transaction anew"),
            ),
            (Code::Aborted, _) => ("TransactionContext", said.to_owned()),
            (Code::Cancelled, _) => ("INTERRUPT", said.to_owned()),
            (Code::DeadlineExceeded, _) => ("INTERRUPT", format!("{endpoint}: {said}")),
            (Code::NotFound, _) => ("Catalog", format!("{endpoint}: {said}")),
            (Code::Unimplemented, Reason::Unspecified) => (
                "IO",
                format!(
                    "{endpoint} does not know the protocol ({said}): is it an OpenDuck server of this version?"
                ),
            ),
            (Code::Unavailable | Code::Unknown | Code::Internal, Reason::Unspecified) => (
                "IO",
                format!(
                    "cannot reach {endpoint}: {}. Is the server running (`openduck serve`), and is the ENDPOINT right? The connection works again when the server does",
                    deepest(status)
                ),
            ),
            (Code::Unavailable, _) => ("IO", format!("{endpoint}: {said}; try again")),
            _ => ("Invalid Input", format!("{endpoint}: {said}")),
        };
        Self {
            again: status.code() == Code::Unavailable,
            starting: reason == Reason::Unavailable,
            ..Self::new(kind, message)
        }
    }
}

/// The innermost cause, which is what tells something.
fn deepest(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// The details of a status, if it has ours.
fn detail(status: &Status) -> Option<ErrorDetail> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?;
    let ours = details
        .details
        .iter()
        .find(|any| any.type_url == DETAIL_TYPE)?;
    ErrorDetail::decode(ours.value.as_slice()).ok()
}
