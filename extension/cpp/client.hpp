//! The client of the C interface, as C++ knows it: handles that free themselves, failures as DuckDB's exceptions,
//! waits that end when the query is interrupted.
#pragma once

#include "duckdb_headers.hpp"

#include "openduck_client.h"

namespace openduck {

using namespace duckdb; // NOLINT

//! A statement, and how to run it. What is empty or 0 is not sent.
struct Statement {
	string sql;
	string session;
	string snapshot;
	string idempotency_key;
	idx_t min_lsn = 0;
	uint32_t inline_bytes = 0;
	uint32_t streams_max = 0;
	vector<pair<string, string>> settings;
	//! One row of parameters; null: none.
	unique_ptr<DataChunk> parameters;
	vector<string> parameter_names;
	bool read_only = false;
};

//! A result that is being read; dropping it cancels what still runs.
class Result {
public:
	explicit Result(od_result *handle) : handle(handle) {
	}
	~Result() {
		od_result_free(handle);
	}
	Result(const Result &) = delete;

	idx_t Lsn() const {
		return od_result_lsn(handle);
	}
	idx_t Streams() const {
		return od_result_streams(handle);
	}
	idx_t SchemaVersion() const {
		return od_result_schema_version(handle);
	}
	//! DuckDB's names and types of the columns, as text.
	vector<pair<string, string>> Columns() const;
	void Schema(ArrowSchema &schema) const;
	//! The next batch and its place in the result's order; false: there are no more.
	bool Next(ClientContext &context, ArrowArray &array, idx_t &place) const;

private:
	od_result *handle;
};

//! A statement that gets its rows.
class Upload {
public:
	explicit Upload(od_upload *handle) : handle(handle) {
	}
	~Upload() {
		od_upload_free(handle);
	}
	Upload(const Upload &) = delete;

	//! Takes the array over.
	void Push(ClientContext &context, ArrowArray &array) const;
	unique_ptr<Result> Finish(ClientContext &context) const;

private:
	od_upload *handle;
};

struct ClientOptions {
	string endpoint;
	string token;
	string ca_file;
	idx_t connect_timeout_ms = 5000;
	idx_t statement_timeout_ms = 0;
};

//! One database at one endpoint.
class Client {
public:
	Client(ClientOptions options, string database);
	~Client();
	Client(const Client &) = delete;

	//! Without a context the call can't be interrupted.
	unique_ptr<Result> Execute(optional_ptr<ClientContext> context, Statement &statement) const;
	//! A statement that uses one relation of this name, with a schema that is taken over.
	unique_ptr<Upload> Begin(ClientContext &context, Statement &statement, const string &input,
	                         ArrowSchema &schema) const;

	const string &Endpoint() const {
		return options.endpoint;
	}
	const string &Database() const {
		return database;
	}
	//! A name that nobody guesses.
	static string RandomName();

private:
	ClientOptions options;
	string database;
	od_client *handle;
};

} // namespace openduck
