//! Going back: a clone of any state under a new name, or a database set to an earlier state.

use anyhow::Result;
use clap::Args;
use layerd::id::{DatabaseName, Lsn};
use layerd::reference::Ref;
use layerd::store::Store;

use super::Context;
use super::output::Reply;
use super::snapshots::document;
use super::target::Target;

/// Clone a database, or one state of it
///
/// It takes milliseconds and copies nothing; from then on the two go their own ways.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs clone mydb@before-migration experiment")]
pub(crate) struct CloneDatabase {
    /// What to clone; the newest commit, where no state is named
    #[arg(value_name = "DB[@REF]", value_parser = Target::parse)]
    source: Target,
    /// The clone's name
    new: DatabaseName,
}

impl CloneDatabase {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let clone = store.clone_database(self.source.database(), self.source.state(), &self.new)?;
        let (name, lsn) = (&clone.name, clone.head.lsn());
        let snapshot = snapshot_asked_for(&store, &self.source, lsn)?;
        let id = snapshot.as_ref().map(|snapshot| snapshot.id);
        let called = snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.name.as_ref());
        let mut document = document(name, id, called, lsn);
        document["source"] = self.source.database().as_str().into();
        Ok(Reply::new(
            document,
            format!(
                "cloned {} at lsn {lsn} to {name}; `openduck-fs mount {name} DIR` opens it",
                self.source.database()
            ),
        ))
    }
}

/// The source's snapshot that a reference named, if it was one.
fn snapshot_asked_for(
    store: &Store,
    source: &Target,
    lsn: Lsn,
) -> Result<Option<layerd::catalog::Snapshot>> {
    let named = |snapshot: &layerd::catalog::Snapshot| match source.reference() {
        Some(Ref::Name(name)) => snapshot.name.as_ref() == Some(name),
        Some(Ref::Id(id)) => snapshot.id == *id,
        _ => false,
    };
    match source.reference() {
        Some(Ref::Name(_) | Ref::Id(_)) => {
            let snapshots = store.snapshots(source.database())?;
            Ok(snapshots
                .into_iter()
                .find(|snapshot| snapshot.lsn == lsn && named(snapshot)))
        }
        _ => Ok(None),
    }
}

/// Set a database back to an earlier state
///
/// The old state becomes a new commit; those after it stay, and `restore` can go to them again.
/// Refused while the database is mounted for writing.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs restore mydb@before-migration")]
pub(crate) struct Restore {
    /// The state to go back to
    #[arg(value_name = "DB@REF", value_parser = Target::parse_with_ref)]
    target: Target,
}

impl Restore {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let database = self.target.database();
        let lsn = context.store()?.restore(database, self.target.state())?;
        Ok(Reply::new(
            document(database, None, None, lsn),
            format!(
                "restored {} as lsn {lsn}; earlier commits stay, `openduck-fs log {database} --commits` lists them",
                self.target.text()
            ),
        ))
    }
}
