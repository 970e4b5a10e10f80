//! `keys`: the key that signs the client's extension, and the half of it that clients get.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, output};
use crate::extension::key::SigningKey;

/// Make the key that signs extensions, and show what clients need of it
#[derive(Args)]
#[command(after_help = "Example:\n  openduck keys create\n  openduck keys show")]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Create),
    Show(Show),
}

/// Make a key; its public half is printed as SQL takes it
#[derive(Args)]
#[command(after_help = "Example:\n  openduck keys create")]
struct Create {
    #[command(flatten)]
    key: KeyOption,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Print a key's public half as SQL takes it
#[derive(Args)]
#[command(
    after_help = "Example:\n  echo \"CREATE EXTENSION REPOSITORY ducks WITH PREFIX 'http://localhost:7878/extension' USING PUBLIC KEY '$(openduck keys show)'\""
)]
struct Show {
    #[command(flatten)]
    key: KeyOption,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Which key.
#[derive(Args)]
pub(super) struct KeyOption {
    /// The key's file, readable by its owner alone [default: extension.pem in the home]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl KeyOption {
    pub(super) fn path(&self, context: &Context) -> PathBuf {
        let own = || context.config.home.join("extension.pem");
        self.key.clone().unwrap_or_else(own)
    }
}

impl Keys {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Command::Create(create) => {
                let path = create.key.path(context);
                let key = SigningKey::create(&path)?;
                output::remark(&format_args!(
                    "the key is in {}: whoever can read it can sign in your name, and clients that trust it \
                     trust no other, so keep a copy",
                    path.display()
                ));
                show(&path, &key, create.json)
            }
            Command::Show(wanted) => {
                let path = wanted.key.path(context);
                show(&path, &SigningKey::read(&path)?, wanted.json)
            }
        }
    }
}

fn show(path: &std::path::Path, key: &SigningKey, as_json: bool) -> Result<()> {
    let public = key.public()?;
    if as_json {
        let document = json!({
            "key": path,
            "public_key": public.text(),
            "fingerprint": public.fingerprint(),
        });
        return Ok(output::print(&format_args!("{document}\n"))?);
    }
    output::remark(&format_args!("its fingerprint is {}", public.fingerprint()));
    Ok(output::print(&format_args!("{}\n", public.text()))?)
}
