//! What the handles hold.

#pragma once

#include "bridge.hpp"
#include "batch_format.hpp"

#include "duckdb.hpp"
#include "duckdb/main/prepared_statement.hpp"
#include "duckdb/main/query_result_stream.hpp"

namespace openduck {

class Input;

struct Database::Inside {
	std::unique_ptr<duckdb::DuckDB> duckdb;
};

struct Session::Inside {
	//! The database outlives its connections.
	std::shared_ptr<Database> database;
	std::unique_ptr<duckdb::Connection> connection;

	duckdb::ClientContext &Context() const {
		return *connection->context;
	}
};

struct Statement::Inside {
	std::shared_ptr<Session> session;
	duckdb::unique_ptr<duckdb::PreparedStatement> prepared;
	//! The statement's own type: a prepared statement's result reports EXECUTE.
	duckdb::StatementType type;
};

struct Stream::Inside {
	//! The connection outlives its results.
	std::shared_ptr<Session> session;
	std::unique_ptr<duckdb::QueryResultStream<BatchFormat>> stream;
};

inline std::string Text(rust::Str text) {
	return std::string(text.data(), text.size());
}

inline rust::String Text(const std::string &text) {
	return rust::String::lossy(text);
}

//! The names and types of columns.
rust::Vec<ColumnText> Columns(const duckdb::vector<duckdb::LogicalType> &types,
                              const duckdb::vector<duckdb::Identifier> &names);

//! Makes the table function that reads inputs known to a database.
void RegisterInputFunction(duckdb::DatabaseInstance &database);

//! Refuses plans that Rust's table does not admit, in this database, from now on.
void RegisterGuard(duckdb::DatabaseInstance &database);

} // namespace openduck
