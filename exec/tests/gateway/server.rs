//! A server as a process with a home of its own, and a client of it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};
use arrow_schema::DataType;
use exec::wire::input::InputDecoder;
use proto::v1::execution_service_client::ExecutionServiceClient;
use proto::v1::stream_results_response::Content;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, StreamResultsRequest, Summary};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Status;
use tonic::transport::Channel;

/// The token of the operator.
pub const TOKEN: &str = "the-operators-own-token";

/// A directory for homes, which no database outlives.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Home {
        Home(
            tempfile::Builder::new()
                .prefix("openduck-gateway")
                .tempdir()
                .unwrap(),
        )
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The command, with this home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openduck"));
        command.env("OPENDUCK_HOME", self.path());
        command
            .env_remove("OPENDUCK_TOKEN")
            .env_remove("OPENDUCK_ENDPOINT");
        command.args(arguments);
        command
    }

    /// Runs a command to its end; its stdout.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A mount that a killed worker left would keep the directory.
        let mounter = mounter();
        for kind in std::fs::read_dir(self.path().join("exec"))
            .into_iter()
            .flatten()
            .flatten()
        {
            for worker in std::fs::read_dir(kind.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                let mount = worker.path().join("mount");
                let _ended = Command::new(&mounter)
                    .env("OPENDUCK_HOME", self.path())
                    .args(["umount".as_ref(), mount.as_os_str()])
                    .stderr(Stdio::null())
                    .stdout(Stdio::null())
                    .status();
            }
        }
    }
}

/// `openduck-fs`, beside the program.
fn mounter() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_openduck")).with_file_name("openduck-fs");
    assert!(
        beside.exists(),
        "{} is missing: cargo build -p difffs",
        beside.display()
    );
    beside
}

/// A server that ends with this.
pub struct Server {
    pub url: String,
    process: Child,
}

impl Server {
    /// `openduck serve -d mydb`, with what else is given.
    pub fn serve(home: &Home, more: &[&str]) -> Server {
        let mut arguments = vec!["serve", "-d", "mydb"];
        arguments.extend(more);
        Server::start(home, &arguments)
    }

    /// A server with the operator's token, on any port.
    pub fn start(home: &Home, arguments: &[&str]) -> Server {
        mounter();
        let mut command = home.command(arguments);
        command.args(["--listen", "127.0.0.1:0", "-t", TOKEN]);
        Server::of(command)
    }

    pub fn of(mut command: Command) -> Server {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http"), "{line:?}");
        Server { url, process }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Asks it to end, and waits for that.
    pub fn end(mut self) -> std::process::ExitStatus {
        signal(self.pid(), Signal::TERM);
        self.process.wait().unwrap()
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The processes that it started itself.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task", self.pid());
        let tasks = std::fs::read_dir(path).unwrap();
        let children = tasks
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        let all: Vec<String> = children.collect();
        all.iter()
            .flat_map(|one| one.split_whitespace())
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    pub async fn client(&self) -> Client {
        Client::new(&self.url, TOKEN).await
    }

    pub async fn client_with(&self, token: &str) -> Client {
        Client::new(&self.url, token).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            signal(self.pid(), Signal::TERM);
            let begin = Instant::now();
            while self.process.try_wait().unwrap().is_none() {
                if begin.elapsed() > Duration::from_secs(30) {
                    self.process.kill().unwrap();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// A client with a token.
#[derive(Clone)]
pub struct Client {
    pub service: ExecutionServiceClient<Channel>,
    token: Arc<str>,
}

/// A statement's whole result.
#[derive(Debug)]
pub struct Answered {
    pub answer: ExecuteQueryResponse,
    pub batches: Vec<RecordBatch>,
    pub summary: Summary,
}

impl Answered {
    /// The rows, as text; NULL where there is none.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for batch in &self.batches {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|column| arrow_cast::cast(&without_zone(column), &DataType::Utf8).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayRef| {
                    let text = column.as_any().downcast_ref::<StringArray>().unwrap();
                    let value = if text.is_null(row) {
                        "NULL"
                    } else {
                        text.value(row)
                    };
                    value.to_owned()
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        rows
    }

    /// The only cell.
    pub fn cell(&self) -> String {
        let rows = self.rows();
        assert_eq!((rows.len(), rows[0].len()), (1, 1), "{rows:?}");
        rows[0][0].clone()
    }
}

/// The column, with its times as they are in UTC.
fn without_zone(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            arrow_cast::cast(column, &DataType::Timestamp(*unit, None)).unwrap()
        }
        _ => Arc::clone(column),
    }
}

pub fn request(sql: &str) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        database: "mydb".to_owned(),
        sql: sql.to_owned(),
        ..ExecuteQueryRequest::default()
    }
}

pub fn in_session(session: &str, sql: &str) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        session_id: session.to_owned(),
        ..request(sql)
    }
}

impl Client {
    pub async fn new(url: &str, token: &str) -> Client {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Client::over(channel, token)
    }

    pub fn over(channel: Channel, token: &str) -> Client {
        Client {
            service: ExecutionServiceClient::new(channel).max_decoding_message_size(64 << 20),
            token: token.into(),
        }
    }

    fn call<T>(&self, message: T) -> tonic::Request<T> {
        let mut call = tonic::Request::new(message);
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        call.metadata_mut().insert("authorization", bearer);
        call
    }

    pub async fn execute(
        &self,
        request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse, Status> {
        let call = self.call(request);
        Ok(self.service.clone().execute_query(call).await?.into_inner())
    }

    pub async fn open(
        &self,
        query_id: &str,
        stream: u32,
    ) -> Result<tonic::Streaming<proto::v1::StreamResultsResponse>, Status> {
        let call = self.call(StreamResultsRequest {
            query_id: query_id.to_owned(),
            stream,
            resume_after: 0,
        });
        Ok(self
            .service
            .clone()
            .stream_results(call)
            .await?
            .into_inner())
    }

    pub async fn answered(&self, request: ExecuteQueryRequest) -> Result<Answered, Status> {
        let answer = self.execute(request).await?;
        self.read(answer).await
    }

    /// Reads all streams of a result.
    pub async fn read(&self, answer: ExecuteQueryResponse) -> Result<Answered, Status> {
        let mut decoder = InputDecoder::new("result", answer.schema.clone()).unwrap();
        let mut batches = Vec::new();
        let mut summary = None;
        for response in &answer.inline {
            match response.content.clone().unwrap() {
                Content::Batch(batch) => batches.push((response.batch_index, batch)),
                Content::Summary(one) => summary = Some(one),
            }
        }
        for number in 0..answer.streams {
            let mut stream = self.open(&answer.query_id, number).await?;
            while let Some(response) = stream.message().await? {
                match response.content.unwrap() {
                    Content::Batch(batch) => batches.push((response.batch_index, batch)),
                    Content::Summary(one) if number == 0 => summary = Some(one),
                    Content::Summary(_) => {}
                }
            }
        }
        batches.sort_by_key(|(index, _)| *index);
        let batches = batches
            .into_iter()
            .flat_map(|(_, batch)| decoder.chunk(batch).unwrap())
            .collect();
        Ok(Answered {
            answer,
            batches,
            summary: summary.unwrap(),
        })
    }

    /// Runs a statement on `mydb`, and reads its result.
    pub async fn sql(&self, sql: &str) -> Result<Answered, Status> {
        self.answered(request(sql)).await
    }

    pub async fn ok(&self, sql: &str) -> Answered {
        let answered = self.sql(sql).await;
        answered.unwrap_or_else(|status| panic!("{sql}: {status}"))
    }

    pub async fn refused(&self, sql: &str) -> Status {
        match self.sql(sql).await {
            Err(status) => status,
            Ok(answered) => panic!("{sql}: {:?}", answered.rows()),
        }
    }
}

/// Asks again and again, for a while, until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
