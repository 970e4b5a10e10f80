#include "input.hpp"

#include "inside.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/function/replacement_scan.hpp"
#include "duckdb/function/table/arrow.hpp"
#include "duckdb/main/client_config.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"
#include "duckdb/planner/operator/logical_get.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

static constexpr const char *FUNCTION = "openduck_input";

//===--------------------------------------------------------------------===//
// Waking
//===--------------------------------------------------------------------===//
Parked::Parked() : inside(std::make_unique<Inside>()) {
}

Parked::~Parked() {
}

std::shared_ptr<Parked> new_parked() {
	return std::make_shared<Parked>();
}

void Parked::Inside::Ask() {
	lock_guard<mutex> guard(lock);
	called = false;
}

bool Parked::Inside::Park(const InterruptState &scan) {
	lock_guard<mutex> guard(lock);
	if (called) {
		return false;
	}
	scans.push_back(scan);
	return true;
}

void Parked::wake() const {
	vector<InterruptState> scans;
	{
		lock_guard<mutex> guard(inside->lock);
		inside->called = true;
		scans.swap(inside->scans);
	}
	for (auto &scan : scans) {
		scan.Callback();
	}
}

//===--------------------------------------------------------------------===//
// The input
//===--------------------------------------------------------------------===//
Input::Input(ArrowSchema *schema_p, rust::Box<Source> source_p, std::shared_ptr<Parked> parked_p)
    : source(std::move(source_p)), parked(std::move(parked_p)) {
	schema.arrow_schema = *schema_p;
	schema_p->release = nullptr;
}

Input::~Input() {
}

void Input::SetScans(idx_t count) {
	lock_guard<mutex> guard(lock);
	scans = count;
	begun = 0;
}

void Input::Begin() {
	lock_guard<mutex> guard(lock);
	if (begun == scans) {
		// The same plan runs again.
		begun = 0;
	}
	if (begun == 0 && batches.empty() && (taken > 0 || ended)) {
		throw InvalidInputException("the rows of an input were read already: they travel once");
	}
	begun++;
}

bool Input::Park(const InterruptState &scan) {
	return parked->inside->Park(scan);
}

Taken Input::Take(ClientContext &context, idx_t &position, InputBatch &batch) {
	lock_guard<mutex> guard(lock);
	if (position < batches.size()) {
		batch = batches[position++];
		return Taken::BATCH;
	}
	if (scans == 1 && batches.empty()) {
		// The scan's threads share the source; the position only gives the batches their order.
		position = taken;
	}
	while (!ended) {
		auto array = make_shared_ptr<ArrowArrayWrapper>();
		parked->inside->Ask();
		auto answer = source->poll(parked, &array->arrow_array);
		if (answer == 0) {
			return Taken::NOTHING_YET;
		}
		if (answer == 2) {
			ended = true;
			break;
		}
		if (array->arrow_array.length == 0) {
			continue;
		}
		taken++;
		position++;
		if (scans == 1) {
			batch = InputBatch {std::move(array), nullptr};
		} else {
			batch = InputBatch {nullptr, Keep(context, std::move(array))};
			batches.push_back(batch);
		}
		return Taken::BATCH;
	}
	return Taken::END;
}

shared_ptr<ColumnDataCollection> Input::Keep(ClientContext &context, shared_ptr<ArrowArrayWrapper> array) {
	auto kept = make_shared_ptr<ColumnDataCollection>(context, table.GetTypes());
	ColumnDataAppendState append;
	kept->InitializeAppend(append);
	DataChunk chunk;
	chunk.Initialize(context, table.GetTypes());
	ArrowScanLocalState state(make_uniq<ArrowArrayWrapper>(), context);
	state.chunk = std::move(array);
	auto length = NumericCast<idx_t>(state.chunk->arrow_array.length);
	for (idx_t offset = 0; offset < length; offset += STANDARD_VECTOR_SIZE) {
		chunk.Reset();
		chunk.SetChildCardinality(MinValue<idx_t>(STANDARD_VECTOR_SIZE, length - offset));
		state.chunk_offset = offset;
		ArrowTableFunction::ArrowToDuckDB(state, table.GetColumns(), chunk, false);
		kept->Append(append, chunk);
	}
	return kept;
}

//===--------------------------------------------------------------------===//
// The table function
//===--------------------------------------------------------------------===//
namespace {

struct InputBindData : public TableFunctionData {
	explicit InputBindData(shared_ptr<Input> input_p) : input(std::move(input_p)) {
	}

	shared_ptr<Input> input;
};

struct InputGlobalState : public GlobalTableFunctionState {
	mutex lock;
	//! Where this scan is in the input.
	idx_t position = 0;
	idx_t threads = 1;

	idx_t MaxThreads() const override {
		return threads;
	}
};

struct InputLocalState : public LocalTableFunctionState {
	explicit InputLocalState(ClientContext &context) : scan(make_uniq<ArrowArrayWrapper>(), context) {
		scan.chunk.reset();
	}

	//! A batch in Arrow's memory …
	ArrowScanLocalState scan;
	//! … or in DuckDB's.
	shared_ptr<ColumnDataCollection> kept;
	ColumnDataScanState kept_scan;
	vector<column_t> column_ids;
	idx_t batch_index = 0;
};

unique_ptr<FunctionData> Bind(ClientContext &context, TableFunctionBindInput &bind, vector<LogicalType> &types,
                              vector<Identifier> &names) {
	auto input = dynamic_cast<Input *>(bind.ref.bind_info.get());
	if (!input) {
		throw BinderException("%s is not for use by name: an input is", FUNCTION);
	}
	names = StringsToIdentifiers(input->table.GetNames());
	types = input->table.GetTypes();
	return make_uniq<InputBindData>(shared_ptr_cast<TableFunctionInfo, Input>(bind.ref.bind_info));
}

unique_ptr<GlobalTableFunctionState> InitGlobal(ClientContext &context, TableFunctionInitInput &init) {
	init.bind_data->Cast<InputBindData>().input->Begin();
	auto state = make_uniq<InputGlobalState>();
	state->threads = context.db->NumberOfThreads();
	return std::move(state);
}

unique_ptr<LocalTableFunctionState> InitLocal(ExecutionContext &context, TableFunctionInitInput &init,
                                              GlobalTableFunctionState *) {
	auto state = make_uniq<InputLocalState>(context.client);
	state->column_ids = init.column_ids;
	state->scan.column_ids = init.column_ids;
	return std::move(state);
}

//! A column of no rows' worth: asked for where only the number of rows counts.
bool IsVirtual(column_t column) {
	return column == COLUMN_IDENTIFIER_ROW_ID || column == COLUMN_IDENTIFIER_EMPTY;
}

void Start(InputLocalState &local, InputBatch batch, idx_t position) {
	local.batch_index = position;
	local.scan.Reset();
	local.scan.chunk = std::move(batch.array);
	local.kept = std::move(batch.kept);
	if (local.kept) {
		vector<column_t> columns;
		for (auto column : local.column_ids) {
			columns.push_back(IsVirtual(column) ? 0 : column);
		}
		local.kept->InitializeScan(local.kept_scan, columns);
	}
}

//! More rows of the batch at hand; false at its end.
bool Continue(const Input &input, InputLocalState &local, DataChunk &output) {
	if (local.kept) {
		return local.kept->Scan(local.kept_scan, output);
	}
	if (!local.scan.chunk) {
		return false;
	}
	auto length = NumericCast<idx_t>(local.scan.chunk->arrow_array.length);
	if (local.scan.chunk_offset >= length) {
		return false;
	}
	auto rows = MinValue<idx_t>(STANDARD_VECTOR_SIZE, length - local.scan.chunk_offset);
	output.SetChildCardinality(rows);
	ArrowTableFunction::ArrowToDuckDB(local.scan, input.table.GetColumns(), output, false);
	local.scan.chunk_offset += rows;
	return true;
}

void Scan(ClientContext &context, TableFunctionInput &data, DataChunk &output) {
	auto &input = *data.bind_data->Cast<InputBindData>().input;
	auto &global = data.global_state->Cast<InputGlobalState>();
	auto &local = data.local_state->Cast<InputLocalState>();
	while (!Continue(input, local, output)) {
		InputBatch batch;
		Taken taken;
		idx_t position;
		{
			lock_guard<mutex> guard(global.lock);
			taken = input.Take(context, global.position, batch);
			position = global.position;
		}
		switch (taken) {
		case Taken::BATCH:
			Start(local, std::move(batch), position);
			break;
		case Taken::END:
			return;
		case Taken::NOTHING_YET:
			if (data.interrupt_state && data.results_execution_mode == AsyncResultsExecutionMode::TASK_EXECUTOR) {
				if (input.Park(*data.interrupt_state)) {
					data.async_result = AsyncResultType::BLOCKED;
					return;
				}
			} else {
				// A pipeline that DuckDB drives by hand can't be parked.
				context.BlockingInterruptCheck();
				std::this_thread::sleep_for(std::chrono::milliseconds(1));
			}
			break;
		}
	}
}

OperatorPartitionData PartitionData(ClientContext &, TableFunctionGetPartitionInput &partition) {
	if (partition.partition_info.RequiresPartitionColumns()) {
		throw InternalException("an input has no partition columns");
	}
	return OperatorPartitionData(partition.local_state->Cast<InputLocalState>().batch_index);
}

//! What a recursion reads, it reads again in each of its rounds.
void CountScans(LogicalOperator &op, reference_map_t<Input, idx_t> &scans, idx_t weight = 1) {
	if (op.type == LogicalOperatorType::LOGICAL_RECURSIVE_CTE) {
		weight = 2;
	}
	if (op.type == LogicalOperatorType::LOGICAL_GET) {
		auto &get = op.Cast<LogicalGet>();
		if (get.function.GetName() == FUNCTION && get.bind_data) {
			scans[*get.bind_data->Cast<InputBindData>().input] += weight;
		}
	}
	for (auto &child : op.children) {
		CountScans(*child, scans, weight);
	}
}

} // namespace

void CountInputScans(LogicalOperator &plan) {
	reference_map_t<Input, idx_t> scans;
	CountScans(plan, scans);
	for (auto &entry : scans) {
		entry.first.get().SetScans(entry.second);
	}
}

void RegisterInputFunction(DatabaseInstance &database) {
	TableFunction function(FUNCTION, {}, Scan, Bind, InitGlobal, InitLocal);
	function.projection_pushdown = true;
	function.get_partition_data = PartitionData;
	ExtensionLoader loader(database, "openduck_engine");
	loader.RegisterFunction(std::move(function));
}

//===--------------------------------------------------------------------===//
// Names
//===--------------------------------------------------------------------===//
namespace {

struct NamedInput : public ReplacementScanData {
	NamedInput(Identifier name_p, shared_ptr<Input> input_p) : name(std::move(name_p)), input(std::move(input_p)) {
	}

	Identifier name;
	shared_ptr<Input> input;
};

unique_ptr<TableRef> Replace(ClientContext &, ReplacementScanInput &scan, optional_ptr<ReplacementScanData> data) {
	auto &named = data->Cast<NamedInput>();
	if (scan.name.Path().size() != 1 || scan.name.Name() != named.name) {
		return nullptr;
	}
	auto ref = make_uniq<TableFunctionRef>();
	ref->function = make_uniq<FunctionExpression>(Identifier(FUNCTION), vector<unique_ptr<ParsedExpression>>());
	ref->bind_info = named.input;
	ref->alias = named.name;
	return std::move(ref);
}

} // namespace

void Session::add_input(rust::Str name, ArrowSchema *schema, rust::Box<Source> source,
                        std::shared_ptr<Parked> parked) const {
	auto &context = inside->Context();
	auto input = make_shared_ptr<Input>(schema, std::move(source), std::move(parked));
	Identifier identifier(Text(name));
	context.RunFunctionInTransaction([&]() {
		EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, QualifiedName(identifier));
		if (Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL)) {
			throw BinderException("the name %s of an input is that of a table or view", identifier);
		}
		ArrowTableFunction::PopulateArrowTableSchema(context, input->table, input->schema.arrow_schema);
	});
	if (input->table.GetTypes().empty()) {
		throw BinderException("the input %s has no columns", identifier);
	}
	auto scan = make_shared_ptr<ReplacementScan>(Replace, make_uniq<NamedInput>(identifier, std::move(input)));
	ClientConfig::GetConfig(context).replacement_scans.push_back(std::move(scan));
}

void Session::remove_input(rust::Str name_p) const {
	Identifier name(Text(name_p));
	auto &scans = ClientConfig::GetConfig(inside->Context()).replacement_scans;
	for (auto entry = scans.begin(); entry != scans.end(); entry++) {
		auto named = dynamic_cast<NamedInput *>((*entry)->data.get());
		if (named && named->name == name) {
			scans.erase(entry);
			return;
		}
	}
}

} // namespace openduck
