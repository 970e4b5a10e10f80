//! Local rows that change a remote table: they go up as a stream, into one statement that uses them.
//!
//! INSERT, CREATE TABLE AS, UPDATE and DELETE differ in that statement only. UPDATE and DELETE name rows by their row
//! ids, which hold because the scan and the statement are in one remote transaction.

#include "rows.hpp"
#include "transaction.hpp"

namespace openduck {

namespace {

//! What the statement calls the rows.
constexpr const char *INPUT = "openduck_rows";

//! Rows that are gathered before they are made Arrow.
constexpr idx_t ROWS_GATHERED = 32 * STANDARD_VECTOR_SIZE;
constexpr idx_t BYTES_GATHERED = 2 << 20;

string InputColumn(idx_t index) {
	return "c" + std::to_string(index);
}

//! A type as it travels: what Arrow does not keep goes as what it does.
LogicalType TravelType(const LogicalType &type) {
	switch (type.id()) {
	case LogicalTypeId::ENUM:
		return LogicalType::VARCHAR;
	case LogicalTypeId::LIST:
		return LogicalType::LIST(TravelType(ListType::GetChildType(type)));
	case LogicalTypeId::ARRAY:
		return LogicalType::ARRAY(TravelType(ArrayType::GetChildType(type)), ArrayType::GetSize(type));
	case LogicalTypeId::MAP:
		return LogicalType::MAP(TravelType(MapType::KeyType(type)), TravelType(MapType::ValueType(type)));
	case LogicalTypeId::STRUCT: {
		child_list_t<LogicalType> children;
		for (auto &child : StructType::GetChildTypes(type)) {
			children.emplace_back(child.first, TravelType(child.second));
		}
		return LogicalType::STRUCT(std::move(children));
	}
	default:
		return type;
	}
}

class RemoteWrite : public PhysicalOperator {
public:
	RemoteWrite(PhysicalPlan &plan, RemoteCatalog &catalog, vector<LogicalType> types, string title, string sql,
	            vector<idx_t> columns, vector<LogicalType> column_types, bool returning, bool ddl, idx_t cardinality)
	    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, std::move(types), cardinality), catalog(catalog),
	      title(std::move(title)), sql(std::move(sql)), columns(std::move(columns)),
	      column_types(std::move(column_types)), returning(returning), ddl(ddl) {
		for (auto &type : this->column_types) {
			travel_types.push_back(TravelType(type));
		}
	}

	string GetName() const override {
		return title;
	}
	InsertionOrderPreservingMap<string> ParamsToString() const override {
		InsertionOrderPreservingMap<string> result;
		result["Site"] = "REMOTE";
		result["Bridge"] = "LOCAL to REMOTE";
		result["Database"] = catalog.GetName().GetIdentifierName();
		result["SQL"] = sql;
		SetEstimatedCardinality(result, estimated_cardinality);
		return result;
	}

	bool IsSink() const override {
		return true;
	}
	bool SinkOrderDependent() const override {
		return true;
	}
	bool IsSource() const override {
		return true;
	}

	unique_ptr<GlobalSinkState> GetGlobalSinkState(ClientContext &context) const override;
	SinkResultType Sink(ExecutionContext &context, DataChunk &chunk, OperatorSinkInput &input) const override;
	SinkFinalizeType Finalize(Pipeline &pipeline, Event &event, ClientContext &context,
	                          OperatorSinkFinalizeInput &input) const override;
	unique_ptr<GlobalSourceState> GetGlobalSourceState(ClientContext &context) const override;

protected:
	SourceResultType GetDataInternal(ExecutionContext &context, DataChunk &chunk,
	                                 OperatorSourceInput &input) const override;

public:
	RemoteCatalog &catalog;
	//! Keeps what the plan points into.
	shared_ptr<CatalogImage> image;
	string title;
	string sql;
	//! Which columns of the plan below travel.
	vector<idx_t> columns;
	vector<LogicalType> column_types;
	vector<LogicalType> travel_types;
	bool returning;
	bool ddl;
};

struct WriteSinkState : public GlobalSinkState {
	ClientProperties properties;
	unordered_map<idx_t, const shared_ptr<ArrowTypeExtensionData>> casts;
	unique_ptr<Upload> upload;
	unique_ptr<ArrowAppender> appender;
	DataChunk travelling;
	unique_ptr<Result> result;
	unique_ptr<RowFormat> format;
	//! Rows that wait here: the session runs one statement at a time, and others of this plan come first.
	unique_ptr<ColumnDataCollection> gathered;

	void Append(ClientContext &context, DataChunk &chunk, const vector<LogicalType> &types) {
		if (!appender) {
			appender = make_uniq<ArrowAppender>(types, ROWS_GATHERED, properties, casts);
		}
		appender->Append(chunk, 0, chunk.size(), chunk.size());
		if (appender->RowCount() >= ROWS_GATHERED || appender->ByteSize() >= BYTES_GATHERED) {
			Flush(context);
		}
	}

	void Flush(ClientContext &context) {
		if (!appender || appender->RowCount() == 0) {
			return;
		}
		auto array = appender->Finalize();
		appender.reset();
		upload->Push(context, array);
	}
};

unique_ptr<GlobalSinkState> RemoteWrite::GetGlobalSinkState(ClientContext &context) const {
	auto state = make_uniq<WriteSinkState>();
	state->properties = context.GetClientProperties();
	state->properties.arrow_lossless_conversion = true;
	state->properties.produce_arrow_string_view = false;
	state->properties.arrow_offset_size = ArrowOffsetSize::REGULAR;
	state->casts = ArrowTypeExtensionData::GetExtensionTypes(context, travel_types);
	state->travelling.InitializeEmpty(travel_types);
	vector<string> names;
	for (idx_t i = 0; i < travel_types.size(); i++) {
		names.push_back(InputColumn(i));
	}
	ArrowSchema schema;
	ArrowConverter::ToArrowSchema(&schema, travel_types, names, state->properties);
	Statement statement;
	statement.sql = sql;
	statement.inline_bytes = 64 << 10;
	auto &transaction = RemoteTransaction::Get(context, catalog);
	transaction.Place(context, statement, true);
	if (transaction.HasParts()) {
		state->gathered = make_uniq<ColumnDataCollection>(context, travel_types);
	}
	state->upload = catalog.Remote().Begin(context, statement, INPUT, schema);
	return std::move(state);
}

SinkResultType RemoteWrite::Sink(ExecutionContext &context, DataChunk &chunk, OperatorSinkInput &input) const {
	auto &state = input.global_state.Cast<WriteSinkState>();
	auto count = chunk.size();
	for (idx_t i = 0; i < columns.size(); i++) {
		auto &source = chunk.data[columns[i]];
		if (source.GetType() == travel_types[i]) {
			state.travelling.data[i].Reference(source);
		} else {
			Vector cast(travel_types[i], count);
			VectorOperations::Cast(context.client, source, cast, count);
			state.travelling.data[i].Reference(cast);
		}
	}
	state.travelling.SetCardinalityUnsafe(count);
	if (state.gathered) {
		state.gathered->Append(state.travelling);
	} else {
		state.Append(context.client, state.travelling, travel_types);
	}
	return SinkResultType::NEED_MORE_INPUT;
}

SinkFinalizeType RemoteWrite::Finalize(Pipeline &pipeline, Event &event, ClientContext &context,
                                       OperatorSinkFinalizeInput &input) const {
	auto &state = input.global_state.Cast<WriteSinkState>();
	if (state.gathered) {
		for (auto &chunk : state.gathered->Chunks()) {
			state.Append(context, chunk, travel_types);
		}
		state.gathered.reset();
	}
	state.Flush(context);
	state.result = state.upload->Finish(context);
	auto &transaction = RemoteTransaction::Get(context, catalog);
	transaction.Learn(*state.result, true);
	if (ddl) {
		transaction.ForgetImage();
	}
	state.format = make_uniq<RowFormat>(context, *state.result);
	return SinkFinalizeType::READY;
}

struct WriteSourceState : public GlobalSourceState {
	unique_ptr<RowReader> reader;
	DataChunk read;
};

unique_ptr<GlobalSourceState> RemoteWrite::GetGlobalSourceState(ClientContext &context) const {
	auto state = make_uniq<WriteSourceState>();
	auto &sink = sink_state->Cast<WriteSinkState>();
	state->reader = make_uniq<RowReader>(context, *sink.format);
	state->read.Initialize(context, sink.format->types);
	return std::move(state);
}

SourceResultType RemoteWrite::GetDataInternal(ExecutionContext &context, DataChunk &chunk,
                                              OperatorSourceInput &input) const {
	auto &state = input.global_state.Cast<WriteSourceState>();
	auto &sink = sink_state->Cast<WriteSinkState>();
	state.read.Reset();
	state.reader->Read(context.client, *sink.result, state.read);
	auto count = state.read.size();
	chunk.SetChildCardinality(count);
	for (idx_t i = 0; i < chunk.ColumnCount() && count > 0; i++) {
		if (state.read.data[i].GetType() == chunk.data[i].GetType()) {
			chunk.data[i].Reference(state.read.data[i]);
		} else {
			VectorOperations::Cast(context.client, state.read.data[i], chunk.data[i], count);
		}
	}
	chunk.SetChildCardinality(count);
	return count == 0 ? SourceResultType::FINISHED : SourceResultType::HAVE_MORE_OUTPUT;
}

//! The physical columns, as RETURNING has them.
string Returning(TableCatalogEntry &table) {
	string list;
	for (auto &column : table.GetColumns().Physical()) {
		list += (list.empty() ? " RETURNING " : ", ") + Quoted(column.Name());
	}
	return list;
}

string ConflictClause(LogicalInsert &op) {
	auto &conflict = op.on_conflict_info;
	switch (conflict.action_type) {
	case OnConflictAction::THROW:
		return string();
	case OnConflictAction::NOTHING: {
		string target;
		for (auto &column : op.table.GetColumns().Logical()) {
			if (conflict.on_conflict_filter.count(column.Physical().index)) {
				target += (target.empty() ? "" : ", ") + Quoted(column.Name());
			}
		}
		if (conflict.on_conflict_condition) {
			break;
		}
		return " ON CONFLICT" + (target.empty() ? "" : " (" + target + ")") + " DO NOTHING";
	}
	default:
		break;
	}
	throw NotImplementedException("INSERT … ON CONFLICT DO UPDATE of local rows into a remote table: put the rows into "
	                              "a remote table first, and insert from that");
}

vector<idx_t> Range(idx_t count) {
	vector<idx_t> range;
	for (idx_t i = 0; i < count; i++) {
		range.push_back(i);
	}
	return range;
}

} // namespace

//! The operator that runs `sql` in the transaction, over these columns of the rows that `plan` gives.
static PhysicalOperator &WriteOver(ClientContext &context, PhysicalPlanGenerator &planner, RemoteCatalog &catalog,
                                   LogicalOperator &op, PhysicalOperator &plan, const char *name, const string &sql,
                                   vector<idx_t> columns, vector<LogicalType> types, bool returning, bool ddl) {
	auto &transaction = RemoteTransaction::Get(context, catalog);
	transaction.Announce(context);
	auto &write = planner.Make<RemoteWrite>(catalog, op.types, name, sql, std::move(columns), std::move(types), returning,
	                                        ddl, op.estimated_cardinality);
	write.Cast<RemoteWrite>().image = transaction.Image(context);
	write.children.push_back(plan);
	return write;
}

PhysicalOperator &RemoteCatalog::PlanInsert(ClientContext &context, PhysicalPlanGenerator &planner, LogicalInsert &op,
                                            optional_ptr<PhysicalOperator> plan) {
	if (!op.column_index_map.empty()) {
		plan = planner.ResolveDefaultsProjection(op, *plan);
	}
	auto &table = op.table.Cast<RemoteTable>();
	string names, values;
	vector<LogicalType> types;
	for (auto &column : table.GetColumns().Physical()) {
		names += (names.empty() ? "" : ", ") + Quoted(column.Name());
		values += (values.empty() ? "" : ", ") + InputColumn(types.size());
		types.push_back(column.Type());
	}
	auto sql = "INSERT INTO " + table.RemoteName() + " (" + names + ") SELECT " + values + " FROM " + INPUT +
	           ConflictClause(op) + (op.return_chunk ? Returning(table) : "");
	return WriteOver(context, planner, *this, op, *plan, "REMOTE_INSERT", sql, Range(types.size()), types,
	                 op.return_chunk, false);
}

PhysicalOperator &RemoteCatalog::PlanCreateTableAs(ClientContext &context, PhysicalPlanGenerator &planner,
                                                   LogicalCreateTable &op, PhysicalOperator &plan) {
	auto &info = op.info->Base();
	string list;
	vector<LogicalType> types;
	for (auto &column : info.columns.Logical()) {
		auto name = InputColumn(types.size());
		// Arrow gives a tuple back as a struct, and an ENUM as a text.
		auto travels = !column.Type().IsNested() && TravelType(column.Type()) == column.Type();
		list += (list.empty() ? "" : ", ") +
		        (travels ? name : "CAST(" + name + " AS " + column.Type().ToString() + ")") + " AS " +
		        Quoted(column.Name());
		types.push_back(column.Type());
	}
	if (!info.constraints.empty()) {
		throw NotImplementedException("CREATE TABLE AS with constraints in a remote database");
	}
	string sql = "CREATE ";
	sql += info.on_conflict == OnCreateConflict::REPLACE_ON_CONFLICT ? "OR REPLACE TABLE " : "TABLE ";
	sql += info.on_conflict == OnCreateConflict::IGNORE_ON_CONFLICT ? "IF NOT EXISTS " : "";
	sql += Quoted(op.schema.name) + "." + Quoted(info.GetTableName()) + " AS SELECT " + list + " FROM " + INPUT;
	return WriteOver(context, planner, *this, op, plan, "REMOTE_CREATE_TABLE_AS", sql, Range(types.size()), types,
	                 false, true);
}

PhysicalOperator &RemoteCatalog::PlanDelete(ClientContext &context, PhysicalPlanGenerator &planner, LogicalDelete &op,
                                            PhysicalOperator &plan) {
	auto &table = op.table.Cast<RemoteTable>();
	auto row_id = op.expressions[0]->Cast<BoundReferenceExpression>().Index();
	auto sql = "DELETE FROM " + table.RemoteName() + " WHERE rowid IN (SELECT " + InputColumn(0) + " FROM " + INPUT + ")" +
	           (op.return_chunk ? Returning(table) : "");
	return WriteOver(context, planner, *this, op, plan, "REMOTE_DELETE", sql, vector<idx_t> {row_id}, vector<LogicalType> {LogicalType::BIGINT},
	                 op.return_chunk, false);
}

PhysicalOperator &RemoteCatalog::PlanUpdate(ClientContext &context, PhysicalPlanGenerator &planner, LogicalUpdate &op,
                                            PhysicalOperator &plan) {
	auto &table = op.table.Cast<RemoteTable>();
	if (op.capture_old_rows) {
		throw NotImplementedException("UPDATE of a remote table with its earlier rows");
	}
	vector<idx_t> columns;
	vector<LogicalType> types;
	string set;
	for (idx_t i = 0; i < op.columns.size(); i++) {
		auto &column = table.GetColumns().GetColumn(op.columns[i]);
		set += (set.empty() ? "" : ", ") + Quoted(column.Name()) + " = ";
		if (op.expressions[i]->GetExpressionType() == ExpressionType::VALUE_DEFAULT) {
			set += "DEFAULT";
			continue;
		}
		set += string(INPUT) + "." + InputColumn(columns.size());
		columns.push_back(op.expressions[i]->Cast<BoundReferenceExpression>().Index());
		types.push_back(op.expressions[i]->GetReturnType());
	}
	// The row id is the last column below.
	columns.push_back(plan.types.size() - 1);
	types.push_back(LogicalType::BIGINT);
	auto sql = "UPDATE " + table.RemoteName() + " AS openduck_table SET " + set + " FROM " + INPUT +
	           " WHERE openduck_table.rowid = " + INPUT + "." + InputColumn(columns.size() - 1) +
	           (op.return_chunk ? Returning(table) : "");
	return WriteOver(context, planner, *this, op, plan, "REMOTE_UPDATE", sql, std::move(columns), std::move(types),
	                 op.return_chunk, false);
}

unique_ptr<LogicalOperator> RemoteCatalog::BindCreateIndex(Binder &binder, CreateStatement &statement,
                                                           TableCatalogEntry &table,
                                                           unique_ptr<LogicalOperator> plan) {
	throw NotImplementedException("CREATE INDEX runs in the remote database as a whole: name it as the table's, and "
	                              "leave the optimizer on");
}

} // namespace openduck
