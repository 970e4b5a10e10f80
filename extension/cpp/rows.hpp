//! Rows of a result as DuckDB's chunks.
//!
//! Arrow can't tell an ENUM from a text, nor a tuple from a struct: where the types that DuckDB named on the other
//! side are not those that Arrow gives, the rows are cast to them.
#pragma once

#include "client.hpp"

namespace openduck {

//! What a result's rows look like.
class RowFormat {
public:
	RowFormat(ClientContext &context, const Result &result);

	vector<string> names;
	//! As DuckDB on the other side has them.
	vector<LogicalType> types;
	//! As Arrow gives them.
	vector<LogicalType> arrow_types;
	ArrowSchemaWrapper schema;
	ArrowTableSchema table;
};

//! One thread's reader of a result.
class RowReader {
public:
	RowReader(ClientContext &context, const RowFormat &format);

	//! Fills the chunk, whose types are the format's; no rows: there are no more.
	void Read(ClientContext &context, const Result &result, DataChunk &chunk);
	//! The place of the batch that was read last.
	idx_t Place() const {
		return place;
	}

private:
	const RowFormat &format;
	ArrowScanLocalState state;
	DataChunk raw;
	bool casts = false;
	idx_t place = 0;
};

//! A type's name, as DuckDB spells it, as a type.
LogicalType ParseType(ClientContext &context, const string &text);

} // namespace openduck
