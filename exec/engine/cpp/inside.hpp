//! What the handles hold.

#pragma once

#include "engine/src/ffi.rs.h"

#include "bridge.hpp"
#include "batch_format.hpp"

#include "duckdb.hpp"
#include "duckdb/main/client_context_state.hpp"
#include "duckdb/main/prepared_statement.hpp"
#include "duckdb/main/query_result_stream.hpp"

namespace openduck {

class Input;

struct Database::Inside {
	std::unique_ptr<duckdb::DuckDB> duckdb;
};

//! What the hooks on a connection's plans (guard.cpp) know and note.
struct SessionState : public duckdb::ClientContextState {
	static constexpr const char *NAME = "openduck";

	//! Refuse what changes anything but the temporary database.
	bool read_only = false;
	//! Note the operators of each plan.
	bool notes_operators = false;
	rust::Vec<PlannedOperator> operators;

	static SessionState &Get(duckdb::ClientContext &context) {
		return *context.registered_state->GetOrCreate<SessionState>(NAME);
	}
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
	std::string sql;
};

struct Stream::Inside {
	//! The connection outlives its results.
	std::shared_ptr<Session> session;
	std::unique_ptr<duckdb::QueryResultStream<BatchFormat>> stream;
	duckdb::StatementType type;
	std::string sql;
};

inline std::string Text(rust::Str text) {
	return std::string(text.data(), text.size());
}

inline rust::String Text(const std::string &text) {
	return rust::String::lossy(text);
}

//! What is known of a statement that was bound.
Described Describe(duckdb::StatementType type, const duckdb::StatementProperties &properties,
                   const duckdb::vector<duckdb::LogicalType> &types, const duckdb::vector<duckdb::Identifier> &names);

//! The Arrow schema of a result; refuses what Arrow can't hold.
void MakeSchema(ArrowSchema *out, const duckdb::vector<duckdb::LogicalType> &types,
                const duckdb::vector<duckdb::Identifier> &names, duckdb::ClientProperties properties);

//! The one statement of a text.
duckdb::unique_ptr<duckdb::SQLStatement> OneStatement(duckdb::Connection &connection, const std::string &sql);

//! Makes the table function that reads inputs known to a database.
void RegisterInputFunction(duckdb::DatabaseInstance &database);

//! Tells each input that a plan reads how many scans of it the plan has.
void CountInputScans(duckdb::LogicalOperator &plan);

//! Looks at each plan of this database from now on. A locked one refuses those that Rust's table does not admit.
void RegisterHooks(duckdb::DatabaseInstance &database, const Options &options);

} // namespace openduck
