#include "rows.hpp"

namespace openduck {

LogicalType ParseType(ClientContext &context, const string &text) {
	auto &types = TypeManager::Get(context);
	try {
		return types.ParseLogicalType(text);
	} catch (InvalidInputException &) {
		// Not one of DuckDB's own: an extension's, such as JSON.
		return types.ParseLogicalType(text, context);
	}
}

RowFormat::RowFormat(ClientContext &context, const Result &result) {
	result.Schema(schema.arrow_schema);
	ArrowTableFunction::PopulateArrowTableSchema(context, table, schema.arrow_schema);
	arrow_types = table.GetTypes();
	auto columns = result.Columns();
	for (idx_t i = 0; i < columns.size(); i++) {
		names.push_back(columns[i].first);
		types.push_back(ParseType(context, columns[i].second));
	}
}

RowReader::RowReader(ClientContext &context, const RowFormat &format)
    : format(format), state(make_uniq<ArrowArrayWrapper>(), context) {
	for (idx_t i = 0; i < format.types.size(); i++) {
		casts = casts || format.types[i] != format.arrow_types[i];
	}
	if (casts) {
		raw.Initialize(context, format.arrow_types);
	}
}

void RowReader::Read(ClientContext &context, const Result &result, DataChunk &chunk) {
	while (state.chunk_offset >= NumericCast<idx_t>(state.chunk->arrow_array.length)) {
		state.Reset();
		auto batch = make_shared_ptr<ArrowArrayWrapper>();
		if (!result.Next(context, batch->arrow_array, place)) {
			state.chunk = make_shared_ptr<ArrowArrayWrapper>();
			chunk.SetChildCardinality(0);
			return;
		}
		state.chunk = std::move(batch);
	}
	auto length = NumericCast<idx_t>(state.chunk->arrow_array.length);
	auto count = MinValue<idx_t>(STANDARD_VECTOR_SIZE, length - state.chunk_offset);
	auto &target = casts ? raw : chunk;
	target.Reset();
	target.SetChildCardinality(count);
	ArrowTableFunction::ArrowToDuckDB(state, format.table.GetColumns(), target, false);
	state.chunk_offset += count;
	if (!casts) {
		return;
	}
	chunk.SetChildCardinality(count);
	for (idx_t i = 0; i < format.types.size(); i++) {
		if (format.types[i] == format.arrow_types[i]) {
			chunk.data[i].Reference(raw.data[i]);
		} else {
			VectorOperations::Cast(context, raw.data[i], chunk.data[i], count);
		}
	}
	chunk.SetChildCardinality(count);
}

} // namespace openduck
