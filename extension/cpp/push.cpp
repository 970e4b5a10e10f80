//! Whole statements and query blocks for the backend.
//!
//! DuckDB's optimizer asks whether each construct may be sent, takes the catalog's name out, and hands over what is
//! left. It becomes a call of `openduck_query`. The rows' names and types are found by binding here, with the catalog
//! that is known; nothing is sent before the plan runs.

#include "push.hpp"

#include "transaction.hpp"

namespace openduck {

bool RemoteCatalog::Supports(RemoteCapability capability) const {
	switch (capability) {
	case RemoteCapability::IS_REMOTE:
	case RemoteCapability::EXECUTE_QUERY_NODE:
	case RemoteCapability::EXECUTE_STATEMENT:
	case RemoteCapability::CONNECT:
		return true;
	default:
		return false;
	}
}

//! Whether every part of a type is DuckDB's own, or the backend's.
static bool SupportsTypeOf(RemoteCatalog &catalog, const TypeExpression &type) {
	auto &name = type.GetTypeName().GetIdentifierName();
	if (TransformStringToLogicalTypeId(name) == LogicalTypeId::UNBOUND && !catalog.HasType(name)) {
		return false;
	}
	auto supported = true;
	ParsedExpressionIterator::EnumerateChildren(type, [&](const ParsedExpression &child) {
		if (child.GetExpressionClass() == ExpressionClass::TYPE) {
			supported = supported && SupportsTypeOf(catalog, child.Cast<TypeExpression>());
		}
	});
	return supported;
}

bool RemoteCatalog::SupportsPushdown(const ParsedExpression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::CAST:
		return SupportsTypeOf(*this, expression.Cast<CastExpression>().TargetType());
	case ExpressionClass::TYPE:
		return SupportsTypeOf(*this, expression.Cast<TypeExpression>());
	case ExpressionClass::FUNCTION:
		return SupportsFunction(expression.Cast<FunctionExpression>().FunctionName().GetIdentifierName());
	case ExpressionClass::PARAMETER:
		// DuckDB forgets the parameters of a statement that it hands over as a whole.
		return false;
	default:
		return true;
	}
}

bool RemoteCatalog::SupportsPushdown(const TableRef &ref) {
	switch (ref.type) {
	case TableReferenceType::BASE_TABLE:
		// Another state than the transaction's is a scan's matter.
		return !ref.Cast<BaseTableRef>().at_clause;
	case TableReferenceType::JOIN:
	case TableReferenceType::SUBQUERY:
	case TableReferenceType::EMPTY_FROM:
	case TableReferenceType::EXPRESSION_LIST:
	case TableReferenceType::CTE:
	case TableReferenceType::TABLE_FUNCTION:
	case TableReferenceType::PIVOT:
		return true;
	default:
		return false;
	}
}

bool RemoteCatalog::SupportsPushdown(const QueryNode &node) {
	return true;
}

bool RemoteCatalog::SupportsPushdown(const SQLStatement &statement) {
	return true;
}

//===--------------------------------------------------------------------===//
// Rewriting
//===--------------------------------------------------------------------===//
static unique_ptr<TableRef> CallOf(RemoteCatalog &catalog, shared_ptr<PushInfo> info) {
	vector<unique_ptr<ParsedExpression>> arguments;
	arguments.push_back(ConstantExpression::FromValue(Value(catalog.GetName().GetIdentifierName())));
	arguments.push_back(ConstantExpression::FromValue(Value(info->sql)));
	auto ref = make_uniq<TableFunctionRef>();
	ref->function = make_uniq<FunctionExpression>("openduck_query", std::move(arguments));
	ref->bind_info = std::move(info);
	return std::move(ref);
}

//! What RETURNING gives, as a query over the table.
static unique_ptr<QueryNode> ShapeOf(unique_ptr<TableRef> table, const vector<unique_ptr<ParsedExpression>> &returning) {
	if (returning.empty()) {
		return nullptr;
	}
	auto shape = make_uniq<SelectNode>();
	shape->from_table = std::move(table);
	for (auto &expression : returning) {
		shape->select_list.push_back(expression->Copy());
	}
	return std::move(shape);
}

unique_ptr<TableRef> RemoteCatalog::RemoteExecute(ClientContext &context, unique_ptr<QueryNode> node) {
	auto info = make_shared_ptr<PushInfo>(*this, node->ToString());
	switch (node->type) {
	case QueryNodeType::INSERT_QUERY_NODE: {
		auto &insert = node->Cast<InsertQueryNode>();
		auto table = make_uniq<BaseTableRef>();
		table->SetQualifiedName(insert.qualified_name);
		info->writes = true;
		info->shape = ShapeOf(std::move(table), insert.returning_list);
		break;
	}
	case QueryNodeType::UPDATE_QUERY_NODE: {
		auto &update = node->Cast<UpdateQueryNode>();
		info->writes = true;
		info->shape = ShapeOf(update.table->Copy(), update.returning_list);
		break;
	}
	case QueryNodeType::DELETE_QUERY_NODE: {
		auto &erase = node->Cast<DeleteQueryNode>();
		info->writes = true;
		info->shape = ShapeOf(erase.table->Copy(), erase.returning_list);
		break;
	}
	case QueryNodeType::MERGE_QUERY_NODE: {
		auto &merge = node->Cast<MergeQueryNode>();
		info->writes = true;
		info->shape = ShapeOf(merge.target->Copy(), merge.returning_list);
		if (info->shape) {
			// MERGE puts what it did before the columns.
			auto &list = info->shape->Cast<SelectNode>().select_list;
			if (list.size() == 1 && list[0]->GetExpressionClass() == ExpressionClass::STAR) {
				throw NotImplementedException("MERGE … RETURNING * can't be sent: name the columns");
			}
		}
		break;
	}
	default:
		info->shape = std::move(node);
	}
	return CallOf(*this, std::move(info));
}

unique_ptr<TableRef> RemoteCatalog::RemoteExecute(ClientContext &context, unique_ptr<SQLStatement> statement) {
	auto info = make_shared_ptr<PushInfo>(*this, statement->ToString());
	info->writes = true;
	info->ddl = true;
	if (statement->type == StatementType::CREATE_STATEMENT) {
		auto &create = *statement->Cast<CreateStatement>().info;
		info->counts = create.type == CatalogType::TABLE_ENTRY && create.Cast<CreateTableInfo>().query;
	}
	return CallOf(*this, std::move(info));
}

unique_ptr<TableRef> RemoteCatalog::RemoteExecute(ClientContext &context, const string &sql) {
	auto info = make_shared_ptr<PushInfo>(*this, sql);
	info->raw_session = raw_session;
	auto ref = CallOf(*this, info);
	return ref;
}

//===--------------------------------------------------------------------===//
// The function
//===--------------------------------------------------------------------===//
namespace {

struct QueryBindData : public TableFunctionData {
	QueryBindData(RemoteCatalog &catalog, string sql) : catalog(catalog), sql(std::move(sql)) {
	}

	RemoteCatalog &catalog;
	string sql;
	bool writes = false;
	bool ddl = false;
	string raw_session;
	vector<string> parameter_names;
	vector<Value> parameters;
	vector<LogicalType> types;
	//! The statement has no rows: what is given is nothing.
	bool no_rows = false;
	//! A result that binding had to ask for, until it is read, and the local statement that was bound.
	shared_ptr<ResultGlobalState> result;
	idx_t statement_number = 0;
};

//! Where names without a schema are looked for: the search path, as far as it is this catalog's.
vector<Identifier> SchemasOf(ClientContext &context, RemoteCatalog &catalog) {
	auto schemas = ClientData::Get(context).catalog_search_path->GetSchemasForCatalog(catalog.GetName());
	Identifier main(DEFAULT_SCHEMA);
	if (std::find(schemas.begin(), schemas.end(), main) == schemas.end()) {
		schemas.push_back(main);
	}
	return schemas;
}

//! Settings that change what a statement means, where they are not what the backend has by itself.
vector<pair<string, string>> SettingsOf(ClientContext &context, RemoteCatalog &catalog) {
	static constexpr pair<const char *, const char *> DEFAULTS[] = {
	    {"TimeZone", nullptr},         {"default_order", "ASCENDING"},       {"default_null_order", "NULLS_LAST"},
	    {"integer_division", "false"}, {"ieee_floating_point_ops", "true"}, {"Calendar", "gregorian"},
	    {"default_collation", ""},     {"scalar_subquery_error_on_multiple_rows", "true"},
	    {"order_by_non_integer_literal", "false"}};
	vector<pair<string, string>> settings;
	string path;
	for (auto &schema : SchemasOf(context, catalog)) {
		path += (path.empty() ? "" : ",") + Quoted(schema);
	}
	if (path != Quoted(Identifier(DEFAULT_SCHEMA))) {
		settings.emplace_back("search_path", path);
	}
	for (auto &setting : DEFAULTS) {
		Value value;
		if (!context.TryGetCurrentSetting(setting.first, value) || value.IsNull()) {
			continue;
		}
		auto text = value.ToString();
		auto known = setting.second ? string(setting.second) : catalog.RemoteTimeZone();
		if (!StringUtil::CIEquals(text, known)) {
			settings.emplace_back(setting.first, text);
		}
	}
	return settings;
}

shared_ptr<ResultGlobalState> Run(ClientContext &context, const QueryBindData &bind) {
	Statement statement;
	statement.sql = bind.sql;
	statement.inline_bytes = 1 << 20;
	if (!bind.parameters.empty()) {
		vector<LogicalType> types;
		for (auto &value : bind.parameters) {
			types.push_back(value.type());
		}
		statement.parameters = make_uniq<DataChunk>();
		statement.parameters->Initialize(context, types);
		for (idx_t i = 0; i < bind.parameters.size(); i++) {
			statement.parameters->data[i].Reference(bind.parameters[i], count_t(1));
		}
		statement.parameters->SetChildCardinality(1);
		statement.parameter_names = bind.parameter_names;
	}
	auto state = make_shared_ptr<ResultGlobalState>();
	if (!bind.raw_session.empty()) {
		statement.session = bind.raw_session;
		state->result = bind.catalog.Remote().Execute(context, statement);
		bind.catalog.Learn(*state->result, true, false);
		bind.catalog.Forget();
	} else {
		statement.settings = SettingsOf(context, bind.catalog);
		statement.streams_max = StreamsOf(context);
		auto &transaction = RemoteTransaction::Get(context, bind.catalog);
		statement.read_only = !bind.writes;
		state->result = transaction.Execute(context, statement, bind.writes);
		if (bind.ddl) {
			transaction.ForgetImage();
		}
	}
	state->format = make_uniq<RowFormat>(context, *state->result);
	state->threads = MaxValue<idx_t>(state->result->Streams(), 1);
	return state;
}

//! Names and types of what a node gives, by binding it over the remote catalog.
void BindShape(ClientContext &context, RemoteCatalog &catalog, QueryNode &shape, vector<LogicalType> &types,
               vector<Identifier> &names) {
	auto binder = Binder::CreateBinder(context);
	vector<CatalogSearchEntry> path;
	for (auto &schema : SchemasOf(context, catalog)) {
		path.emplace_back(catalog.GetName(), schema);
	}
	binder->EntryRetriever().SetSearchPath(std::move(path));
	auto copy = shape.Copy();
	auto &transaction = RemoteTransaction::Get(context, catalog);
	auto announced = transaction.Announced();
	auto bound = binder->Bind(*copy);
	transaction.Unannounce(announced);
	types = bound.types;
	names = bound.names;
}

void Register(ClientContext &context, TableFunctionBindInput &input, RemoteCatalog &catalog, const PushInfo &info) {
	if (!input.binder || !info.raw_session.empty()) {
		return;
	}
	auto &properties = input.binder->GetStatementProperties();
	if (!info.writes) {
		properties.RegisterDBRead(catalog, context);
		return;
	}
	if (catalog.GetAttached().IsReadOnly()) {
		throw InvalidInputException("Cannot execute this statement on database \"%s\" which is attached in read-only "
		                            "mode!",
		                            catalog.GetName().GetIdentifierName());
	}
	properties.RegisterDBModify(catalog, context, DatabaseModificationType::INSERT_DATA);
}

RemoteCatalog &CatalogOf(ClientContext &context, const string &name) {
	auto &catalog = Catalog::GetCatalog(context, Identifier(name));
	if (catalog.GetCatalogType() != RemoteCatalog::TYPE) {
		throw BinderException("\"%s\" is no remote database: ATTACH 'openduck:…' AS %s makes one", name, name);
	}
	return catalog.Cast<RemoteCatalog>();
}

unique_ptr<FunctionData> Bind(ClientContext &context, TableFunctionBindInput &input, vector<LogicalType> &types,
                              vector<Identifier> &names) {
	for (auto &argument : input.inputs) {
		if (argument.type().id() == LogicalTypeId::UNKNOWN) {
			throw ParameterNotResolvedException();
		}
	}
	if (input.inputs[0].IsNull() || input.inputs[1].IsNull()) {
		throw BinderException("openduck_query wants the name of a remote database, and SQL");
	}
	shared_ptr<PushInfo> info;
	if (input.ref.bind_info) {
		info = shared_ptr_cast<TableFunctionInfo, PushInfo>(input.ref.bind_info);
	} else {
		auto &catalog = CatalogOf(context, input.inputs[0].ToString());
		info = make_shared_ptr<PushInfo>(catalog, input.inputs[1].ToString());
	}
	auto bind = make_uniq<QueryBindData>(info->catalog, info->sql);
	bind->writes = info->writes;
	bind->ddl = info->ddl;
	bind->raw_session = info->raw_session;
	for (idx_t i = 2; i < input.inputs.size(); i++) {
		bind->parameter_names.push_back(std::to_string(i - 1));
		bind->parameters.push_back(input.inputs[i]);
	}
	Register(context, input, info->catalog, *info);
	auto &function = input.table_function;
	if (info->ddl && !info->counts) {
		function.call_return_type = StatementReturnType::NOTHING;
		types = {LogicalType::BIGINT};
		names = {"Count"};
		bind->no_rows = true;
	} else if (info->writes && !info->shape) {
		function.call_return_type = StatementReturnType::CHANGED_ROWS;
		types = {LogicalType::BIGINT};
		names = {"Count"};
	} else {
		auto known = false;
		if (info->shape && bind->parameters.empty()) {
			try {
				BindShape(context, info->catalog, *info->shape, types, names);
				known = true;
			} catch (std::exception &) { // NOLINT: the other side says better what is wrong, or right
			}
		}
		if (!known && info->writes) {
			BindShape(context, info->catalog, *info->shape, types, names);
		} else if (!known) {
			bind->result = Run(context, *bind);
			bind->statement_number = context.transaction.GetActiveQuery();
			types = bind->result->format->types;
			names = StringsToIdentifiers(bind->result->format->names);
			if (types.empty()) {
				function.call_return_type = StatementReturnType::NOTHING;
				types = {LogicalType::BIGINT};
				names = {"Count"};
				bind->no_rows = true;
			}
		}
	}
	bind->types = types;
	RemoteTransaction::Get(context, info->catalog).Announce(context);
	return std::move(bind);
}

//! Shares a result that binding has asked for.
struct QueryGlobalState : public GlobalTableFunctionState {
	shared_ptr<ResultGlobalState> inner;

	idx_t MaxThreads() const override {
		return inner->threads;
	}
};

unique_ptr<GlobalTableFunctionState> InitGlobal(ClientContext &context, TableFunctionInitInput &input) {
	auto &bind = input.bind_data->CastNoConst<QueryBindData>();
	auto state = make_uniq<QueryGlobalState>();
	auto &transaction = RemoteTransaction::Get(context, bind.catalog);
	auto same = bind.statement_number == context.transaction.GetActiveQuery() && !transaction.HasParts();
	if (same || !bind.raw_session.empty()) {
		// What CONNECT sends runs once. Another result is as fresh as the statement, and alone, or asked for again.
		state->inner = std::move(bind.result);
	}
	bind.result.reset();
	if (!state->inner) {
		state->inner = Run(context, bind);
	}
	auto &got = state->inner->format->types;
	if (!bind.no_rows && !bind.ddl && got.size() != bind.types.size()) {
		bind.catalog.Forget();
		throw CatalogException("the remote database was changed by somebody else: run the statement again");
	}
	return std::move(state);
}

struct QueryLocalState : public ResultLocalState {
	using ResultLocalState::ResultLocalState;
};

unique_ptr<LocalTableFunctionState> InitLocal(ExecutionContext &context, TableFunctionInitInput &input,
                                              GlobalTableFunctionState *global) {
	auto &format = *global->Cast<QueryGlobalState>().inner->format;
	auto local = make_uniq<QueryLocalState>(context.client, format);
	local->read.Initialize(context.client, format.types);
	return std::move(local);
}

void Query(ClientContext &context, TableFunctionInput &input, DataChunk &output) {
	auto &bind = input.bind_data->Cast<QueryBindData>();
	auto &state = *input.global_state->Cast<QueryGlobalState>().inner;
	auto &local = input.local_state->Cast<QueryLocalState>();
	if (bind.no_rows) {
		output.SetChildCardinality(0);
		return;
	}
	local.read.Reset();
	local.reader.Read(context, *state.result, local.read);
	auto count = local.read.size();
	output.SetChildCardinality(count);
	if (count == 0) {
		return;
	}
	for (idx_t i = 0; i < output.ColumnCount(); i++) {
		if (output.data[i].GetType() == local.read.data[i].GetType()) {
			output.data[i].Reference(local.read.data[i]);
		} else {
			VectorOperations::Cast(context, local.read.data[i], output.data[i], count);
		}
	}
	output.SetChildCardinality(count);
}

InsertionOrderPreservingMap<string> ToString(TableFunctionToStringInput &input) {
	auto &bind = input.bind_data->Cast<QueryBindData>();
	InsertionOrderPreservingMap<string> result;
	result["Site"] = "REMOTE";
	result["Bridge"] = "REMOTE to LOCAL";
	result["Database"] = bind.catalog.GetName().GetIdentifierName();
	result["Endpoint"] = bind.catalog.Remote().Endpoint();
	result["SQL"] = bind.sql;
	return result;
}

//! DuckDB copies plans through these: what is copied is sent once for each copy, so only what reads may be.
void Serialize(Serializer &serializer, const optional_ptr<FunctionData> bind_data, const BoundTableFunction &function) {
	auto &bind = bind_data->Cast<QueryBindData>();
	if (bind.writes || !bind.raw_session.empty() || !bind.parameters.empty()) {
		throw NotImplementedException("a remote statement that can't be copied");
	}
	serializer.WriteProperty(100, "catalog", bind.catalog.GetName());
	serializer.WriteProperty(101, "sql", bind.sql);
	serializer.WriteProperty(102, "types", bind.types);
}

unique_ptr<FunctionData> Deserialize(Deserializer &deserializer, BoundTableFunction &function) {
	auto catalog = deserializer.ReadProperty<Identifier>(100, "catalog");
	auto &context = deserializer.Get<ClientContext &>();
	auto &remote = Catalog::GetCatalog(context, catalog).Cast<RemoteCatalog>();
	auto bind = make_uniq<QueryBindData>(remote, deserializer.ReadProperty<string>(101, "sql"));
	bind->types = deserializer.ReadProperty<vector<LogicalType>>(102, "types");
	RemoteTransaction::Get(context, remote).Announce(context);
	return std::move(bind);
}

OperatorPartitionData Partition(ClientContext &context, TableFunctionGetPartitionInput &input) {
	if (input.partition_info.RequiresPartitionColumns()) {
		throw InternalException("openduck: partition columns are not supported");
	}
	return OperatorPartitionData(input.local_state->Cast<QueryLocalState>().reader.Place());
}

} // namespace

void SentBy(const LogicalGet &get, optional_ptr<RemoteCatalog> &catalog, string &sql, string &snapshot) {
	auto &name = get.function.GetName();
	if (name == "openduck_query") {
		auto &bind = get.bind_data->Cast<QueryBindData>();
		catalog = bind.catalog;
		sql = bind.sql;
	} else if (name == "openduck_scan") {
		auto &bind = get.bind_data->Cast<ScanBindData>();
		catalog = bind.catalog;
		snapshot = bind.snapshot;
		sql = ScanSQL(get);
	}
}

TableFunctionSet QueryFunctions() {
	FunctionSignature signature(vector<LogicalType> {LogicalType::VARCHAR, LogicalType::VARCHAR}, LogicalType::INVALID);
	signature.AddArgs("parameters", LogicalType::ANY);
	TableFunction query("openduck_query", std::move(signature), Query, Bind, InitGlobal, InitLocal);
	query.to_string = ToString;
	query.serialize = Serialize;
	query.deserialize = Deserialize;
	query.get_partition_data = Partition;
	TableFunctionSet set("openduck_query");
	set.AddFunction(std::move(query));
	return set;
}

} // namespace openduck
