#include "inside.hpp"

#include "duckdb/function/table/arrow.hpp"
#include "duckdb/main/client_config.hpp"
#include "duckdb/planner/expression/bound_parameter_data.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

Stream::Stream(std::unique_ptr<Inside> inside_p) : inside(std::move(inside_p)) {
}

Stream::~Stream() {
}

//! The row of parameters as DuckDB's values, by their names. Takes both structures over.
static identifier_map_t<BoundParameterData> ReadParameters(ClientContext &context, ArrowSchema *schema,
                                                           ArrowArray *array) {
	identifier_map_t<BoundParameterData> result;
	ArrowSchemaWrapper owned_schema;
	owned_schema.arrow_schema = *schema;
	schema->release = nullptr;
	auto owned_array = make_uniq<ArrowArrayWrapper>();
	owned_array->arrow_array = *array;
	array->release = nullptr;
	if (!owned_schema.arrow_schema.release) {
		return result;
	}
	context.RunFunctionInTransaction([&]() {
		ArrowTableSchema table;
		ArrowTableFunction::PopulateArrowTableSchema(context, table, owned_schema.arrow_schema);
		DataChunk row;
		row.Initialize(context, table.GetTypes(), 1);
		row.SetChildCardinality(1);
		ArrowScanLocalState state(std::move(owned_array), context);
		ArrowTableFunction::ArrowToDuckDB(state, table.GetColumns(), row, false);
		for (idx_t i = 0; i < row.ColumnCount(); i++) {
			string name = owned_schema.arrow_schema.children[i]->name;
			if (name.empty()) {
				name = std::to_string(i + 1);
			}
			result.emplace(Identifier(name), BoundParameterData(row.GetValue(i, 0)));
		}
	});
	return result;
}

//! The open result of a statement that was submitted, its columns known.
static std::unique_ptr<Stream> Open(const std::shared_ptr<Session> &session, StatementType type, string sql,
                                    duckdb::unique_ptr<QueryResult> result) {
	if (result->HasError()) {
		Throw(result->GetErrorObject(), sql);
	}
	auto inside = std::make_unique<Stream::Inside>();
	inside->session = session;
	inside->type = type;
	inside->sql = std::move(sql);
	inside->stream = std::make_unique<QueryResultStream<BatchFormat>>(std::move(result));
	auto &stream = *inside->stream;
	// Of a statement that expands into several, the columns are known once the ones before the last have run.
	while (!stream.MetadataAvailable()) {
		auto state = stream.ExecuteTask();
		if (state == QueryResultState::EXECUTION_ERROR) {
			Throw(stream.GetErrorObject(), inside->sql);
		}
		if (state == QueryResultState::BLOCKED || state == QueryResultState::NO_TASKS_AVAILABLE) {
			stream.WaitForTask();
		}
	}
	return std::make_unique<Stream>(std::move(inside));
}

static QueryParameters Format(ClientContext &context, const Flow &flow) {
	ClientConfig::GetConfig(context).max_streaming_buffer_size = flow.buffer_bytes;
	return QueryParameters(make_shared_ptr<BatchFormat>(flow.batch_rows, flow.batch_bytes));
}

std::unique_ptr<Stream> execute(const std::shared_ptr<Session> &session, const Statement &statement,
                                ArrowSchema *parameter_schema, ArrowArray *parameters, const Flow &flow) {
	auto &context = session->inside->Context();
	auto values = ReadParameters(context, parameter_schema, parameters);
	SessionState::Get(context).read_only = false;
	auto &prepared = *statement.inside;
	auto result = prepared.prepared->Submit(values, Format(context, flow));
	return Open(session, prepared.type, prepared.sql, std::move(result));
}

std::unique_ptr<Stream> start(const std::shared_ptr<Session> &session, rust::Str sql_p, ArrowSchema *parameter_schema,
                              ArrowArray *parameters, const Flow &flow, const Start &how) {
	auto &connection = *session->inside->connection;
	auto &context = *connection.context;
	auto sql = Text(sql_p);
	auto values = ReadParameters(context, parameter_schema, parameters);
	auto statement = OneStatement(connection, sql);
	auto type = statement->type;
	auto &state = SessionState::Get(context);
	state.read_only = how.read_only;
	state.notes_operators = how.operators;
	state.operators.clear();
	auto result = context.Submit(std::move(statement), values, Format(context, flow));
	return Open(session, type, std::move(sql), std::move(result));
}

Described Stream::describe() const {
	auto &stream = *inside->stream;
	return Describe(inside->type, stream.GetStatementProperties(), stream.GetTypes(), stream.GetNames());
}

void Stream::schema(ArrowSchema *out) const {
	auto &stream = *inside->stream;
	MakeSchema(out, stream.GetTypes(), stream.GetNames(), stream.GetClientProperties());
}

bool Stream::next(ArrowArray *out) {
	auto &stream = *inside->stream;
	while (true) {
		duckdb::unique_ptr<ArrowArrayWrapper> batch;
		auto state = stream.TryFetch(batch);
		if (state == QueryResultState::READY) {
			batch->MoveTo(*out);
			return true;
		}
		if (state == QueryResultState::FINISHED) {
			return false;
		}
		if (state != QueryResultState::EXECUTION_ERROR) {
			// This thread lends a hand: a small query then needs no other thread, and none waits behind large ones.
			state = stream.ExecuteTask();
		}
		if (state == QueryResultState::EXECUTION_ERROR) {
			Throw(stream.GetErrorObject(), inside->sql);
		}
		if (state == QueryResultState::BLOCKED || state == QueryResultState::NO_TASKS_AVAILABLE) {
			stream.WaitForTask();
		}
	}
}

} // namespace openduck
