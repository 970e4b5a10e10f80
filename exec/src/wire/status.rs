//! Failures as gRPC says them: a code, a message that is never empty, and an `ErrorDetail`.
//!
//! The one place that maps errors to codes. DuckDB's message stays as it is, so that a client raises
//! what a local query raises; its exception type and position stand in the details.

use std::collections::HashMap;

use prost::Message as _;
use proto::v1::{ErrorDetail, Reason};
use tonic::{Code, Status};
use tonic_types::pb;

use crate::wire::input::InputError;

/// The name of the details' type, as `google.protobuf.Any` has it.
const DETAIL_TYPE: &str = "type.googleapis.com/openduck.v1.ErrorDetail";

/// The longest message. It travels twice in the headers of an answer, once with three bytes for each that is
/// not ASCII, and many clients take no more than 8 KiB of headers: they would tell that instead.
const MESSAGE_BYTES_MAX: usize = 1500;
/// The most that DuckDB's other words about an error may have, together.
const EXTRA_BYTES_MAX: usize = 500;
/// What DuckDB puts behind the message of an error that is its own fault.
const STACK_TRACE: &str = "\n\nStack Trace:";

/// A status with details.
pub fn status(code: Code, message: impl Into<String>, detail: ErrorDetail) -> Status {
    let mut message = message.into();
    if message.trim().is_empty() {
        message = match detail.exception_type.as_str() {
            "" => code.description().to_owned(),
            exception => format!("{exception} Error without a message"),
        };
    }
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rfind(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        message.push('…');
    }
    let details = pb::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: DETAIL_TYPE.to_owned(),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// A status for one of the protocol's own reasons.
pub fn refused(reason: Reason, message: impl Into<String>) -> Status {
    let code = match reason {
        Reason::NeedsWriter => Code::FailedPrecondition,
        Reason::OutcomeUnknown => Code::Aborted,
        Reason::Limit => Code::ResourceExhausted,
        Reason::NotAdmitted => Code::PermissionDenied,
        Reason::Gone => Code::NotFound,
        Reason::Unavailable => Code::Unavailable,
        Reason::Duckdb | Reason::Unspecified => Code::Unknown,
    };
    let detail = ErrorDetail {
        reason: reason.into(),
        ..ErrorDetail::default()
    };
    status(code, message, detail)
}

/// The details of a status, if it has ours.
pub fn detail(status: &Status) -> Option<ErrorDetail> {
    let details = pb::Status::decode(status.details()).ok()?;
    let ours = details
        .details
        .iter()
        .find(|any| any.type_url == DETAIL_TYPE)?;
    ErrorDetail::decode(ours.value.as_slice()).ok()
}

/// What DuckDB raised.
#[derive(Clone, Debug, Default)]
pub struct Raised {
    /// The exception's type, as DuckDB's clients name it.
    pub exception_type: String,
    /// Its message.
    pub message: String,
    /// Where in the SQL, in bytes.
    pub position: Option<u64>,
    /// What else DuckDB tells.
    pub extra: HashMap<String, String>,
}

/// A status for what DuckDB raised. Where it was at that moment is for the server's log.
pub fn raised(mut error: Raised) -> Status {
    if let Some(end) = error.message.find(STACK_TRACE) {
        tracing::error!("DuckDB failed inside: {}", error.message);
        error.message.truncate(end);
    }
    let mut left = EXTRA_BYTES_MAX;
    error.extra.retain(|name, value| {
        let bytes = name.len() + value.len();
        let fits = !name.starts_with("stack_trace") && bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    });
    let code = code_of(&error.exception_type, &error.extra);
    let reason = match code {
        Code::PermissionDenied => Reason::NotAdmitted,
        _ => Reason::Duckdb,
    };
    let detail = ErrorDetail {
        reason: reason.into(),
        exception_type: error.exception_type,
        position: error.position,
        extra: error.extra,
        query_id: String::new(),
    };
    status(code, error.message, detail)
}

/// The code of a DuckDB exception, whose type is spelled as clients name it (`InvalidInput`) or as the
/// message begins (`Invalid Input`). A type that is not known is INTERNAL: nothing is promised of it.
fn code_of(exception: &str, extra: &HashMap<String, String>) -> Code {
    let letters = exception.chars().filter(char::is_ascii_alphanumeric);
    let name: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    match name.as_str() {
        "parser"
        | "syntax"
        | "binder"
        | "catalog"
        | "conversion"
        | "invalidinput"
        | "outofrange"
        | "typemismatch"
        | "mismatchtype"
        | "invalidtype"
        | "decimal"
        | "dividebyzero"
        | "expression"
        | "invalidconfiguration"
        | "parameternotallowed"
        | "parameternotresolved"
        | "dependency"
        | "sequence"
        | "settings"
        | "cardinality" => Code::InvalidArgument,
        "constraint" => Code::FailedPrecondition,
        "transaction" | "transactioncontext" => {
            match extra.get("error_subtype").map(String::as_str) {
                // Not a conflict with others: what the session does is out of order.
                Some("NO_TRANSACTION" | "NESTED_TRANSACTION") => Code::FailedPrecondition,
                _ => Code::Aborted,
            }
        }
        "permission" => Code::PermissionDenied,
        "outofmemory" | "objectsize" => Code::ResourceExhausted,
        "notimplemented" | "missingextension" => Code::Unimplemented,
        "interrupt" => Code::Cancelled,
        _ => Code::Internal,
    }
}

impl From<InputError> for Status {
    fn from(error: InputError) -> Status {
        match error {
            InputError::Invalid { .. } | InputError::ParameterRows { .. } => {
                Status::invalid_argument(error.to_string())
            }
            InputError::Wide { .. } => refused(Reason::Limit, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_arrive_as_they_were_sent() {
        let error = Raised {
            exception_type: "Binder".into(),
            message: "Binder Error: no such column".into(),
            position: Some(7),
            extra: HashMap::from([("name".into(), "x".into())]),
        };
        let status = raised(error.clone());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), error.message);
        let detail = detail(&status).unwrap();
        assert_eq!(detail.reason(), Reason::Duckdb);
        assert_eq!(detail.exception_type, "Binder");
        assert_eq!(detail.position, Some(7));
        assert_eq!(detail.extra, error.extra);
    }

    #[test]
    fn a_status_fits_into_the_headers_that_clients_take() {
        let long = "ß".repeat(9000);
        let error = Raised {
            message: format!("INTERNAL Error: oh{STACK_TRACE}\n{long}"),
            extra: HashMap::from([
                ("stack_trace_pointers".into(), "1".into()),
                ("name".into(), "x".into()),
                ("error".into(), long.clone()),
            ]),
            ..Raised::default()
        };
        let short = raised(error);
        assert_eq!(short.message(), "INTERNAL Error: oh");
        assert_eq!(detail(&short).unwrap().extra.len(), 1);
        let long = raised(Raised {
            message: long,
            ..Raised::default()
        });
        assert!(long.message().ends_with("ß…"));
        let headers = 3 * long.message().len() + long.details().len() * 4 / 3;
        assert!(headers < 7500, "{headers}");
    }

    #[test]
    fn a_message_is_never_empty() {
        assert!(!raised(Raised::default()).message().is_empty());
        assert!(!refused(Reason::Gone, " ").message().is_empty());
    }
}
