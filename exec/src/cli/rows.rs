//! A result on its way from the server to whoever wants its rows.
//!
//! Streams are read one after the other, so the rows are in the result's order if there is one stream,
//! which is what commands ask for.

use anyhow::{Context as _, Result};
use arrow_array::RecordBatch;
use bytes::Bytes;
use proto::v1::stream_results_response::Content;
use proto::v1::{
    ExecuteQueryRequest, ExecuteQueryResponse, Options, StreamResultsRequest, Summary,
};

use super::connect::{Client, told};
use crate::wire::input::InputDecoder;

/// As much may come inside the answer.
const INLINE_BYTES: u32 = 1 << 20;

/// A result that is being read.
pub(super) struct Rows {
    /// The answer.
    pub(super) answer: ExecuteQueryResponse,
    inline: std::vec::IntoIter<proto::v1::StreamResultsResponse>,
    stream: Option<tonic::Streaming<proto::v1::StreamResultsResponse>>,
    next_stream: u32,
    /// Stream 0's, once it was read.
    pub(super) summary: Option<Summary>,
}

/// What a command asks of a statement.
pub(super) fn request(database: &str, sql: &str) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        database: database.to_owned(),
        sql: sql.to_owned(),
        options: Some(Options {
            inline_bytes: INLINE_BYTES,
            max_streams: 1,
            ..Options::default()
        }),
        ..ExecuteQueryRequest::default()
    }
}

impl Rows {
    /// Runs a statement.
    pub(super) async fn of(client: &mut Client, request: ExecuteQueryRequest) -> Result<Rows> {
        let mut answer = client.execute(request).await?;
        Ok(Rows {
            inline: std::mem::take(&mut answer.inline).into_iter(),
            answer,
            stream: None,
            next_stream: 0,
            summary: None,
        })
    }

    /// The next Arrow IPC message; dictionaries come once.
    pub(super) async fn next(&mut self, client: &mut Client) -> Result<Option<Bytes>> {
        loop {
            let response = match self.inline.next() {
                Some(response) => Some(response),
                None => self.next_of_streams(client).await?,
            };
            let Some(response) = response else {
                return Ok(None);
            };
            let is_repeated_dictionary = response.sequence == 0 && self.next_stream > 1;
            match response.content {
                Some(Content::Batch(batch)) if !is_repeated_dictionary => return Ok(Some(batch)),
                Some(Content::Summary(summary)) if self.next_stream <= 1 => {
                    self.summary = Some(summary);
                }
                _ => {}
            }
        }
    }

    async fn next_of_streams(
        &mut self,
        client: &mut Client,
    ) -> Result<Option<proto::v1::StreamResultsResponse>> {
        loop {
            if let Some(stream) = &mut self.stream {
                if let Some(response) = stream.message().await.map_err(told)? {
                    return Ok(Some(response));
                }
                self.stream = None;
            }
            let is_all_here = self.summary.is_some() && self.answer.streams <= 1;
            if is_all_here || self.next_stream >= self.answer.streams {
                return Ok(None);
            }
            let request = StreamResultsRequest {
                query_id: self.answer.query_id.clone(),
                stream: self.next_stream,
                resume_after: 0,
            };
            self.next_stream += 1;
            self.stream = Some(client.stream(request).await?);
        }
    }

    /// A decoder for the messages.
    pub(super) fn decoder(&self) -> Result<InputDecoder> {
        InputDecoder::new("the result", self.answer.schema.clone())
            .context("the server's answer makes no sense")
    }
}

/// All rows of a small result, as text.
pub(super) struct Listed {
    /// Names of the columns.
    pub(super) titles: Vec<String>,
    /// DuckDB's types of them.
    pub(super) types: Vec<String>,
    /// The rows.
    pub(super) rows: Vec<Vec<Option<String>>>,
}

/// Runs a statement whose result is small, and of simple types.
pub(super) async fn list(client: &mut Client, sql: &str) -> Result<Listed> {
    let mut rows = Rows::of(client, request("", sql)).await?;
    let mut decoder = rows.decoder()?;
    let mut listed = Listed {
        titles: rows
            .answer
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect(),
        types: rows
            .answer
            .columns
            .iter()
            .map(|column| column.r#type.clone())
            .collect(),
        rows: Vec::new(),
    };
    while let Some(message) = rows.next(client).await? {
        for batch in decoder.chunk(message)? {
            add(&mut listed.rows, &batch)?;
        }
    }
    Ok(listed)
}

fn add(rows: &mut Vec<Vec<Option<String>>>, batch: &RecordBatch) -> Result<()> {
    let options = arrow_cast::display::FormatOptions::default();
    let columns = batch
        .columns()
        .iter()
        .map(|column| arrow_cast::display::ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let cells = columns.iter().zip(batch.columns()).map(|(text, column)| {
            let is_null = arrow_array::Array::is_null(column, row);
            (!is_null).then(|| text.value(row).to_string())
        });
        rows.push(cells.collect());
    }
    Ok(())
}
