//! What client SQL may use: one set of lists, asked of the parsed statement and of what the binder sees.
//!
//! Everything is refused that is not admitted here. The two askers differ in what they can say and in
//! what they can't miss. [`admit`] judges the text of a client, and says in plain words what it does
//! not like. `admits_bound` works below: functions that it does not admit are taken out of the catalog
//! of a locked-down instance, and plans with operators that it does not admit are refused, so that a
//! view, macro or default that is stored in a database brings in no more than a client's own text may.
//!
//! Not admitted is what reads or writes files outside the operator's folders, changes the process or
//! its configuration, shows paths, blocks a thread for the sake of it, or lets raw bytes pass for
//! DuckDB's internal structures. A test compares the lists with all functions that DuckDB has.

mod lists;
mod paths;

use std::path::PathBuf;

use crate::EngineError;
use crate::parse::{EntryKind, Facts, Setting, SettingScope, Statement};

pub(crate) use lists::admits_bound;
pub use lists::{SETTINGS, is_listed};

/// What an operator allows beyond the default, which is nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Folders in which COPY and file functions may read and write; the same as the instance's.
    pub allowed_directories: Vec<PathBuf>,
}

/// Whether a parsed statement may be bound.
///
/// # Errors
/// `Permission`, naming what is not admitted.
pub fn admit(statement: &Statement, policy: &Policy) -> Result<(), EngineError> {
    let facts = &statement.facts;
    if let Some(what) = facts.unknown.first() {
        return refuse(what);
    }
    statements(facts)?;
    functions(facts, policy)?;
    facts.settings.iter().try_for_each(setting)?;
    for copy in &facts.copies {
        let Some(path) = &copy.path else {
            return refuse("COPY with a path that is no constant");
        };
        if !paths::is_within(path, &policy.allowed_directories) {
            return refuse("COPY outside the folders that the operator allows");
        }
    }
    Ok(())
}

fn statements(facts: &Facts) -> Result<(), EngineError> {
    for kind in &facts.statements {
        if let Some(word) = lists::refused_statement(*kind) {
            return refuse(word);
        }
    }
    if facts.vacuums {
        return refuse("VACUUM");
    }
    for entry in &facts.entries {
        match entry {
            EntryKind::Secret => return refuse("a secret"),
            EntryKind::Other => return refuse("what is created, altered or dropped here"),
            _ => {}
        }
    }
    Ok(())
}

fn functions(facts: &Facts, policy: &Policy) -> Result<(), EngineError> {
    let files = !policy.allowed_directories.is_empty();
    for function in &facts.table_functions {
        if lists::refuses_table_function(&function.name, files) {
            return refuse(&format!("the table function {}", function.name));
        }
    }
    for function in &facts.functions {
        if lists::refuses_function(&function.name) {
            return refuse(&format!("the function {}", function.name));
        }
    }
    for pragma in &facts.pragmas {
        if !lists::PRAGMAS.contains(&pragma.as_str()) {
            return refuse(&format!("PRAGMA {pragma}"));
        }
    }
    Ok(())
}

fn setting(setting: &Setting) -> Result<(), EngineError> {
    match setting.scope {
        SettingScope::Variable => Ok(()),
        SettingScope::Global => refuse("SET GLOBAL"),
        SettingScope::Automatic | SettingScope::Local | SettingScope::Session => {
            if SETTINGS.contains(&setting.name.as_str()) {
                Ok(())
            } else {
                refuse(&format!("the setting {}", setting.name))
            }
        }
    }
}

fn refuse<T>(what: &str) -> Result<T, EngineError> {
    Err(EngineError::new(
        "Permission",
        format!("{what} is not admitted here"),
    ))
}
