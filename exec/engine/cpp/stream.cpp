#include "inside.hpp"

#include "engine/src/ffi.rs.h"

#include "duckdb/common/arrow/arrow_converter.hpp"
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

std::unique_ptr<Stream> execute(const std::shared_ptr<Session> &session, const Statement &statement,
                                ArrowSchema *parameter_schema, ArrowArray *parameters, const Flow &flow) {
	auto &context = session->inside->Context();
	auto values = ReadParameters(context, parameter_schema, parameters);
	ClientConfig::GetConfig(context).max_streaming_buffer_size = flow.buffer_bytes;
	auto format = make_shared_ptr<BatchFormat>(flow.batch_rows, flow.batch_bytes);
	auto result = statement.inside->prepared->Submit(values, QueryParameters(std::move(format)));
	if (result->HasError()) {
		Throw(result->GetErrorObject());
	}
	auto inside = std::make_unique<Stream::Inside>();
	inside->session = session;
	inside->stream = std::make_unique<QueryResultStream<BatchFormat>>(std::move(result));
	auto &stream = *inside->stream;
	// Of a statement that expands into several, the columns are known once the ones before the last have run.
	while (!stream.MetadataAvailable()) {
		auto state = stream.ExecuteTask();
		if (state == QueryResultState::EXECUTION_ERROR) {
			Throw(stream.GetErrorObject());
		}
		if (state == QueryResultState::BLOCKED || state == QueryResultState::NO_TASKS_AVAILABLE) {
			stream.WaitForTask();
		}
	}
	return std::make_unique<Stream>(std::move(inside));
}

rust::Vec<ColumnText> Stream::columns() const {
	return Columns(inside->stream->GetTypes(), inside->stream->GetNames());
}

void Stream::schema(ArrowSchema *out) const {
	auto &stream = *inside->stream;
	ArrowConverter::ToArrowSchema(out, stream.GetTypes(), IdentifiersToStrings(stream.GetNames()),
	                              stream.GetClientProperties());
}

uint8_t Stream::return_type() const {
	return static_cast<uint8_t>(inside->stream->GetStatementProperties().return_type);
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
			Throw(stream.GetErrorObject());
		}
		if (state == QueryResultState::BLOCKED || state == QueryResultState::NO_TASKS_AVAILABLE) {
			stream.WaitForTask();
		}
	}
}

} // namespace openduck
