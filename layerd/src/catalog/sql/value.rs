//! How the engine's types become SQL values and come back; what can't come back is damage.
//!
//! Random ids, and every other `u64`, are the `i64` of the same bits. LSNs and epochs are also
//! compared by SQL; they count single commits and leases and so never come near 2^63, where the
//! order of the bits would turn. Layer ids are stored as they print, so that the tables can be
//! read by people, and a reference is one column. Times are nanoseconds, truths 0 and 1.

use std::sync::Arc;
use std::time::Duration;

use super::fault::{Fault, Outcome};
use crate::catalog::service::WorkerKind;
use crate::catalog::{LayerKind, LayerState};
use crate::id::{
    DatabaseId, DatabaseName, Epoch, LayerId, Lsn, SnapshotId, SnapshotName, Timestamp, TokenId,
    WorkerId,
};

/// One value of a row, or of a query's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::catalog) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row that a query found.
#[derive(Clone, Debug)]
pub(in crate::catalog) struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(in crate::catalog) fn new(columns: Arc<[String]>, values: Vec<Value>) -> Row {
        Row { columns, values }
    }

    /// The value of a column.
    pub(in crate::catalog) fn get<T: FromValue>(&self, column: &str) -> Outcome<T> {
        let position = self.columns.iter().position(|name| name == column);
        let value = position.and_then(|position| self.values.get(position));
        let value = value.ok_or_else(|| Fault::Damaged(format!("column {column:?} is missing")))?;
        T::from_value(value)
            .ok_or_else(|| Fault::Damaged(format!("column {column:?} holds {value:?}")))
    }
}

/// What a value can come back as.
pub(in crate::catalog) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

/// A plain `u64`: a length, a count, a pin's id.
pub(super) struct Bits(pub(super) u64);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Integer(value.into())
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Integer(value.into())
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        Some(i64::from_value(value)? != 0)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(value) => Some(value.clone()),
            _ => None,
        }
    }
}

impl From<[u8; 32]> for Value {
    fn from(value: [u8; 32]) -> Self {
        Value::Bytes(value.to_vec())
    }
}

impl FromValue for [u8; 32] {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(value) => value.as_slice().try_into().ok(),
            _ => None,
        }
    }
}

macro_rules! stored_as_bits {
    ($($id:ident),+) => {$(
        impl From<$id> for Value {
            fn from(value: $id) -> Self {
                Value::Integer(value.0.cast_signed())
            }
        }

        impl FromValue for $id {
            fn from_value(value: &Value) -> Option<Self> {
                i64::from_value(value).map(|bits| $id(bits.cast_unsigned()))
            }
        }
    )+};
}

stored_as_bits!(Bits, DatabaseId, Epoch, Lsn, SnapshotId, TokenId, WorkerId);

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Value::Integer(value.0)
    }
}

impl FromValue for Timestamp {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(Timestamp)
    }
}

macro_rules! stored_as_text {
    ($($name:ident),+) => {$(
        impl From<&$name> for Value {
            fn from(value: &$name) -> Self {
                Value::Text(value.to_string())
            }
        }

        impl FromValue for $name {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Text(value) => value.parse().ok(),
                    _ => None,
                }
            }
        }
    )+};
}

stored_as_text!(DatabaseName, LayerId, SnapshotName);

impl From<LayerId> for Value {
    fn from(value: LayerId) -> Self {
        Value::from(&value)
    }
}

macro_rules! stored_as_word {
    ($kind:ident: $($variant:ident = $word:literal),+) => {
        impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Value::from(match value { $($kind::$variant => $word),+ })
            }
        }

        impl FromValue for $kind {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $(Value::Text(word) if word == $word => Some($kind::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

stored_as_word!(LayerKind: Delta = "delta", Image = "image");
stored_as_word!(WorkerKind: Writer = "writer", Reader = "reader");
stored_as_word!(LayerState: Active = "active", Rotated = "rotated", Sealed = "sealed");

/// Parameters, each of a type that is stored as a [`Value`].
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::catalog::sql::value::Value::from($value)),*][..]
    };
}
pub(in crate::catalog) use values;

/// The moment `by` after `at`, or the last one there is.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(nanoseconds(by)))
}

/// The moment `by` before `at`, or the first one there is.
pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(nanoseconds(by)))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
