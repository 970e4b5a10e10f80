//! Being told of changes: one connection that listens.
//!
//! It is live from the moment the server took note of it until it ends, is silent for too long, or
//! does not answer a question that it is asked each few seconds. Then it is made anew, after a
//! time that doubles from try to try.
//!
//! Each answer to that question counts as a change: so what is told on another way than to us (a
//! pooler that shares sessions swallows it) is seen late, but seen.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::select;
use tokio::time::{sleep, timeout};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::location::Location;
use super::{Background, CONNECT_TIMEOUT, tls};
use crate::catalog::Changes;

/// How often the connection is asked whether it is alive, and how long it may take to answer.
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before another connection is tried.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Begins to listen; ends with the runtime.
pub(super) fn start(runtime: &Background, location: &Location, changes: Arc<Changes>) {
    if let Some(runtime) = runtime.get() {
        runtime.spawn(listen(location.clone(), changes));
    }
}

async fn listen(location: Location, changes: Arc<Changes>) {
    let mut wait = WAIT_MIN;
    loop {
        let was_live = listen_once(&location, &changes).await;
        changes.end();
        if was_live {
            wait = WAIT_MIN;
        }
        sleep(wait).await;
        wait = WAIT_MAX.min(wait * 2);
    }
}

/// Listens until the connection ends; says whether it was ever live.
async fn listen_once(location: &Location, changes: &Changes) -> bool {
    let Ok(connector) = tls::connector(&location.tls) else {
        return false;
    };
    let connected = timeout(CONNECT_TIMEOUT, location.config.connect(connector)).await;
    let Ok(Ok((client, connection))) = connected else {
        return false;
    };
    let was_live = AtomicBool::new(false);
    let begin = || {
        was_live.store(true, Ordering::Relaxed);
        changes.begin();
    };
    let heard = pin!(hear(connection, changes));
    let asked = pin!(ask(client, location.channel(), begin, || changes.grow()));
    select(heard, asked).await;
    was_live.load(Ordering::Relaxed)
}

/// Counts what is told until the connection ends.
async fn hear(mut connection: Connection<Socket, Stream>, changes: &Changes) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(_) = message {
            changes.grow();
        }
    }
}

/// Asks the server to tell, calls `begin` when it said that it will, and asks again and again
/// whether it is there, calling `alive` each time, until it is not.
async fn ask(client: Client, channel: String, begin: impl Fn(), alive: impl Fn()) {
    let answered = async |question: &str| {
        let answer = timeout(PROBE_TIMEOUT, client.batch_execute(question)).await;
        matches!(answer, Ok(Ok(())))
    };
    if !answered(&format!("LISTEN \"{channel}\"")).await {
        return;
    }
    begin();
    while answered("").await {
        alive();
        sleep(PROBE_EVERY).await;
    }
}
