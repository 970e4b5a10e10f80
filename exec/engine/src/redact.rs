//! A text of SQL without what it says of the data: constants and comments.

use crate::{EngineError, ffi};

/// What stands where something was taken out.
const REDACTED: &str = "?";

/// The text with each number, string and comment replaced by `?`, as DuckDB's own tokenizer finds them.
/// Of a text that it can't cut, what it can't tell apart is taken out as well.
///
/// # Errors
/// Where the tokenizer refuses the text.
pub fn redact(sql: &str) -> Result<String, EngineError> {
    let tokens = ffi::tokenize(sql)?;
    let mut redacted = String::with_capacity(sql.len());
    let mut at = 0;
    for (place, token) in tokens.iter().enumerate() {
        let end = tokens.get(place + 1).map_or(sql.len(), |next| next.start);
        // A tokenizer that went backwards, or into a character, is not to be believed.
        let (Some(space), Some(text)) = (sql.get(at..token.start), sql.get(token.start..end))
        else {
            redacted.push_str(REDACTED);
            return Ok(redacted);
        };
        if space.trim().is_empty() {
            redacted.push_str(space);
        } else {
            redacted.push_str(REDACTED);
        }
        if token.shown {
            redacted.push_str(text);
        } else {
            redacted.push_str(REDACTED);
            redacted.push_str(&text[text.trim_end().len()..]);
        }
        at = end;
    }
    if !sql[at..].trim().is_empty() {
        redacted.push_str(REDACTED);
    }
    Ok(redacted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_taken_out_and_the_rest_stays() {
        for (sql, expected) in [
            (
                "SELECT a, 'b''c' FROM t WHERE x = 1.5e3",
                "SELECT a, ? FROM t WHERE x = ?",
            ),
            ("SELECT $$it's$$, \"col\"", "SELECT ?, \"col\""),
            (
                "INSERT INTO t VALUES (1, 'ü', NULL)",
                "INSERT INTO t VALUES (?, ?, NULL)",
            ),
            ("", ""),
        ] {
            assert_eq!(redact(sql).unwrap(), expected);
        }
    }

    #[test]
    fn nothing_of_a_constant_stays_however_the_text_is_cut() {
        let whole =
            "SELECT 'needle', $x$needle$x$, e'needle', 31337 -- needle\n/* needle */ FROM t";
        for end in 0..=whole.len() {
            if let Ok(redacted) = redact(&whole[..end]) {
                assert!(
                    !redacted.contains("needle") && !redacted.contains("31337"),
                    "{redacted}"
                );
            }
        }
    }
}
