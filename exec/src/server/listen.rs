//! Listening: sockets, the handshakes on them, and how many connections there may be.
//!
//! Handshakes run beside each other, each within [`HANDSHAKE_TIMEOUT`], so a client that says nothing
//! holds up nobody. Connections have places; where all are taken, new ones wait in the kernel's queue.
//!
//! A local socket may stand beside the address: between processes of one host it moves a gigabyte for a
//! quarter of the processor time (0.1 s instead of 0.4).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream as FutureStream;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, Stream};
use super::is_loopback;
use super::tls::{ServerTls, TlsError};

/// Connections at one time; a client needs one.
const CONNECTIONS_MAX: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after the system refused a connection (too many open files, say).
const REFUSED_WAIT: Duration = Duration::from_millis(50);

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Tokens and rows would travel readable.
    #[error(
        "{0} can be reached from other hosts, and there is no TLS: give --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure"
    )]
    Insecure(SocketAddr),
    /// The system refused the address.
    #[error("can't listen on {address}: {source}; choose another address with --listen")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificates are no good.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A socket that clients can connect to already.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTls>,
    local: Option<UnixListener>,
}

impl Listener {
    /// Takes an address (port 0: any that is free).
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn bind(
        address: SocketAddr,
        tls: Option<ServerTls>,
        insecure: bool,
    ) -> Result<Listener, Refused> {
        if tls.is_none() && !insecure && !is_loopback(&address) {
            return Err(Refused::Insecure(address));
        }
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = bound
            .await
            .map_err(|source| Refused::Address { address, source })?;
        Ok(Listener {
            socket,
            address,
            tls,
            local: None,
        })
    }

    /// Listens on a local socket as well, without TLS. What a process before left at the path is replaced.
    ///
    /// # Errors
    /// The system refuses, for example because the path is too long.
    pub fn also_at(self, path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let local = Some(UnixListener::bind(path)?);
        Ok(Listener { local, ..self })
    }

    /// The address, with its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find it, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The connections that come, for as long as this is asked for them.
    pub(super) fn accept(self) -> impl FutureStream<Item = io::Result<Connection>> {
        let (ready, mut connections) = mpsc::channel(1);
        let accepting = tokio::spawn(accept_all(self, ready));
        let accepting = AbortOnDrop(accepting);
        futures_util::stream::poll_fn(move |context| {
            // It lives as long as this closure.
            let _keep = &accepting;
            connections.poll_recv(context)
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept_all(listener: Listener, ready: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let Listener {
        socket, tls, local, ..
    } = listener;
    let local = async {
        match local {
            Some(local) => accept_local(local, &places, &ready).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = accept_remote(socket, tls, &places, &ready) => {}
        () = local => {}
    }
}

/// Takes connections until nobody wants them any more.
async fn accept_remote(
    socket: TcpListener,
    tls: Option<ServerTls>,
    places: &Arc<Semaphore>,
    ready: &mpsc::Sender<io::Result<Connection>>,
) {
    // The configuration is kept as long as connections are taken: it goes on looking at its files.
    let acceptor = tls
        .as_ref()
        .map(|tls| TlsAcceptor::from(Arc::clone(&tls.config)));
    while let Ok(place) = Arc::clone(places).acquire_owned().await {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                refused(&error).await;
                continue;
            }
        };
        // Small answers must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended at once");
            continue;
        }
        match &acceptor {
            None => {
                let connection = Connection::new(Stream::Plain(stream), place);
                if ready.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Some(acceptor) => {
                tokio::spawn(shake_hands(acceptor.clone(), stream, place, ready.clone()));
            }
        }
    }
}

async fn accept_local(
    socket: UnixListener,
    places: &Arc<Semaphore>,
    ready: &mpsc::Sender<io::Result<Connection>>,
) {
    while let Ok(place) = Arc::clone(places).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, _)) => {
                let connection = Connection::new(Stream::Local(stream), place);
                if ready.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => refused(&error).await,
        }
    }
}

async fn refused(error: &io::Error) {
    tracing::debug!(%error, "a connection was not taken");
    tokio::time::sleep(REFUSED_WAIT).await;
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let connection = Connection::new(Stream::Tls(Box::new(stream)), place);
            // Where nobody takes it, the server is ending.
            let _gone = ready.send(Ok(connection)).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}
