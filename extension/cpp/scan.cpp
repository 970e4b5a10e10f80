//! Scanning a remote table: the columns and the filters go along, streams come back.
//!
//! What can't be said in SQL of a filter is done here, unless it is optional. Filters that a join learns while it runs
//! are there by the time the scan begins.

#include "scan.hpp"

#include "transaction.hpp"

namespace openduck {

uint32_t StreamsOf(ClientContext &context) {
	return NumericCast<uint32_t>(MinValue<idx_t>(context.db->NumberOfThreads(), 8));
}

namespace {

bool IsVirtual(column_t column) {
	return IsVirtualColumn(column);
}

//! A column of the scan, as the backend is asked for it.
string ColumnToSQL(const ScanBindData &bind, column_t column) {
	if (column == COLUMN_IDENTIFIER_ROW_ID) {
		return "rowid";
	}
	if (IsVirtual(column)) {
		return "NULL::BOOLEAN";
	}
	return Quoted(bind.table.GetColumns().GetColumn(LogicalIndex(column)).Name());
}

//! The columns of a statement; without any, something to count.
string SelectToSQL(const ScanBindData &bind, const vector<column_t> &columns) {
	string list;
	for (auto column : columns) {
		list += (list.empty() ? "" : ", ") + ColumnToSQL(bind, column);
	}
	return "SELECT " + (list.empty() ? "NULL::BOOLEAN" : list) + " FROM " + bind.table.RemoteName();
}

//! The filters over these columns, and what can't be said of them.
string WhereToSQL(const ScanBindData &bind, const vector<column_t> &columns, optional_ptr<TableFilterSet> filters,
                  vector<unique_ptr<Expression>> &left) {
	if (!filters) {
		return string();
	}
	string where;
	for (const auto &entry : *filters) {
		auto place = entry.GetIndex().GetIndex();
		auto &filter = ExpressionFilter::GetExpressionFilter(entry.Filter(), "openduck");
		auto text = FilterToSQL(*filter.expr, ColumnToSQL(bind, columns[place]));
		if (!text.empty()) {
			where += (where.empty() ? " WHERE " : " AND ") + text;
		} else if (!ExpressionFilter::IsOptionalExpression(*filter.expr)) {
			auto type = IsVirtual(columns[place])
			                ? LogicalType::BIGINT
			                : bind.table.GetColumns().GetColumn(LogicalIndex(columns[place])).Type();
			left.push_back(filter.ToExpression(BoundReferenceExpression(type, storage_t(place))));
		}
	}
	for (auto &multiple : filters->GetMultiColumnFilters()) {
		auto &filter = ExpressionFilter::GetExpressionFilter(*multiple, "openduck");
		if (ExpressionFilter::IsOptionalExpression(*filter.expr)) {
			continue;
		}
		auto expression = filter.expr->Copy();
		std::function<void(unique_ptr<Expression> &)> place = [&](unique_ptr<Expression> &child) {
			if (child->GetExpressionClass() == ExpressionClass::BOUND_REF) {
				auto index = child->Cast<BoundReferenceExpression>().Index();
				auto target = filter.column_indexes[index].GetIndex();
				child = make_uniq<BoundReferenceExpression>(child->GetReturnType(), storage_t(target));
				return;
			}
			ExpressionIterator::EnumerateChildren(*child, place);
		};
		place(expression);
		left.push_back(std::move(expression));
	}
	return where;
}

struct ScanGlobalState : public ResultGlobalState {
	vector<idx_t> projection;
	//! What the backend could not be told, joined.
	unique_ptr<Expression> filter;
};

unique_ptr<GlobalTableFunctionState> InitGlobal(ClientContext &context, TableFunctionInitInput &input) {
	auto &bind = input.bind_data->Cast<ScanBindData>();
	auto state = make_uniq<ScanGlobalState>();
	vector<unique_ptr<Expression>> left;
	Statement statement;
	auto columns = input.column_ids;
	auto where = WhereToSQL(bind, columns, input.filters, left);
	if (input.CanRemoveFilterColumns() && left.empty()) {
		// Columns that only a filter wants need not come.
		columns.clear();
		for (auto place : input.projection_ids) {
			columns.push_back(input.column_ids[place]);
		}
	} else if (input.CanRemoveFilterColumns()) {
		state->projection = input.projection_ids;
	}
	statement.sql = SelectToSQL(bind, columns) + where;
	statement.streams_max = StreamsOf(context);
	statement.inline_bytes = 64 << 10;
	statement.snapshot = bind.snapshot;
	statement.read_only = true;
	if (!left.empty()) {
		state->filter = BoundConjunctionExpression::Create(ExpressionType::CONJUNCTION_AND, std::move(left));
	}
	state->result = RemoteTransaction::Get(context, bind.catalog).Execute(context, statement, false);
	state->format = make_uniq<RowFormat>(context, *state->result);
	for (idx_t i = 0; i < columns.size(); i++) {
		auto column = columns[i];
		if (IsVirtual(column)) {
			continue;
		}
		auto &expected = bind.table.GetColumns().GetColumn(LogicalIndex(column)).Type();
		if (state->format->types[i] != expected) {
			// It was changed since: say what is read, rather than guess.
			bind.catalog.Forget();
			throw CatalogException("table %s was changed by somebody else: run the statement again",
			                       bind.table.RemoteName());
		}
	}
	state->threads = MaxValue<idx_t>(state->result->Streams(), 1);
	state->rows_expected = bind.table.cardinality.IsValid() ? bind.table.cardinality.GetIndex() : 0;
	return std::move(state);
}

unique_ptr<LocalTableFunctionState> InitLocal(ExecutionContext &context, TableFunctionInitInput &input,
                                              GlobalTableFunctionState *global) {
	auto &state = global->Cast<ScanGlobalState>();
	auto local = make_uniq<ResultLocalState>(context.client, *state.format);
	local->read.Initialize(context.client, state.format->types);
	if (state.filter) {
		local->filter = make_uniq<ExpressionExecutor>(context.client, *state.filter);
	}
	return std::move(local);
}

void Scan(ClientContext &context, TableFunctionInput &input, DataChunk &output) {
	auto &state = input.global_state->Cast<ScanGlobalState>();
	auto &local = input.local_state->Cast<ResultLocalState>();
	auto plain = !local.filter && state.projection.empty() && output.ColumnCount() == state.format->types.size();
	while (true) {
		auto &read = plain ? output : local.read;
		read.Reset();
		local.reader.Read(context, *state.result, read);
		auto count = read.size();
		state.rows_read += count;
		if (count == 0 || plain) {
			if (!plain) {
				output.SetChildCardinality(0);
			}
			return;
		}
		if (local.filter) {
			SelectionVector selected(STANDARD_VECTOR_SIZE);
			auto kept = local.filter->SelectExpression(read, selected);
			if (kept == 0) {
				continue;
			}
			if (kept < count) {
				read.Slice(selected, kept);
			}
		}
		if (!state.projection.empty()) {
			output.ReferenceColumns(read, state.projection);
		} else if (output.ColumnCount() == read.ColumnCount()) {
			output.Reference(read);
		} else {
			// No column is asked for: only how many rows there are.
			output.SetChildCardinality(read.size());
		}
		return;
	}
}

unique_ptr<NodeStatistics> Cardinality(ClientContext &context, const FunctionData *bind_data) {
	auto &table = bind_data->Cast<ScanBindData>().table;
	return table.cardinality.IsValid() ? make_uniq<NodeStatistics>(table.cardinality.GetIndex())
	                                   : make_uniq<NodeStatistics>();
}

optional_ptr<TableCatalogEntry> TableOf(optional_ptr<const FunctionData> bind_data) {
	return bind_data->Cast<ScanBindData>().table;
}

BindInfo BindInfoOf(TableFunctionGetBindInfoInput &input) {
	return BindInfo(ScanType::EXTERNAL);
}

bool PushdownType(const FunctionData &bind_data, idx_t column) {
	auto &columns = bind_data.Cast<ScanBindData>().table.GetColumns();
	if (column >= columns.LogicalColumnCount()) {
		return false;
	}
	return SayableType(columns.GetColumn(LogicalIndex(column)).Type());
}

InsertionOrderPreservingMap<string> ToString(TableFunctionToStringInput &input) {
	auto &bind = input.bind_data->Cast<ScanBindData>();
	InsertionOrderPreservingMap<string> result;
	result["Site"] = "REMOTE";
	result["Bridge"] = "REMOTE to LOCAL";
	result["Table"] = bind.catalog.GetName() + "." + bind.table.RemoteName();
	result["Endpoint"] = bind.catalog.Remote().Endpoint();
	if (!bind.snapshot.empty()) {
		result["Snapshot"] = bind.snapshot;
	}
	return result;
}

//! DuckDB copies plans through these.
void Serialize(Serializer &serializer, const optional_ptr<FunctionData> bind_data, const BoundTableFunction &function) {
	auto &bind = bind_data->Cast<ScanBindData>();
	serializer.WriteProperty(100, "catalog", bind.catalog.GetName());
	serializer.WriteProperty(101, "schema", bind.table.schema.name);
	serializer.WriteProperty(102, "table", bind.table.name);
	serializer.WriteProperty(103, "snapshot", bind.snapshot);
}

unique_ptr<FunctionData> Deserialize(Deserializer &deserializer, BoundTableFunction &function) {
	auto catalog = deserializer.ReadProperty<Identifier>(100, "catalog");
	auto schema = deserializer.ReadProperty<Identifier>(101, "schema");
	auto name = deserializer.ReadProperty<Identifier>(102, "table");
	auto &context = deserializer.Get<ClientContext &>();
	auto &table = Catalog::GetEntry<TableCatalogEntry>(context, QualifiedName(catalog, schema, name));
	auto &remote = table.catalog.Cast<RemoteCatalog>();
	auto bind = make_uniq<ScanBindData>(remote, table.Cast<RemoteTable>(), remote.Image(context));
	bind->snapshot = deserializer.ReadProperty<string>(103, "snapshot");
	RemoteTransaction::Get(context, remote).Announce(context);
	return std::move(bind);
}

unique_ptr<FunctionData> BindByName(ClientContext &context, TableFunctionBindInput &input, vector<LogicalType> &types,
                                    vector<Identifier> &names) {
	throw BinderException("openduck_scan is not for use by name: name the table");
}

virtual_column_map_t VirtualColumns(ClientContext &context, optional_ptr<FunctionData> bind_data) {
	return bind_data->Cast<ScanBindData>().table.GetVirtualColumns();
}

} // namespace

string ScanSQL(const LogicalGet &get) {
	vector<column_t> columns, selected;
	for (auto &column : get.GetColumnIds()) {
		columns.push_back(column.GetPrimaryIndex());
	}
	for (auto &place : get.projection_ids) {
		selected.push_back(columns[place.GetIndex()]);
	}
	vector<unique_ptr<Expression>> left;
	auto filters = get.table_filters.Copy();
	auto &bind = get.bind_data->Cast<ScanBindData>();
	auto where = WhereToSQL(bind, columns, filters.get(), left);
	return SelectToSQL(bind, selected.empty() || !left.empty() ? columns : selected) + where;
}

OperatorPartitionData ResultPartition(ClientContext &context, TableFunctionGetPartitionInput &input) {
	if (input.partition_info.RequiresPartitionColumns()) {
		throw InternalException("openduck: partition columns are not supported");
	}
	return OperatorPartitionData(input.local_state->Cast<ResultLocalState>().reader.Place());
}

double ResultProgress(ClientContext &context, const FunctionData *bind_data, const GlobalTableFunctionState *state_p) {
	auto &state = state_p->Cast<ResultGlobalState>();
	if (state.rows_expected == 0) {
		return -1;
	}
	return MinValue(100.0, 100.0 * double(state.rows_read.load()) / double(state.rows_expected));
}

TableFunction ScanFunction() {
	TableFunction scan("openduck_scan", {}, Scan, BindByName, InitGlobal, InitLocal);
	scan.projection_pushdown = true;
	scan.filter_pushdown = true;
	scan.filter_prune = true;
	scan.supports_pushdown_type = PushdownType;
	scan.cardinality = Cardinality;
	scan.get_table_entry = TableOf;
	scan.get_bind_info = BindInfoOf;
	scan.to_string = ToString;
	scan.get_partition_data = ResultPartition;
	scan.table_scan_progress = ResultProgress;
	scan.get_virtual_columns = VirtualColumns;
	scan.serialize = Serialize;
	scan.deserialize = Deserialize;
	scan.verify_serialization = false;
	return scan;
}

} // namespace openduck
