#include "batch_format.hpp"

#include "duckdb/common/arrow/arrow_appender.hpp"
#include "duckdb/common/arrow/arrow_wrapper.hpp"
#include "duckdb/common/deque.hpp"
#include "duckdb/common/types/data_chunk.hpp"
#include "duckdb/function/table/arrow/arrow_duck_schema.hpp"

namespace openduck {

using namespace duckdb; // NOLINT: this file is an extension of DuckDB's own

namespace {

class BatchUnit : public ResultUnit {
public:
	BatchUnit(idx_t rows, idx_t bytes, unique_ptr<ArrowArrayWrapper> array_p)
	    : ResultUnit(rows, bytes), array(std::move(array_p)) {
	}

	unique_ptr<ArrowArrayWrapper> array;
};

class BatchLocalState : public ResultFormatLocalState {
public:
	//! The array that is being made, from its first row on.
	unique_ptr<ArrowAppender> appender;
	//! Arrays that have ended and were not taken yet.
	deque<unique_ptr<BatchUnit>> ended;
	//! How many rows to append before the size is looked at again. Rows may be of any size, so it starts small and
	//! follows what the rows seen so far were like.
	idx_t step = 8;
	//! The rows of the array before: buffers that begin at that size are not copied while they grow.
	idx_t rows_before = 0;

	void End() {
		auto rows = appender->RowCount();
		rows_before = rows;
		auto bytes = appender->ByteSize();
		// Made before Finalize, so that nothing can throw while the array belongs to nobody.
		auto array = make_uniq<ArrowArrayWrapper>();
		array->arrow_array = appender->Finalize();
		appender.reset();
		ended.push_back(make_uniq<BatchUnit>(rows, bytes, std::move(array)));
	}
};

} // namespace

BatchFormat::BatchFormat(idx_t rows_max_p, idx_t bytes_target_p) : rows_max(rows_max_p), bytes_target(bytes_target_p) {
}

const char *BatchFormat::Name() const {
	return NAME;
}

unique_ptr<ResultFormatGlobalState> BatchFormat::InitGlobal(const ResultFormatContext &context) {
	return make_uniq<ArrowFormatGlobalState>(context);
}

unique_ptr<ResultFormatLocalState> BatchFormat::InitLocal(ResultFormatGlobalState &gstate) {
	return make_uniq<BatchLocalState>();
}

void BatchFormat::AppendToUnit(ResultFormatGlobalState &gstate_p, ResultFormatLocalState &lstate_p, DataChunk &chunk) {
	auto &gstate = gstate_p.Cast<ArrowFormatGlobalState>();
	auto &lstate = lstate_p.Cast<BatchLocalState>();
	auto count = chunk.size();
	idx_t done = 0;
	while (done < count) {
		if (!lstate.appender) {
			auto capacity = MinValue(rows_max, MaxValue(count, lstate.rows_before));
			lstate.appender =
			    make_uniq<ArrowAppender>(gstate.Types(), capacity, gstate.Properties(), gstate.ExtensionTypes());
		}
		auto room = rows_max - lstate.appender->RowCount();
		auto rows = MinValue(MinValue(lstate.step, room), count - done);
		lstate.appender->Append(chunk, done, done + rows, count);
		done += rows;
		auto total = lstate.appender->RowCount();
		auto bytes = MaxValue<idx_t>(lstate.appender->ByteSize(), 1);
		// A quarter of an array's worth: an array is then at most a quarter too large, if rows stay as they are.
		lstate.step = MaxValue<idx_t>(1, MinValue<idx_t>(STANDARD_VECTOR_SIZE, bytes_target / 4 * total / bytes));
		if (total >= rows_max || bytes >= bytes_target) {
			lstate.End();
		}
	}
}

bool BatchFormat::IsUnitFinished(ResultFormatLocalState &lstate) {
	return !lstate.Cast<BatchLocalState>().ended.empty();
}

unique_ptr<ResultUnit> BatchFormat::FinishUnit(ResultFormatGlobalState &gstate, ResultFormatLocalState &lstate_p) {
	auto &lstate = lstate_p.Cast<BatchLocalState>();
	if (lstate.ended.empty()) {
		if (!lstate.appender || lstate.appender->RowCount() == 0) {
			return nullptr;
		}
		lstate.End();
	}
	auto unit = std::move(lstate.ended.front());
	lstate.ended.pop_front();
	return std::move(unit);
}

unique_ptr<ArrowArrayWrapper> BatchFormat::UnpackUnit(unique_ptr<ResultUnit> unit) {
	if (!unit) {
		return nullptr;
	}
	return std::move(unit->Cast<BatchUnit>().array);
}

} // namespace openduck
