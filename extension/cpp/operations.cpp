//! The gateway's operations, by the names of attached databases: `CALL openduck_snapshot('cloud', 'nightly')`.
//!
//! Each is a statement of the same name that is sent; what the gateway answers is the result. Those that change
//! something run when the plan does, not when it is bound.

#include "options.hpp"
#include "push.hpp"
#include "transaction.hpp"

namespace openduck {

namespace {

using Columns = vector<pair<const char *, LogicalTypeId>>;

//! One of the gateway's functions.
struct Operation {
	const char *name;
	//! Texts behind the attached database's name; those behind the bar may lack.
	idx_t arguments;
	idx_t more;
	//! The first argument is the attached database's name, which becomes the database's own.
	bool of_database;
	//! What it gives, of those that change something.
	Columns columns;
};

struct OperationInfo : public TableFunctionInfo {
	explicit OperationInfo(const Operation &operation) : operation(operation) {
	}

	const Operation &operation;
};

const vector<Operation> &Operations() {
	static const Columns SNAPSHOT = {{"id", LogicalTypeId::VARCHAR},
	                                 {"name", LogicalTypeId::VARCHAR},
	                                 {"lsn", LogicalTypeId::UBIGINT},
	                                 {"time", LogicalTypeId::TIMESTAMP_TZ}};
	static const Columns DATABASE = {{"database", LogicalTypeId::VARCHAR}, {"lsn", LogicalTypeId::UBIGINT}};
	static const Columns CANCELLED = {{"query_id", LogicalTypeId::VARCHAR}};
	static const vector<Operation> OPERATIONS = {
	    {"openduck_snapshot", 1, 1, true, SNAPSHOT},  {"openduck_snapshots", 1, 0, true, {}},
	    {"openduck_clone", 2, 1, true, DATABASE},     {"openduck_restore", 2, 0, true, DATABASE},
	    {"openduck_create", 1, 0, false, DATABASE},   {"openduck_cancel", 1, 0, false, CANCELLED},
	    {"openduck_databases", 0, 0, false, {}},      {"openduck_queries", 0, 0, false, {}},
	    {"openduck_workers", 0, 0, false, {}},        {"openduck_log", 0, 0, false, {}},
	};
	return OPERATIONS;
}

struct OperationBindData : public TableFunctionData {
	explicit OperationBindData(RemoteCatalog &catalog) : catalog(catalog) {
	}

	RemoteCatalog &catalog;
	string sql;
};

//! The database that is named, or the only one that is attached.
RemoteCatalog &CatalogOf(ClientContext &context, const string &name, const Operation &operation) {
	optional_ptr<Catalog> found;
	if (!name.empty()) {
		found = Catalog::GetCatalogEntry(context, Identifier(name));
	} else {
		for (auto &schema : Catalog::GetAllSchemas(context)) {
			auto &catalog = schema.get().ParentCatalog();
			if (catalog.GetCatalogType() != RemoteCatalog::TYPE || found.get() == &catalog) {
				continue;
			}
			if (found) {
				throw BinderException("%s: several remote databases are attached: say which by via := 'name'",
				                      operation.name);
			}
			found = catalog;
		}
	}
	if (!found || found->GetCatalogType() != RemoteCatalog::TYPE) {
		throw BinderException("%s: \"%s\" is no attached remote database: ATTACH 'openduck:…' AS cloud makes one",
		                      operation.name, name);
	}
	return found->Cast<RemoteCatalog>();
}

struct OperationState : public GlobalTableFunctionState {
	unique_ptr<Result> result;
	unique_ptr<RowFormat> format;
	unique_ptr<RowReader> reader;
	DataChunk read;
};

unique_ptr<OperationState> Ask(ClientContext &context, const OperationBindData &bind) {
	Statement statement;
	statement.sql = bind.sql;
	statement.inline_bytes = 1 << 20;
	auto state = make_uniq<OperationState>();
	state->result = bind.catalog.Remote().Execute(context, statement);
	state->format = make_uniq<RowFormat>(context, *state->result);
	state->reader = make_uniq<RowReader>(context, *state->format);
	state->read.Initialize(context, state->format->types);
	return state;
}

unique_ptr<FunctionData> Bind(ClientContext &context, TableFunctionBindInput &input, vector<LogicalType> &types,
                              vector<Identifier> &names) {
	auto &operation = input.info->Cast<OperationInfo>().operation;
	string via;
	auto named = input.named_parameters.find("via");
	if (named != input.named_parameters.end() && !named->second.IsNull()) {
		via = named->second.ToString();
	}
	if (operation.of_database) {
		if (input.inputs[0].IsNull()) {
			throw BinderException("%s wants the name of an attached remote database", operation.name);
		}
		via = input.inputs[0].ToString();
	}
	auto &catalog = CatalogOf(context, via, operation);
	auto bind = make_uniq<OperationBindData>(catalog);
	string arguments;
	for (idx_t i = 0; i < input.inputs.size(); i++) {
		auto value = i == 0 && operation.of_database ? Value(catalog.Remote().Database()) : input.inputs[i];
		arguments += (arguments.empty() ? "" : ", ") + value.ToSQLString();
	}
	auto ref = input.named_parameters.find("ref");
	if (ref != input.named_parameters.end()) {
		arguments += ", ref := " + ref->second.ToSQLString();
	}
	bind->sql = (operation.columns.empty() ? "FROM " : "CALL ") + string(operation.name) + "(" + arguments + ")";
	for (auto &column : operation.columns) {
		names.emplace_back(column.first);
		types.emplace_back(column.second);
	}
	if (operation.columns.empty()) {
		auto asked = Ask(context, *bind);
		types = asked->format->types;
		names = StringsToIdentifiers(asked->format->names);
	}
	return std::move(bind);
}

unique_ptr<GlobalTableFunctionState> InitGlobal(ClientContext &context, TableFunctionInitInput &input) {
	return Ask(context, input.bind_data->Cast<OperationBindData>());
}

void Answer(ClientContext &context, TableFunctionInput &input, DataChunk &output) {
	auto &state = input.global_state->Cast<OperationState>();
	state.read.Reset();
	state.reader->Read(context, *state.result, state.read);
	auto count = state.read.size();
	output.SetChildCardinality(count);
	for (idx_t i = 0; i < output.ColumnCount() && count > 0; i++) {
		if (i < state.read.ColumnCount()) {
			VectorOperations::Cast(context, state.read.data[i], output.data[i], count);
		}
	}
	output.SetChildCardinality(count);
}

} // namespace

void RegisterOperations(ExtensionLoader &loader) {
	for (auto &operation : Operations()) {
		TableFunctionSet set(operation.name);
		for (auto count = operation.arguments; count <= operation.arguments + operation.more; count++) {
			FunctionSignature signature(vector<LogicalType>(count, LogicalType::VARCHAR), LogicalType::INVALID);
			if (!operation.of_database) {
				signature.AddKeywordOnly("via", LogicalType::VARCHAR, Value(LogicalType::VARCHAR));
			}
			if (string(operation.name) == "openduck_clone" && count == operation.arguments) {
				signature.AddKeywordOnly("ref", LogicalType::VARCHAR, Value("latest"));
			}
			TableFunction function(operation.name, std::move(signature), Answer, Bind, InitGlobal);
			function.function_info = make_shared_ptr<OperationInfo>(operation);
			set.AddFunction(std::move(function));
		}
		loader.RegisterFunction(std::move(set));
	}
}

} // namespace openduck
