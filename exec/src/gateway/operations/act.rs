//! What the functions that change something do, once it is known that the caller may.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use layerd::catalog::Snapshot;
use layerd::id::{DatabaseName, Lsn, SnapshotName};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};
use proto::v1::StreamResultsRequest;
use tonic::Status;

use super::rows::{batch, numbers, store_error, text, times};
use super::{Arguments, Function, blocking};
use crate::access::Caller;
use crate::gateway::Gateway;
use crate::gateway::running::Cancelled;

/// How long a writer on another host may take to let go of its database: a heartbeat, and a flush.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(20);
const HAND_OVER_LOOK: Duration = Duration::from_millis(100);

fn may_write(caller: &Caller, database: &DatabaseName) -> Result<(), Status> {
    caller.may_use(database.as_str())?;
    match caller.read_only {
        true => Err(Status::permission_denied("this token may only read")),
        false => Ok(()),
    }
}

impl Gateway {
    /// Does it; answers with what there is to tell of it.
    pub(super) async fn act(
        self: &Arc<Self>,
        caller: &Caller,
        function: Function,
        arguments: &Arguments,
    ) -> Result<RecordBatch, Status> {
        if function == Function::Cancel {
            return self.cancel(caller, arguments).await;
        }
        let database: DatabaseName = arguments.parse("db")?;
        match function {
            Function::Create => {
                may_write(caller, &database)?;
                let made = self
                    .with_store(move |store| store.create(&database))
                    .await?;
                of_database(&made.name, made.head.lsn())
            }
            Function::Snapshot => {
                may_write(caller, &database)?;
                let name: Option<SnapshotName> = match arguments.get("name") {
                    Some(_) => Some(arguments.parse("name")?),
                    None => None,
                };
                let taken = self
                    .with_store(move |store| store.snapshot(&database, name.as_ref()))
                    .await?;
                of_snapshot(&taken)
            }
            Function::Clone => {
                let new: DatabaseName = arguments.parse("new_db")?;
                let reference: Ref = arguments.parse("ref")?;
                caller.may_use(database.as_str())?;
                may_write(caller, &new)?;
                let made = self
                    .with_store(move |store| store.clone_database(&database, &reference, &new))
                    .await?;
                of_database(&made.name, made.head.lsn())
            }
            _ => {
                may_write(caller, &database)?;
                let reference: Ref = arguments.parse("ref")?;
                let lsn = self.restore(&database, &reference).await?;
                of_database(&database, lsn)
            }
        }
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = Arc::clone(&self.store);
        blocking(move || work(&store).map_err(|error| store_error(&error))).await
    }

    /// Ends the writer, restores, and lets the writer come back.
    async fn restore(&self, database: &DatabaseName, reference: &Ref) -> Result<Lsn, Status> {
        // Before anybody is stopped for a state that is not there.
        let (name, at) = (database.clone(), reference.clone());
        self.with_store(move |store| store.open_reader(&name, &at).map(drop))
            .await?;
        let paused = match self.fleet.local() {
            Some(local) => local.pause(database.as_str()).await,
            None => None,
        };
        let (name, at) = (database.clone(), reference.clone());
        let restored = self
            .with_store(move |store| {
                hand_over(store, &name)?;
                store.restore(&name, &at)
            })
            .await;
        drop(paused);
        restored
    }

    async fn cancel(&self, caller: &Caller, arguments: &Arguments) -> Result<RecordBatch, Status> {
        let unknown =
            || Status::not_found("no such statement runs; FROM openduck_queries() lists them");
        let text_of_number = arguments.get("query_id").ok_or_else(unknown)?;
        let number = u64::from_str_radix(text_of_number, 16).map_err(|_| unknown())?;
        let Cancelled { owner, result } =
            self.running.cancel(number, caller).ok_or_else(unknown)?;
        if let Some((handle, member)) = result {
            // To open a stream and to drop it cancels the query, also where nobody reads it.
            let request = StreamResultsRequest {
                query_id: handle.query,
                ..StreamResultsRequest::default()
            };
            let mut call = tonic::Request::new(request);
            let none = tonic::metadata::MetadataMap::new();
            member.credentials(&owner, &none, call.metadata_mut());
            let mut client =
                proto::v1::execution_service_client::ExecutionServiceClient::new(member.channel());
            let opened = client.stream_results(call).await;
            tracing::debug!(ok = opened.is_ok(), "a result was cancelled");
        }
        batch(vec![("query_id", text([Some(format!("{number:016x}"))]))])
    }
}

/// Waits until nobody writes the database, and asks who does to let go. Blocks.
fn hand_over(store: &Store, name: &DatabaseName) -> Result<(), StoreError> {
    let catalog = store.catalog();
    let database = catalog.database(name)?;
    let deadline = Instant::now() + HAND_OVER_PATIENCE;
    while catalog.lease(database.id)?.is_some() && Instant::now() < deadline {
        catalog.want_lease(database.id)?;
        std::thread::sleep(HAND_OVER_LOOK);
    }
    Ok(())
}

fn of_database(name: &DatabaseName, lsn: Lsn) -> Result<RecordBatch, Status> {
    batch(vec![
        ("database", text([Some(name.to_string())])),
        ("lsn", numbers([Some(lsn.0)])),
    ])
}

fn of_snapshot(snapshot: &Snapshot) -> Result<RecordBatch, Status> {
    let name = snapshot.name.as_ref().map(ToString::to_string);
    batch(vec![
        ("id", text([Some(snapshot.id.to_string())])),
        ("name", text([name])),
        ("lsn", numbers([Some(snapshot.lsn.0)])),
        ("time", times([snapshot.time])),
    ])
}
