//! A worker behind a real server on a loopback port, and a client of it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use bytes::Bytes;
use exec::access::peer::{self, PeerGate, Secret};
use exec::access::{Caller, Databases};
use exec::wire::batch::{Encoder, schema_message};
use exec::worker::{Config, Endpoint, Limits, Place, Role, Worker};
use proto::v1::execution_service_client::ExecutionServiceClient;
use proto::v1::stream_results_response::Content;
use proto::v1::{
    ExecuteQueryRequest, ExecuteQueryResponse, Input, Options, StreamResultsRequest,
    StreamResultsResponse, Summary,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status, Streaming};

pub const DATABASE: &str = "ducks";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A worker that serves.
pub struct Host {
    pub worker: Worker,
    pub address: SocketAddr,
    pub directory: TempDir,
    server: tokio::task::JoinHandle<()>,
}

pub fn config(directory: &Path, limits: Limits) -> Config {
    Config {
        name: "worker-1".into(),
        database: DATABASE.into(),
        role: Role::Writer,
        place: Place::Plain {
            directory: directory.to_owned(),
        },
        scratch: directory.join("scratch"),
        journal: Some(directory.join("journal")),
        storage_version: None,
        allowed_directories: Vec::new(),
        limits,
    }
}

pub fn limits() -> Limits {
    Limits {
        memory_bytes: 1 << 30,
        ..Limits::default()
    }
}

impl Host {
    /// A worker over an empty database in a plain directory.
    pub async fn new() -> Host {
        Host::with(limits()).await
    }

    pub async fn with(limits: Limits) -> Host {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), limits);
        Host::of(config, directory).await
    }

    pub async fn of(config: Config, directory: TempDir) -> Host {
        let gate = PeerGate::new(Secret::new(SECRET).unwrap());
        let worker = Worker::open(config, Arc::new(gate)).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let endpoint = Endpoint::new(worker.clone());
        let server = tokio::spawn(async move {
            let server = Server::builder()
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
                .add_service(endpoint);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Host {
            worker,
            address,
            directory,
            server,
        }
    }

    pub async fn client(&self) -> Client {
        self.client_of(caller("token")).await
    }

    pub async fn client_of(&self, caller: Caller) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        let channel = endpoint
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .tcp_nodelay(true)
            .connect()
            .await
            .unwrap();
        Client {
            stub: ExecutionServiceClient::new(channel).max_decoding_message_size(64 << 20),
            caller,
        }
    }

    /// Ends the server's side of all connections, and the worker.
    pub async fn close(self) -> TempDir {
        self.server.abort();
        self.worker.close(Duration::ZERO).await.unwrap();
        self.directory
    }
}

pub fn caller(token: &str) -> Caller {
    Caller {
        token: token.into(),
        databases: Databases::All,
        read_only: false,
    }
}

#[derive(Clone)]
pub struct Client {
    pub stub: ExecutionServiceClient<Channel>,
    pub caller: Caller,
}

/// A result that was read to its end.
#[derive(Debug)]
pub struct Outcome {
    pub response: ExecuteQueryResponse,
    pub batches: Vec<RecordBatch>,
    pub summary: Summary,
}

impl Outcome {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// All values as text, row by row.
    pub fn table(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for batch in &self.batches {
            for row in 0..batch.num_rows() {
                let values = batch
                    .columns()
                    .iter()
                    .map(|column| arrow_cast::display::array_value_to_string(column, row).unwrap());
                rows.push(values.collect());
            }
        }
        rows
    }

    /// The one value that there is.
    pub fn value(&self) -> String {
        let table = self.table();
        assert_eq!((table.len(), table[0].len()), (1, 1), "{table:?}");
        table[0][0].clone()
    }
}

pub fn query(sql: impl Into<String>) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        database: DATABASE.into(),
        sql: sql.into(),
        ..ExecuteQueryRequest::default()
    }
}

pub fn in_session(session: &str, sql: impl Into<String>) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        session_id: session.into(),
        ..query(sql)
    }
}

pub fn with_options(sql: impl Into<String>, options: Options) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        options: Some(options),
        ..query(sql)
    }
}

impl Client {
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        peer::act_for(
            &Secret::new(SECRET).unwrap(),
            &self.caller,
            request.metadata_mut(),
        );
        request
    }

    pub async fn execute(
        &self,
        request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse, Status> {
        let request = self.request(request);
        Ok(self.stub.clone().execute_query(request).await?.into_inner())
    }

    pub async fn open(
        &self,
        query_id: &str,
        stream: u32,
        resume_after: u64,
    ) -> Result<Streaming<StreamResultsResponse>, Status> {
        let request = self.request(StreamResultsRequest {
            query_id: query_id.to_owned(),
            stream,
            resume_after,
        });
        Ok(self
            .stub
            .clone()
            .stream_results(request)
            .await?
            .into_inner())
    }

    /// Runs a statement and reads all of its streams at once.
    pub async fn run(&self, request: ExecuteQueryRequest) -> Result<Outcome, Status> {
        let response = self.execute(request).await?;
        self.read(response).await
    }

    pub async fn sql(&self, sql: impl Into<String>) -> Result<Outcome, Status> {
        self.run(query(sql)).await
    }

    /// Reads a result.
    pub async fn read(&self, response: ExecuteQueryResponse) -> Result<Outcome, Status> {
        let mut messages = Vec::new();
        let mut dictionaries = Vec::new();
        let mut summary = None;
        let mut take = |item: StreamResultsResponse| match item.content.unwrap() {
            Content::Batch(batch) if item.sequence == 0 => dictionaries.push(batch),
            Content::Batch(batch) => messages.push((item.batch_index, batch)),
            Content::Summary(figures) => {
                summary = Some(figures)
                    .filter(|_| summary.is_none())
                    .or(summary.clone())
            }
        };
        let is_whole = matches!(
            response
                .inline
                .last()
                .and_then(|item| item.content.as_ref()),
            Some(Content::Summary(_))
        );
        response.inline.iter().cloned().for_each(&mut take);
        if !is_whole {
            for stream in 0..response.streams {
                let mut items = self.open(&response.query_id, stream, 0).await?;
                while let Some(item) = items.message().await? {
                    take(item);
                }
            }
        }
        messages.sort_by_key(|(index, _)| *index);
        for (index, (place, _)) in messages.iter().enumerate() {
            assert_eq!(index as u64, *place, "batch indexes have no gaps");
        }
        dictionaries.dedup();
        let mut stream = response.schema.to_vec();
        dictionaries
            .iter()
            .for_each(|dictionary| stream.extend_from_slice(dictionary));
        messages
            .iter()
            .for_each(|(_, batch)| stream.extend_from_slice(batch));
        let reader = StreamReader::try_new(stream.as_slice(), None).unwrap();
        let batches = reader.map(Result::unwrap).collect();
        Ok(Outcome {
            response,
            batches,
            summary: summary.expect("a stream ends with a summary"),
        })
    }
}

/// An input of these batches as one chunk.
pub fn input(name: &str, batches: &[RecordBatch], last: bool) -> Input {
    Input {
        name: name.into(),
        schema: schema_message(batches[0].schema_ref()).unwrap(),
        chunk_seq: 0,
        batch: chunk(batches),
        last,
    }
}

/// Batches as encapsulated messages, dictionaries first.
pub fn chunk(batches: &[RecordBatch]) -> Bytes {
    let mut encoder = Encoder::new(&batches[0]).unwrap();
    let mut bytes: Vec<u8> = encoder.dictionaries().concat();
    for batch in batches {
        bytes.extend_from_slice(&encoder.encode(batch).unwrap().to_bytes());
    }
    bytes.into()
}
