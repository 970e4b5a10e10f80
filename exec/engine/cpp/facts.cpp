//! What a text asks for: a walk over everything that the parser made, which tells Rust each thing it meets.
//!
//! DuckDB's own iterators leave some places out (a table's AT clause, a pivot's values, statements inside statements),
//! so the walk over nodes and references is written out here. What it does not know it tells as `Unknown`.

#include "inside.hpp"

#include "duckdb/common/enum_util.hpp"
#include "duckdb/function/scalar_macro_function.hpp"
#include "duckdb/function/table_macro_function.hpp"
#include "duckdb/parser/column_list.hpp"
#include "duckdb/parser/constraints/check_constraint.hpp"
#include "duckdb/parser/constraints/list.hpp"
#include "duckdb/parser/common_table_expression_info.hpp"
#include "duckdb/parser/expression/list.hpp"
#include "duckdb/parser/parsed_data/alter_info.hpp"
#include "duckdb/parser/parsed_data/attach_info.hpp"
#include "duckdb/parser/parsed_data/copy_info.hpp"
#include "duckdb/parser/parsed_data/create_index_info.hpp"
#include "duckdb/parser/parsed_data/create_info.hpp"
#include "duckdb/parser/parsed_data/create_macro_info.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_trigger_info.hpp"
#include "duckdb/parser/parsed_data/create_type_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/parser/parsed_data/pragma_info.hpp"
#include "duckdb/parser/parsed_data/transaction_info.hpp"
#include "duckdb/parser/parsed_data/vacuum_info.hpp"
#include "duckdb/parser/parsed_expression_iterator.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/query_node/list.hpp"
#include "duckdb/parser/statement/list.hpp"
#include "duckdb/parser/statement/multi_statement.hpp"
#include "duckdb/parser/tableref/list.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

namespace {

class Walk {
public:
	explicit Walk(rust::Vec<Fact> &facts_p) : facts(facts_p) {
	}

	void Statement(SQLStatement &statement);

private:
	void Node(QueryNode &node);
	void Table(TableRef &ref);
	void Expression(ParsedExpression &expression);
	void Create(CreateInfo &info);
	void Copy(CopyInfo &info);
	void Pivot(PivotRef &ref);
	void Merge(MergeQueryNode &node);
	void Insert(InsertQueryNode &node);

	void Maybe(const unique_ptr<ParsedExpression> &expression) {
		if (expression) {
			Expression(*expression);
		}
	}
	void All(const vector<unique_ptr<ParsedExpression>> &expressions) {
		for (auto &expression : expressions) {
			Maybe(expression);
		}
	}
	template <class MAP>
	void Values(const MAP &map) {
		for (auto &entry : map) {
			Maybe(entry.second);
		}
	}
	void Set(const unique_ptr<UpdateSetInfo> &info) {
		if (info) {
			Maybe(info->condition);
			All(info->expressions);
		}
	}

	void Tell(FactKind kind, const string &a = string(), const string &b = string(), const string &c = string(),
	          bool flag = false) {
		facts.push_back(Fact {kind, Text(a), Text(b), Text(c), flag});
	}
	void Name(FactKind kind, const QualifiedName &name) {
		Tell(kind, name.Catalog().GetIdentifierName(), name.Schema().GetIdentifierName(),
		     name.Name().GetIdentifierName());
		if (name.Path().size() > 3) {
			Tell(FactKind::Unknown, "a name of more than three parts");
		}
	}
	//! The tables that a reference names are what is changed.
	void Changed(TableRef &ref) {
		if (ref.type == TableReferenceType::BASE_TABLE) {
			Name(FactKind::Changed, ref.Cast<BaseTableRef>().GetQualifiedName());
		}
		Table(ref);
	}
	template <class ENUM>
	void Unknown(const char *what, ENUM value) {
		Tell(FactKind::Unknown, string(what) + " " + EnumUtil::ToString(value));
	}

	rust::Vec<Fact> &facts;
};

void Walk::Expression(ParsedExpression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::FUNCTION:
		Name(FactKind::Function, expression.Cast<FunctionExpression>().GetQualifiedName());
		break;
	case ExpressionClass::WINDOW:
		Name(FactKind::Function, expression.Cast<WindowExpression>().GetQualifiedName());
		break;
	case ExpressionClass::SUBQUERY:
		Node(*expression.Cast<SubqueryExpression>().Subquery()->node);
		break;
	case ExpressionClass::TYPE:
		All(expression.Cast<TypeExpression>().GetChildren());
		return;
	case ExpressionClass::CAST:
		Expression(expression.Cast<CastExpression>().TargetTypeMutable());
		break;
	case ExpressionClass::CASE:
	case ExpressionClass::COLUMN_REF:
	case ExpressionClass::COMPARISON:
	case ExpressionClass::CONJUNCTION:
	case ExpressionClass::CONSTANT:
	case ExpressionClass::DEFAULT:
	case ExpressionClass::OPERATOR:
	case ExpressionClass::STAR:
	case ExpressionClass::PARAMETER:
	case ExpressionClass::COLLATE:
	case ExpressionClass::LAMBDA:
	case ExpressionClass::POSITIONAL_REFERENCE:
	case ExpressionClass::BETWEEN:
	case ExpressionClass::LAMBDA_REF:
		break;
	default:
		Unknown("expression", expression.GetExpressionClass());
	}
	ParsedExpressionIterator::EnumerateChildren(expression, [&](ParsedExpression &child) {
		Expression(child);
	});
}

void Walk::Pivot(PivotRef &ref) {
	Table(*ref.source);
	All(ref.aggregates);
	for (auto &pivot : ref.pivots) {
		All(pivot.pivot_expressions);
		for (auto &entry : pivot.entries) {
			Maybe(entry.expr);
		}
		if (pivot.subquery) {
			Node(*pivot.subquery);
		}
	}
}

void Walk::Table(TableRef &ref) {
	switch (ref.type) {
	case TableReferenceType::BASE_TABLE: {
		auto &table = ref.Cast<BaseTableRef>();
		Name(FactKind::Table, table.GetQualifiedName());
		if (table.at_clause) {
			Maybe(table.at_clause->ExpressionMutable());
		}
		break;
	}
	case TableReferenceType::SUBQUERY:
		Node(*ref.Cast<SubqueryRef>().subquery->node);
		break;
	case TableReferenceType::JOIN: {
		auto &join = ref.Cast<JoinRef>();
		Table(*join.left);
		Table(*join.right);
		Maybe(join.condition);
		Maybe(join.ranking_expression);
		All(join.duplicate_eliminated_columns);
		break;
	}
	case TableReferenceType::TABLE_FUNCTION: {
		auto &function = ref.Cast<TableFunctionRef>();
		if (function.function->GetExpressionClass() == ExpressionClass::FUNCTION) {
			Name(FactKind::TableFunction, function.function->Cast<FunctionExpression>().GetQualifiedName());
			ParsedExpressionIterator::EnumerateChildren(*function.function, [&](ParsedExpression &child) {
				Expression(child);
			});
		} else {
			Tell(FactKind::Unknown, "a table function that is not called by name");
		}
		if (function.subquery) {
			Node(*function.subquery->node);
		}
		break;
	}
	case TableReferenceType::EXPRESSION_LIST:
		for (auto &row : ref.Cast<ExpressionListRef>().values) {
			All(row);
		}
		break;
	case TableReferenceType::PIVOT:
		Pivot(ref.Cast<PivotRef>());
		break;
	case TableReferenceType::SHOW_REF: {
		auto &show = ref.Cast<ShowRef>();
		Tell(FactKind::Shown, show.GetTableName().GetIdentifierName());
		if (show.query) {
			Node(*show.query);
		}
		break;
	}
	case TableReferenceType::EMPTY_FROM:
		break;
	default:
		Unknown("table reference", ref.type);
	}
}

void Walk::Merge(MergeQueryNode &node) {
	Changed(*node.target);
	Table(*node.source);
	Maybe(node.join_condition);
	for (auto &entry : node.actions) {
		for (auto &action : entry.second) {
			Maybe(action->condition);
			Set(action->update_info);
			All(action->expressions);
		}
	}
	All(node.returning_list);
}

void Walk::Insert(InsertQueryNode &node) {
	Name(FactKind::Changed, node.qualified_name);
	if (node.select_statement) {
		Node(*node.select_statement->node);
	}
	if (node.table_ref) {
		Table(*node.table_ref);
	}
	if (node.on_conflict_info) {
		Set(node.on_conflict_info->set_info);
		Maybe(node.on_conflict_info->condition);
	}
	All(node.returning_list);
}

void Walk::Node(QueryNode &node) {
	switch (node.type) {
	case QueryNodeType::SELECT_NODE: {
		auto &select = node.Cast<SelectNode>();
		All(select.select_list);
		if (select.from_table) {
			Table(*select.from_table);
		}
		Maybe(select.where_clause);
		All(select.groups.group_expressions);
		Maybe(select.having);
		Maybe(select.qualify);
		break;
	}
	case QueryNodeType::SET_OPERATION_NODE:
		for (auto &child : node.Cast<SetOperationNode>().children) {
			Node(*child);
		}
		break;
	case QueryNodeType::RECURSIVE_CTE_NODE: {
		auto &recursive = node.Cast<RecursiveCTENode>();
		Node(*recursive.left);
		Node(*recursive.right);
		All(recursive.key_targets);
		break;
	}
	case QueryNodeType::CTE_NODE: {
		auto &cte = node.Cast<CTENode>();
		Node(*cte.query);
		Node(*cte.child);
		break;
	}
	case QueryNodeType::STATEMENT_NODE:
		Statement(node.Cast<StatementNode>().stmt);
		break;
	case QueryNodeType::UPDATE_QUERY_NODE: {
		auto &update = node.Cast<UpdateQueryNode>();
		Tell(FactKind::Statement, EnumUtil::ToString(StatementType::UPDATE_STATEMENT));
		Changed(*update.table);
		if (update.from_table) {
			Table(*update.from_table);
		}
		Set(update.set_info);
		All(update.returning_list);
		break;
	}
	case QueryNodeType::DELETE_QUERY_NODE: {
		auto &remove = node.Cast<DeleteQueryNode>();
		Tell(FactKind::Statement, EnumUtil::ToString(StatementType::DELETE_STATEMENT));
		Changed(*remove.table);
		for (auto &ref : remove.using_clauses) {
			Table(*ref);
		}
		Maybe(remove.condition);
		All(remove.returning_list);
		break;
	}
	case QueryNodeType::INSERT_QUERY_NODE:
		Tell(FactKind::Statement, EnumUtil::ToString(StatementType::INSERT_STATEMENT));
		Insert(node.Cast<InsertQueryNode>());
		break;
	case QueryNodeType::MERGE_QUERY_NODE:
		Tell(FactKind::Statement, EnumUtil::ToString(StatementType::MERGE_INTO_STATEMENT));
		Merge(node.Cast<MergeQueryNode>());
		break;
	case QueryNodeType::COPY_QUERY_NODE:
		Tell(FactKind::Statement, EnumUtil::ToString(StatementType::COPY_STATEMENT));
		Copy(*node.Cast<CopyQueryNode>().info);
		break;
	default:
		Unknown("query node", node.type);
	}
	ParsedExpressionIterator::EnumerateQueryNodeModifiers(node, [&](unique_ptr<ParsedExpression> &child) {
		Maybe(child);
	});
	for (auto &entry : node.cte_map.map) {
		auto &cte = *entry.second;
		All(cte.key_targets);
		All(cte.payload_aggregates);
		if (cte.query_node) {
			Node(*cte.query_node);
		}
	}
}

void Walk::Copy(CopyInfo &info) {
	auto path = info.file_path;
	auto known = true;
	if (info.file_path_expression) {
		auto &expression = *info.file_path_expression;
		known = expression.GetExpressionClass() == ExpressionClass::CONSTANT &&
		        expression.Cast<ConstantExpression>().GetLiteral().kind == LiteralKind::STRING;
		if (known) {
			path = expression.Cast<ConstantExpression>().GetLiteral().text;
		}
		Expression(*info.file_path_expression);
	}
	Tell(info.is_from ? FactKind::CopyFrom : FactKind::CopyTo, path, info.format, string(), known);
	if (!info.Table().empty()) {
		Name(info.is_from ? FactKind::Changed : FactKind::Table, info.GetQualifiedName());
	}
	for (auto &option : info.parsed_options) {
		Maybe(option.second);
	}
	if (info.select_statement) {
		Node(*info.select_statement);
	}
}

void Walk::Create(CreateInfo &info) {
	Tell(FactKind::Created, EnumUtil::ToString(info.type), string(), string(), info.temporary);
	switch (info.type) {
	case CatalogType::TABLE_ENTRY: {
		auto &table = info.Cast<CreateTableInfo>();
		Name(FactKind::Changed, table.GetQualifiedName());
		for (auto &column : table.columns.Logical()) {
			if (column.Generated()) {
				Expression(const_cast<ParsedExpression &>(column.GeneratedExpression())); // NOLINT: only read
			} else if (column.HasDefaultValue()) {
				Expression(const_cast<ParsedExpression &>(column.DefaultValue())); // NOLINT: only read
			}
		}
		for (auto &constraint : table.constraints) {
			if (constraint->type == ConstraintType::CHECK) {
				Expression(*constraint->Cast<CheckConstraint>().expression);
			}
		}
		if (table.query) {
			Node(*table.query->node);
		}
		All(table.partition_keys);
		All(table.sort_keys);
		Values(table.options);
		break;
	}
	case CatalogType::VIEW_ENTRY: {
		auto &view = info.Cast<CreateViewInfo>();
		Name(FactKind::Changed, view.GetQualifiedName());
		if (view.query) {
			Node(*view.query->node);
		}
		break;
	}
	case CatalogType::MACRO_ENTRY:
	case CatalogType::TABLE_MACRO_ENTRY:
		for (auto &macro : info.Cast<CreateMacroInfo>().macros) {
			All(macro->parameters);
			Values(macro->default_parameters);
			if (macro->type == MacroType::SCALAR_MACRO) {
				Maybe(macro->Cast<ScalarMacroFunction>().expression);
			} else if (macro->type == MacroType::TABLE_MACRO) {
				Node(*macro->Cast<TableMacroFunction>().query_node);
			} else {
				Tell(FactKind::Unknown, "a macro");
			}
		}
		break;
	case CatalogType::INDEX_ENTRY: {
		auto &index = info.Cast<CreateIndexInfo>();
		auto &name = index.GetQualifiedName();
		Tell(FactKind::Changed, name.Catalog().GetIdentifierName(), name.Schema().GetIdentifierName(),
		     index.table.GetIdentifierName());
		All(index.expressions);
		All(index.parsed_expressions);
		break;
	}
	case CatalogType::TYPE_ENTRY: {
		auto &type = info.Cast<CreateTypeInfo>();
		if (type.query) {
			Statement(*type.query);
		}
		break;
	}
	case CatalogType::TRIGGER_ENTRY: {
		auto &trigger = info.Cast<CreateTriggerInfo>();
		if (trigger.base_table) {
			Changed(*trigger.base_table);
		}
		if (trigger.trigger_action) {
			Node(*trigger.trigger_action);
		}
		break;
	}
	case CatalogType::SCHEMA_ENTRY:
	case CatalogType::SEQUENCE_ENTRY:
	case CatalogType::SECRET_ENTRY:
		break;
	default:
		Unknown("entry", info.type);
	}
}

void Walk::Statement(SQLStatement &statement) {
	Tell(FactKind::Statement, EnumUtil::ToString(statement.type));
	switch (statement.type) {
	case StatementType::SELECT_STATEMENT:
		Node(*statement.Cast<SelectStatement>().node);
		break;
	case StatementType::INSERT_STATEMENT:
		Node(*statement.Cast<InsertStatement>().node);
		break;
	case StatementType::UPDATE_STATEMENT:
		Node(*statement.Cast<UpdateStatement>().node);
		break;
	case StatementType::DELETE_STATEMENT:
		Node(*statement.Cast<DeleteStatement>().node);
		break;
	case StatementType::MERGE_INTO_STATEMENT:
		Node(*statement.Cast<MergeIntoStatement>().node);
		break;
	case StatementType::CREATE_STATEMENT:
		Create(*statement.Cast<CreateStatement>().info);
		break;
	case StatementType::DROP_STATEMENT: {
		auto &drop = *statement.Cast<DropStatement>().info;
		Tell(FactKind::Dropped, EnumUtil::ToString(drop.type));
		if (drop.type == CatalogType::PREPARED_STATEMENT) {
			Tell(FactKind::PreparedName, drop.GetQualifiedName().Name().GetIdentifierName());
		} else {
			Name(FactKind::Changed, drop.GetQualifiedName());
		}
		break;
	}
	case StatementType::ALTER_STATEMENT: {
		auto &alter = *statement.Cast<AlterStatement>().info;
		switch (alter.type) {
		case AlterType::ALTER_DATABASE:
			Tell(FactKind::Altered, "DATABASE");
			break;
		case AlterType::SET_COLUMN_COMMENT:
			// Of a table or a view: which one is known when it is bound, and before that DuckDB does not let it be asked.
			Tell(FactKind::Altered, EnumUtil::ToString(CatalogType::TABLE_ENTRY));
			break;
		default:
			Tell(FactKind::Altered, EnumUtil::ToString(alter.GetCatalogType()));
		}
		Name(FactKind::Changed, alter.GetQualifiedName());
		break;
	}
	case StatementType::EXPLAIN_STATEMENT:
		Tell(FactKind::Explained, string(), string(), string(),
		     statement.Cast<ExplainStatement>().explain_type == ExplainType::EXPLAIN_ANALYZE);
		Statement(*statement.Cast<ExplainStatement>().stmt);
		break;
	case StatementType::PREPARE_STATEMENT:
		Tell(FactKind::PreparedName, statement.Cast<PrepareStatement>().name.GetIdentifierName());
		Statement(*statement.Cast<PrepareStatement>().statement);
		break;
	case StatementType::EXECUTE_STATEMENT:
		Tell(FactKind::PreparedName, statement.Cast<ExecuteStatement>().name.GetIdentifierName());
		Values(statement.Cast<ExecuteStatement>().named_values);
		break;
	case StatementType::CALL_STATEMENT: {
		auto &function = *statement.Cast<CallStatement>().function;
		if (function.GetExpressionClass() == ExpressionClass::FUNCTION) {
			Name(FactKind::TableFunction, function.Cast<FunctionExpression>().GetQualifiedName());
		} else {
			Tell(FactKind::Unknown, "a CALL of what is no function");
		}
		ParsedExpressionIterator::EnumerateChildren(function, [&](ParsedExpression &child) {
			Expression(child);
		});
		break;
	}
	case StatementType::COPY_STATEMENT:
		Copy(*statement.Cast<CopyStatement>().info);
		break;
	case StatementType::SET_STATEMENT: {
		auto &set = statement.Cast<SetStatement>();
		auto reset = set.set_type == SetType::RESET;
		Tell(FactKind::Setting, set.name.GetIdentifierName(), EnumUtil::ToString(set.scope), string(), reset);
		if (!reset) {
			Maybe(statement.Cast<SetVariableStatement>().value);
		}
		break;
	}
	case StatementType::PRAGMA_STATEMENT: {
		auto &pragma = *statement.Cast<PragmaStatement>().info;
		Tell(FactKind::Pragma, pragma.name.GetIdentifierName());
		All(pragma.parameters);
		Values(pragma.named_parameters);
		break;
	}
	case StatementType::TRANSACTION_STATEMENT: {
		auto &transaction = *statement.Cast<TransactionStatement>().info;
		Tell(FactKind::Transaction, EnumUtil::ToString(transaction.type), EnumUtil::ToString(transaction.modifier));
		break;
	}
	case StatementType::VACUUM_STATEMENT: {
		auto &vacuum = *statement.Cast<VacuumStatement>().info;
		Tell(FactKind::Vacuumed, string(), string(), string(), vacuum.options.vacuum);
		if (vacuum.ref) {
			Changed(*vacuum.ref);
		}
		break;
	}
	case StatementType::MULTI_STATEMENT:
		for (auto &child : statement.Cast<MultiStatement>().statements) {
			Statement(*child);
		}
		break;
	default:
		// ATTACH, DETACH, LOAD, EXPORT and the like: the kind says all that counts.
		break;
	}
}

} // namespace

rust::Vec<ParsedStatement> parse_statements(rust::Str sql_p) {
	auto sql = Text(sql_p);
	auto parser = Parser::GetBuiltinParser();
	try {
		parser.ParseQuery(sql);
	} catch (const std::exception &exception) {
		ErrorData error(exception);
		error.ConvertErrorToJSON();
		Throw(error, sql);
	}
	rust::Vec<ParsedStatement> result;
	for (auto &statement : parser.statements) {
		ParsedStatement parsed {};
		parsed.kind = Text(EnumUtil::ToString(statement->type));
		parsed.sql = Text(statement->query);
		for (auto &parameter : statement->named_param_map) {
			parsed.parameters.push_back(Text(parameter.first.GetIdentifierName()));
		}
		Walk(parsed.facts).Statement(*statement);
		result.push_back(std::move(parsed));
	}
	return result;
}

} // namespace openduck
