//! Relations that are somebody's batches: a table function that polls a source in Rust, and parks where it has nothing.

#pragma once

#include "bridge.hpp"

#include "duckdb/common/arrow/arrow_wrapper.hpp"
#include "duckdb/common/mutex.hpp"
#include "duckdb/common/types/column/column_data_collection.hpp"
#include "duckdb/function/function.hpp"
#include "duckdb/function/table/arrow/arrow_duck_schema.hpp"
#include "duckdb/function/table_function.hpp"
#include "duckdb/parallel/interrupt.hpp"

namespace openduck {

//! The scans of one input that wait. A task's interrupt state may be called once for each time that the task was
//! parked, never without: DuckDB spins until the task it names is parked.
struct Parked::Inside {
	duckdb::mutex lock;
	//! The source called since it was last asked.
	bool called = false;
	duckdb::vector<duckdb::InterruptState> scans;

	//! Before the source is asked.
	void Ask();
	//! After it had nothing: false if it called meanwhile, then it is to be asked again.
	bool Park(const duckdb::InterruptState &scan);
};

//! What a batch of an input holds: Arrow's own memory when it is read once, DuckDB's (which may spill) when several
//! scans of a statement read it.
struct InputBatch {
	duckdb::shared_ptr<duckdb::ArrowArrayWrapper> array;
	duckdb::shared_ptr<duckdb::ColumnDataCollection> kept;
};

enum class Taken : uint8_t { BATCH, NOTHING_YET, END };

//! One input, shared by the scans that read it.
class Input : public duckdb::TableFunctionInfo {
public:
	Input(ArrowSchema *schema, rust::Box<Source> source, std::shared_ptr<Parked> parked);
	~Input() override;

	//! A scan begins.
	void Begin();
	//! The batch at a scan's position, which it moves on.
	Taken Take(duckdb::ClientContext &context, duckdb::idx_t &position, InputBatch &batch);
	bool Park(const duckdb::InterruptState &scan);
	void SetScans(duckdb::idx_t count);

	duckdb::ArrowSchemaWrapper schema;
	//! DuckDB's types of the columns; filled by the first bind.
	duckdb::ArrowTableSchema table;

private:
	duckdb::shared_ptr<duckdb::ColumnDataCollection> Keep(duckdb::ClientContext &context,
	                                                      duckdb::shared_ptr<duckdb::ArrowArrayWrapper> array);

	duckdb::mutex lock;
	rust::Box<Source> source;
	std::shared_ptr<Parked> parked;
	//! How many scans the running statement's plan has.
	duckdb::idx_t scans = 1;
	//! How many of them have begun.
	duckdb::idx_t begun = 0;
	bool ended = false;
	//! What was taken from the source, if several scans read it.
	duckdb::vector<InputBatch> batches;
	//! How many were, if one does.
	duckdb::idx_t taken = 0;
};

} // namespace openduck
