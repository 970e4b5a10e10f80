//! A client for measurements: drives a backend with nothing but the protocol, and prints what it saw as
//! one line of JSON. `scripts/bench/exec` runs it.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails should say where"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use clap::{Parser, Subcommand};
use proto::v1::execution_service_client::ExecutionServiceClient;
use proto::v1::stream_results_response::Content;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, Options, StreamResultsRequest};
use serde_json::json;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The largest message that is taken.
const MESSAGE_MAX: usize = 64 << 20;

#[derive(Parser)]
struct Arguments {
    /// Where the backend listens, as in `http://127.0.0.1:7878`.
    #[arg(long)]
    endpoint: String,
    /// The token.
    #[arg(long, env = "OPENDUCK_TOKEN", hide_env_values = true)]
    token: String,
    /// The database.
    #[arg(long)]
    database: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Reads a whole result, all streams at once, into Arrow arrays.
    Drain {
        sql: String,
        /// The most streams; 0: as many as the backend gives.
        #[arg(long, default_value_t = 0)]
        streams: u32,
        /// Bytes a second that are read, at most; 0: as fast as they come.
        #[arg(long, default_value_t = 0)]
        bytes_per_s: u64,
    },
    /// Runs a small statement again and again in one session, each in one round trip.
    Small {
        sql: String,
        #[arg(long, default_value_t = 1000)]
        count: usize,
    },
    /// Clients that each run a statement again and again, one transaction each.
    Repeat {
        sql: String,
        #[arg(long, default_value_t = 1)]
        clients: usize,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Small and large statements at once: every eighth client runs the large one.
    Mixed {
        small: String,
        large: String,
        #[arg(long, default_value_t = 64)]
        clients: usize,
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// Writes in a session and reads back: in it, and outside of it by the LSN of the write.
    Fresh {
        write: String,
        read: String,
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
}

type Service = ExecutionServiceClient<InterceptedService<Channel, Authorize>>;

#[derive(Clone)]
struct Authorize(MetadataValue<tonic::metadata::Ascii>);

impl tonic::service::Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = self.0.clone();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

async fn connect(arguments: &Arguments) -> Result<Service> {
    let endpoint = Endpoint::from_shared(arguments.endpoint.clone())?
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20);
    let channel = endpoint.connect().await.context("cannot connect")?;
    let mut token: MetadataValue<_> = format!("Bearer {}", arguments.token).parse()?;
    token.set_sensitive(true);
    Ok(
        ExecutionServiceClient::with_interceptor(channel, Authorize(token))
            .max_decoding_message_size(MESSAGE_MAX),
    )
}

fn query(arguments: &Arguments, sql: &str, session: &str) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        database: arguments.database.clone(),
        sql: sql.to_owned(),
        session_id: session.to_owned(),
        ..Default::default()
    }
}

/// A small statement: its rows come inside the answer.
async fn small(
    service: &mut Service,
    mut request: ExecuteQueryRequest,
) -> Result<ExecuteQueryResponse> {
    request.options = Some(Options {
        inline_bytes: 64 << 10,
        ..Default::default()
    });
    let answer = service.execute_query(request).await?.into_inner();
    match answer.inline.last().and_then(|last| last.content.as_ref()) {
        Some(Content::Summary(_)) => Ok(answer),
        _ => bail!("the result did not come inside the answer"),
    }
}

/// What was read of a result.
#[derive(Default, Clone, Copy)]
struct Read {
    rows: u64,
    bytes: u64,
}

async fn drain_stream(
    mut service: Service,
    answer: ExecuteQueryResponse,
    stream: u32,
    bytes_per_s: u64,
) -> Result<Read> {
    let request = StreamResultsRequest {
        query_id: answer.query_id.clone(),
        stream,
        resume_after: 0,
    };
    let begin = Instant::now();
    let mut responses = service.stream_results(request).await?.into_inner();
    let mut decoder = StreamDecoder::new();
    let mut read = Read::default();
    let mut feed = |bytes: bytes::Bytes| -> Result<u64> {
        let mut rows = 0;
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            if let Some(batch) = decoder.decode(&mut buffer)? {
                rows += batch.num_rows() as u64;
            }
        }
        Ok(rows)
    };
    feed(answer.schema.clone())?;
    while let Some(response) = responses.message().await? {
        match response.content {
            Some(Content::Batch(bytes)) => {
                read.bytes += bytes.len() as u64;
                read.rows += feed(bytes)?;
                if bytes_per_s > 0 {
                    let due = Duration::from_secs_f64(read.bytes as f64 / bytes_per_s as f64);
                    tokio::time::sleep(due.saturating_sub(begin.elapsed())).await;
                }
            }
            Some(Content::Summary(summary)) => {
                if summary.rows != read.rows {
                    bail!("{} rows came of {}", read.rows, summary.rows);
                }
                return Ok(read);
            }
            None => bail!("a response without content"),
        }
    }
    bail!("stream {stream} ended without a summary")
}

async fn drain(
    mut service: Service,
    request: ExecuteQueryRequest,
    bytes_per_s: u64,
) -> Result<Read> {
    let answer = service.execute_query(request).await?.into_inner();
    let streams = (0..answer.streams).map(|stream| {
        tokio::spawn(drain_stream(
            service.clone(),
            answer.clone(),
            stream,
            bytes_per_s,
        ))
    });
    let mut all = Read::default();
    for stream in streams.collect::<Vec<_>>() {
        let read = stream.await??;
        all.rows += read.rows;
        all.bytes += read.bytes;
    }
    Ok(all)
}

/// Runs `work` in several tasks until the time is over; the seconds that each call took.
async fn repeat<W, F>(clients: usize, seconds: f64, work: W) -> Result<Vec<f64>>
where
    W: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let work = work.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while Instant::now() < end {
                    let begin = Instant::now();
                    work(client).await?;
                    taken.push(begin.elapsed().as_secs_f64());
                }
                anyhow::Ok(taken)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut service = connect(&arguments).await?;
    let found = match &arguments.what {
        What::Drain {
            sql,
            streams,
            bytes_per_s,
        } => {
            let mut request = query(&arguments, sql, "");
            request.options = Some(Options {
                max_streams: *streams,
                ..Default::default()
            });
            let begin = Instant::now();
            let read = drain(service, request, *bytes_per_s).await?;
            json!({"rows": read.rows, "bytes": read.bytes, "seconds": begin.elapsed().as_secs_f64()})
        }
        What::Small { sql, count } => {
            let session = format!("small-{}", std::process::id());
            let mut taken = Vec::with_capacity(*count);
            for round in 0..count + 20 {
                let begin = Instant::now();
                small(&mut service, query(&arguments, sql, &session)).await?;
                if round >= 20 {
                    taken.push(begin.elapsed().as_secs_f64());
                }
            }
            json!({"seconds": taken})
        }
        What::Repeat {
            sql,
            clients,
            seconds,
        } => {
            let request = query(&arguments, sql, "");
            let work = move |_| {
                let (mut service, request) = (service.clone(), request.clone());
                async move { small(&mut service, request).await.map(|_| ()) }
            };
            let taken = repeat(*clients, *seconds, work).await?;
            json!({"seconds": taken, "per_s": taken.len() as f64 / seconds})
        }
        What::Mixed {
            small: sql,
            large,
            clients,
            seconds,
        } => {
            let (sql, large) = (query(&arguments, sql, ""), query(&arguments, large, ""));
            let heavy = service.clone();
            let light = move |_| {
                let (mut service, request) = (service.clone(), sql.clone());
                async move { small(&mut service, request).await.map(|_| ()) }
            };
            let work = move |_| {
                let (service, request) = (heavy.clone(), large.clone());
                async move { drain(service, request, 0).await.map(|_| ()) }
            };
            let (few, many) = (clients / 8, clients - clients / 8);
            let (large, small) =
                tokio::join!(repeat(few, *seconds, work), repeat(many, *seconds, light));
            json!({"small_s": small?, "large_s": large?})
        }
        What::Fresh { write, read, count } => {
            let session = format!("fresh-{}", std::process::id());
            let (mut inside, mut outside) = (Vec::new(), Vec::new());
            for _ in 0..*count {
                let lsn = small(&mut service, query(&arguments, write, &session))
                    .await?
                    .lsn;
                let begin = Instant::now();
                let own = small(&mut service, query(&arguments, read, &session)).await?;
                inside.push(begin.elapsed().as_secs_f64());
                let mut request = query(&arguments, read, "");
                request.min_lsn = lsn;
                let begin = Instant::now();
                let others = small(&mut service, request).await?;
                outside.push(begin.elapsed().as_secs_f64());
                if own.lsn < lsn || others.lsn < lsn {
                    bail!(
                        "a read at {} or {} after a write at {lsn}",
                        own.lsn,
                        others.lsn
                    );
                }
            }
            json!({"inside_s": inside, "outside_s": outside})
        }
    };
    println!("{found}");
    Ok(())
}
