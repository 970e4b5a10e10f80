//! `cancel`: ends a statement that runs, or whose result nobody should read any more.

use anyhow::Result;
use clap::Args;

use super::connect::Connect;
use super::{Context, output, rows, runtime};

/// Cancel a statement
///
/// Your own; with a token that may write to all databases, anybody's.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck cancel 0123456789abcdef")]
pub(super) struct Cancel {
    /// The statement, as `openduck status` lists it
    #[arg(value_name = "QUERY", value_parser = number)]
    query: String,
    #[command(flatten)]
    pub(super) connect: Connect,
}

fn number(text: &str) -> Result<String, String> {
    match u64::from_str_radix(text, 16) {
        Ok(number) => Ok(format!("{number:016x}")),
        Err(_) => Err(format!(
            "{text:?} is no statement: it must be the 16 hexadecimal digits that `openduck status` shows"
        )),
    }
}

impl Cancel {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        runtime()?.block_on(async {
            let mut client = self.connect.open(context).await?;
            let sql = format!("CALL openduck_cancel('{}')", self.query);
            rows::list(&mut client, &sql).await?;
            Ok(output::print(&format_args!("cancelled {}\n", self.query))?)
        })
    }
}
