//! `FROM openduck_explain('…')`: the whole plan, each operator with its site, and the backend's own plan beneath what
//! is sent to it.

#include "push.hpp"

namespace openduck {

namespace {

struct ExplainBindData : public TableFunctionData {
	vector<string> lines;
};

struct ExplainState : public GlobalTableFunctionState {
	idx_t next = 0;
};

//! The backend's plan of a statement, as lines.
vector<string> RemotePlan(ClientContext &context, RemoteCatalog &catalog, const string &sql, const string &snapshot) {
	Statement statement;
	statement.sql = "EXPLAIN " + sql;
	statement.inline_bytes = 1 << 20;
	statement.snapshot = snapshot.empty() ? catalog.Options().snapshot : snapshot;
	statement.read_only = true;
	auto result = catalog.Remote().Execute(context, statement);
	RowFormat format(context, *result);
	RowReader reader(context, format);
	DataChunk chunk;
	chunk.Initialize(context, format.types);
	reader.Read(context, *result, chunk);
	vector<string> lines;
	for (idx_t i = 0; i < chunk.size(); i++) {
		for (auto &line : StringUtil::Split(chunk.GetValue(chunk.ColumnCount() - 1, i).ToString(), '\n')) {
			lines.push_back(line);
		}
	}
	return lines;
}

//! The remote database that an operator changes, if it does.
optional_ptr<RemoteCatalog> WrittenBy(LogicalOperator &op) {
	optional_ptr<Catalog> catalog;
	switch (op.type) {
	case LogicalOperatorType::LOGICAL_INSERT:
		catalog = op.Cast<LogicalInsert>().table.catalog;
		break;
	case LogicalOperatorType::LOGICAL_UPDATE:
		catalog = op.Cast<LogicalUpdate>().table.catalog;
		break;
	case LogicalOperatorType::LOGICAL_DELETE:
		catalog = op.Cast<LogicalDelete>().table.catalog;
		break;
	case LogicalOperatorType::LOGICAL_MERGE_INTO:
		catalog = op.Cast<LogicalMergeInto>().table.catalog;
		break;
	case LogicalOperatorType::LOGICAL_CREATE_TABLE:
		catalog = op.Cast<LogicalCreateTable>().schema.catalog;
		break;
	default:
		return nullptr;
	}
	return catalog->GetCatalogType() == RemoteCatalog::TYPE ? &catalog->Cast<RemoteCatalog>() : nullptr;
}

void Tell(ClientContext &context, LogicalOperator &op, const string &indent, vector<string> &lines) {
	optional_ptr<RemoteCatalog> catalog;
	string sql, snapshot;
	if (op.type == LogicalOperatorType::LOGICAL_GET) {
		auto &get = op.Cast<LogicalGet>();
		SentBy(get, catalog, sql, snapshot);
	}
	auto rows = op.has_estimated_cardinality ? ", about " + std::to_string(op.estimated_cardinality) + " rows" : "";
	if (!catalog) {
		auto written = WrittenBy(op);
		lines.push_back(indent + op.GetName() + (written ? " [REMOTE]" : " [LOCAL]") + rows);
		if (written) {
			lines.push_back(indent + "  BRIDGE, LOCAL to REMOTE, " + written->Remote().Endpoint() + ", database " +
			                written->Remote().Database());
		}
		for (auto &child : op.children) {
			Tell(context, *child, indent + "  ", lines);
		}
		return;
	}
	idx_t width = 0;
	for (auto &type : op.types) {
		width += TypeIsConstantSize(type.InternalType()) ? GetTypeIdSize(type.InternalType()) : 16;
	}
	auto bytes = op.has_estimated_cardinality ? ", " + std::to_string(op.estimated_cardinality * width) + " bytes" : "";
	lines.push_back(indent + "BRIDGE, REMOTE to LOCAL" + rows + bytes);
	auto inner = indent + "  ";
	lines.push_back(inner + "[REMOTE] " + catalog->Remote().Endpoint() + ", database " + catalog->Remote().Database() +
	                (snapshot.empty() ? "" : ", snapshot " + snapshot));
	lines.push_back(inner + sql);
	try {
		for (auto &line : RemotePlan(context, *catalog, sql, snapshot)) {
			lines.push_back(inner + line);
		}
	} catch (InterruptException &) {
		throw;
	} catch (std::exception &exception) {
		// A backend explains only what reads.
		lines.push_back(inner + "without a plan: " + ErrorData(exception).RawMessage());
	}
}

unique_ptr<FunctionData> Bind(ClientContext &context, TableFunctionBindInput &input, vector<LogicalType> &types,
                              vector<Identifier> &names) {
	if (input.inputs[0].IsNull()) {
		throw BinderException("openduck_explain wants a statement, as text");
	}
	auto bind = make_uniq<ExplainBindData>();
	// Planned on a connection of its own, with this one's search path.
	Connection other(*context.db);
	auto path = ClientData::Get(context).catalog_search_path->GetSetPaths();
	ClientData::Get(*other.context).catalog_search_path->Set(path, CatalogSetPathType::SET_DIRECTLY);
	other.BeginTransaction();
	auto plan = other.ExtractPlan(input.inputs[0].ToString());
	plan->ResolveOperatorTypes();
	Tell(context, *plan, "", bind->lines);
	other.Rollback();
	types = {LogicalType::VARCHAR};
	names = {"plan"};
	return std::move(bind);
}

unique_ptr<GlobalTableFunctionState> InitGlobal(ClientContext &context, TableFunctionInitInput &input) {
	return make_uniq<ExplainState>();
}

void Lines(ClientContext &context, TableFunctionInput &input, DataChunk &output) {
	auto &lines = input.bind_data->Cast<ExplainBindData>().lines;
	auto &state = input.global_state->Cast<ExplainState>();
	auto count = MinValue<idx_t>(lines.size() - state.next, STANDARD_VECTOR_SIZE);
	output.SetChildCardinality(count);
	for (idx_t i = 0; i < count; i++) {
		output.data[0].SetValue(i, Value(lines[state.next++]));
	}
	output.SetChildCardinality(count);
}

} // namespace

void RegisterExplain(ExtensionLoader &loader) {
	TableFunction explain("openduck_explain", {LogicalType::VARCHAR}, Lines, Bind, InitGlobal);
	loader.RegisterFunction(std::move(explain));
}

} // namespace openduck
