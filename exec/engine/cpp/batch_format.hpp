//! The form in which results leave DuckDB: Arrow arrays of a bounded size, made by the threads that produce
//! the rows.

#pragma once

#include "duckdb/common/arrow/arrow_format.hpp"
#include "duckdb/main/result_format.hpp"

namespace openduck {

//! As DuckDB's own ArrowFormat, but an array ends at a number of bytes too, not only of rows: so what is in flight is
//! bounded whatever the rows are.
class BatchFormat : public duckdb::ResultFormatBase<BatchFormat> {
public:
	using T = duckdb::ArrowArrayWrapper;
	using GlobalState = duckdb::ArrowFormatGlobalState;
	static constexpr const char *NAME = "openduck_batch";

	BatchFormat(duckdb::idx_t rows_max, duckdb::idx_t bytes_target);

	const char *Name() const override;
	duckdb::unique_ptr<duckdb::ResultFormatGlobalState> InitGlobal(const duckdb::ResultFormatContext &context) override;
	duckdb::unique_ptr<duckdb::ResultFormatLocalState> InitLocal(duckdb::ResultFormatGlobalState &gstate) override;
	void AppendToUnit(duckdb::ResultFormatGlobalState &gstate, duckdb::ResultFormatLocalState &lstate,
	                  duckdb::DataChunk &chunk) override;
	bool IsUnitFinished(duckdb::ResultFormatLocalState &lstate) override;
	duckdb::unique_ptr<duckdb::ResultUnit> FinishUnit(duckdb::ResultFormatGlobalState &gstate,
	                                                  duckdb::ResultFormatLocalState &lstate) override;

	static duckdb::unique_ptr<T> UnpackUnit(duckdb::unique_ptr<duckdb::ResultUnit> unit);

private:
	const duckdb::idx_t rows_max;
	const duckdb::idx_t bytes_target;
};

} // namespace openduck
