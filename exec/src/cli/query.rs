//! `query`: runs one statement, and prints its rows.
//!
//! Arrow output is the server's own bytes. For the other forms the rows stream into a DuckDB in this
//! process, which knows every type of its own, and out of it by COPY: so CSV, JSON and Parquet are what
//! DuckDB itself writes, and memory stays bounded. A table is for people, and cut.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use arrow_array::{Array as _, RecordBatch, StringArray};
use clap::{Args, ValueEnum};
use engine::{Access, Connection, Instance, InstanceConfig, RowSource};
use layerd::id::DatabaseName;
use tokio::sync::mpsc;

use super::connect::{Client, Connect};
use super::rows::{Rows, request};
use super::{Context, output, runtime};

/// What marks the end of an Arrow IPC stream.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Rows that a table shows.
const TABLE_ROWS_MAX: usize = 1000;
/// Batches that wait to be written.
const WAITING_MAX: usize = 4;
/// How soon, and how often, progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
const MEMORY_BYTES: u64 = 512 << 20;

/// Run one statement and print its rows
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck query 'SELECT * FROM t' -d mydb\n  openduck query 'FROM t' -d mydb --format parquet > t.parquet\n  echo 'SELECT 42' | openduck query - -d mydb --format csv"
)]
pub(super) struct Query {
    /// The statement; `-`, or none, reads it from stdin
    #[arg(value_name = "SQL")]
    sql: Option<String>,
    /// The database
    #[arg(short, long, value_name = "DB")]
    database: DatabaseName,
    /// How to print [default: a table on a terminal, else csv]
    #[arg(short, long)]
    format: Option<Format>,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read this state: a snapshot's name or id, `lsn:N`, or a time
    #[arg(long, value_name = "REF", default_value = "")]
    at: String,
    /// Refuse a statement that changes something
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Parquet,
    Arrow,
}

impl Query {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let sql = self.sql()?;
        let format = self
            .format
            .unwrap_or(match output::is_terminal() && self.output.is_none() {
                true => Format::Table,
                false => Format::Csv,
            });
        if format == Format::Parquet && self.output.is_none() && output::is_terminal() {
            bail!("Parquet is not for a terminal; name a file with --output, or redirect it");
        }
        let runtime = runtime()?;
        let mut asked = request(self.database.as_str(), &sql);
        asked.snapshot.clone_from(&self.at);
        if let Some(options) = &mut asked.options {
            options.read_only = self.read_only;
        }
        let (client, rows) = runtime.block_on(async {
            let mut client = self.connect.open(context).await?;
            let rows = Rows::of(&mut client, asked).await?;
            Ok::<_, anyhow::Error>((client, rows))
        })?;
        let mut reading = Reading {
            client,
            rows,
            progress: Progress::new(),
        };
        match format {
            Format::Arrow => runtime.block_on(reading.write_arrow(self.output.as_deref())),
            _ if reading.rows.answer.columns.is_empty() => runtime.block_on(async {
                while reading.next().await?.is_some() {}
                Ok(())
            }),
            _ => reading.write(&runtime, format, self.output.as_deref()),
        }
    }

    fn sql(&self) -> Result<String> {
        match self.sql.as_deref() {
            Some(sql) if sql != "-" => Ok(sql.to_owned()),
            _ => {
                let mut sql = String::new();
                std::io::stdin()
                    .read_to_string(&mut sql)
                    .context("cannot read the statement from stdin")?;
                Ok(sql)
            }
        }
    }
}

struct Reading {
    client: Client,
    rows: Rows,
    progress: Progress,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        let message = self.rows.next(&mut self.client).await?;
        match &message {
            Some(message) => self.progress.passed(message.len()),
            None => self.progress.over(),
        }
        Ok(message)
    }

    async fn write_arrow(&mut self, path: Option<&std::path::Path>) -> Result<()> {
        let mut out: Box<dyn std::io::Write> = match path {
            Some(path) => Box::new(
                std::fs::File::create(path)
                    .with_context(|| format!("cannot make {}", path.display()))?,
            ),
            None => Box::new(std::io::stdout().lock()),
        };
        let schema = self.rows.answer.schema.clone();
        let mut write = |bytes: &[u8]| out.write_all(bytes).context("cannot write the rows");
        write(&schema)?;
        while let Some(message) = self.next().await? {
            write(&message)?;
        }
        write(&END_OF_STREAM)?;
        Ok(out.flush()?)
    }

    /// Sends the rows through a DuckDB of our own.
    fn write(
        mut self,
        runtime: &tokio::runtime::Runtime,
        format: Format,
        path: Option<&std::path::Path>,
    ) -> Result<()> {
        let scratch = tempfile::tempdir().context("no directory for temporary files")?;
        let instance = Instance::open(&InstanceConfig {
            path: None,
            access: Access::ReadWrite,
            memory_bytes: MEMORY_BYTES,
            threads: 1,
            temp_directory: scratch.path().to_owned(),
            temp_bytes_max: 1 << 30,
            storage_version: None,
            allowed_directories: Vec::new(),
            locked_down: false,
        })?;
        let mut connection = instance.connect()?;
        let mut decoder = self.rows.decoder()?;
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let schema = std::sync::Arc::clone(decoder.schema());
        let _input = connection.register_input("result", schema, Box::new(Arriving(waiting)))?;
        let reading = runtime.spawn(async move {
            while let Some(message) = self.next().await? {
                for batch in decoder.chunk(message)? {
                    if sender.send(Ok(batch)).await.is_err() {
                        // The table has all the rows that it shows.
                        return Ok(());
                    }
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        let written = match format {
            Format::Table => print_table(&mut connection),
            _ => copy(&mut connection, format, path),
        };
        drop(connection);
        // What went wrong on the way says more than a file that ended early.
        runtime.block_on(reading).context("reading the rows")??;
        written
    }
}

/// Batches as they arrive.
struct Arriving(mpsc::Receiver<Result<RecordBatch, String>>);

impl RowSource for Arriving {
    fn poll_next(
        &mut self,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<Option<RecordBatch>, String>> {
        Pin::new(&mut self.0)
            .poll_recv(context)
            .map(Option::transpose)
    }
}

fn copy(connection: &mut Connection, format: Format, path: Option<&std::path::Path>) -> Result<()> {
    let path = match path {
        Some(path) => path
            .to_str()
            .ok_or_else(|| anyhow!("{} is no UTF-8", path.display()))?,
        None => "/dev/stdout",
    };
    let how = match format {
        Format::Json => "FORMAT json",
        Format::Parquet => "FORMAT parquet",
        _ => "FORMAT csv, HEADER true",
    };
    let path = path.replace('\'', "''");
    connection.run(&format!("COPY (FROM result) TO '{path}' ({how})"))?;
    Ok(())
}

fn print_table(connection: &mut Connection) -> Result<()> {
    let sql = format!(
        "SELECT COLUMNS(*)::VARCHAR FROM result LIMIT {}",
        TABLE_ROWS_MAX + 1
    );
    let prepared = connection.prepare(&sql)?;
    let mut running = connection.execute(&prepared, None)?;
    let titles: Vec<String> = running
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let mut rows = Vec::new();
    while let Some(batch) = running.next()? {
        for row in 0..batch.num_rows() {
            let cell = |column: &arrow_array::ArrayRef| {
                let text = arrow_cast::cast(column, &arrow_schema::DataType::Utf8).ok()?;
                let text = text.as_any().downcast_ref::<StringArray>()?;
                text.is_valid(row).then(|| text.value(row).to_owned())
            };
            rows.push(batch.columns().iter().map(cell).collect());
        }
    }
    let is_cut = rows.len() > TABLE_ROWS_MAX;
    rows.truncate(TABLE_ROWS_MAX);
    output::print(&output::table(&titles, &rows))?;
    if is_cut {
        output::remark(&format_args!(
            "these are the first {TABLE_ROWS_MAX} rows; another --format gives all"
        ));
    }
    Ok(())
}

/// What has come so far, on a terminal.
struct Progress {
    bytes: usize,
    began: Instant,
    shown: Option<Instant>,
    is_wanted: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            bytes: 0,
            began: Instant::now(),
            shown: None,
            is_wanted: std::io::stderr().is_terminal() && !output::is_terminal(),
        }
    }

    fn passed(&mut self, bytes: usize) {
        self.bytes += bytes;
        let since = self.shown.unwrap_or(self.began);
        if self.is_wanted && since.elapsed() >= PROGRESS_EVERY {
            self.shown = Some(Instant::now());
            let seconds = self.began.elapsed().as_secs_f64();
            let megabytes = self.bytes as f64 / 1e6;
            eprint!("\r{megabytes:.1} MB, {:.0} MB/s ", megabytes / seconds);
        }
    }

    fn over(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
