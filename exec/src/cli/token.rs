//! `token`: makes, lists and takes back what clients show. Works on the catalog itself, so it needs no
//! server, and the right to the home.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use layerd::id::{DatabaseName, TokenId};
use serde_json::json;

use super::{Context, output};
use crate::access::token;

/// Make, list and revoke tokens
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck token create --database mydb --read-only --expires 30d\n  openduck token list\n  openduck token revoke 0123456789abcdef"
)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token; it is shown once
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck token create --database mydb --read-only --expires 30d"
)]
struct Create {
    /// A database that it opens; may be repeated [default: all]
    #[arg(short, long, value_name = "DB")]
    database: Vec<DatabaseName>,
    /// It only reads
    #[arg(long)]
    read_only: bool,
    /// For how long it is good: `30d`, `12h` [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = super::serve::duration)]
    expires: Option<Duration>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// List tokens
#[derive(Args)]
#[command(after_help = "Example:\n  openduck token list")]
struct List {
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Take a token back; servers refuse it within seconds
#[derive(Args)]
#[command(after_help = "Example:\n  openduck token revoke 0123456789abcdef")]
struct Revoke {
    /// Its id, as `token list` shows it
    #[arg(value_name = "ID")]
    id: TokenId,
}

impl Token {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Command::Create(create) => create.run(context),
            Command::List(list) => list.run(context),
            Command::Revoke(revoke) => {
                let store = context.store()?;
                store.catalog().revoke_token(revoke.id)?;
                Ok(output::print(&format_args!("revoked {}\n", revoke.id))?)
            }
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Result<()> {
        let databases = (!self.database.is_empty()).then_some(self.database);
        let (text, new) = token::make(databases, self.read_only, self.expires);
        let made = context.store()?.catalog().add_token(&new)?;
        if self.json {
            let document = json!({ "id": made.id, "token": text });
            return Ok(output::print(&format_args!("{document}\n"))?);
        }
        output::remark(&format_args!(
            "token {}; it is not shown again, and not kept anywhere",
            made.id
        ));
        Ok(output::print(&format_args!("{text}\n"))?)
    }
}

impl List {
    fn run(self, context: &Context) -> Result<()> {
        let all = context.store()?.catalog().tokens()?;
        if self.json {
            let document = json!({ "tokens": all.tokens });
            return Ok(output::print(&format_args!("{document}\n"))?);
        }
        let titles = ["id", "databases", "rights", "state", "created", "expires"];
        let rows: Vec<Vec<Option<String>>> = all
            .tokens
            .iter()
            .map(|token| {
                let databases = match &token.databases {
                    None => "all".to_owned(),
                    Some(names) => {
                        let names: Vec<&str> = names.iter().map(DatabaseName::as_str).collect();
                        names.join(",")
                    }
                };
                let state = match (token.revoked, token.is_good_at(all.now)) {
                    (Some(_), _) => "revoked",
                    (None, false) => "expired",
                    (None, true) => "good",
                };
                let rights = if token.read_only { "read" } else { "write" };
                vec![
                    Some(token.id.to_string()),
                    Some(databases),
                    Some(rights.to_owned()),
                    Some(state.to_owned()),
                    Some(token.created.to_string()),
                    Some(
                        token
                            .expires
                            .map_or("never".to_owned(), |at| at.to_string()),
                    ),
                ]
            })
            .collect();
        let titles = titles.map(str::to_owned);
        Ok(output::print(&output::table(&titles, &rows))?)
    }
}
