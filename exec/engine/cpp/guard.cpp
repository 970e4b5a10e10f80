//! The hooks on plans: a guard below the parser's, and what is noted of a plan.
//!
//! Client SQL was judged before it came here. But a view, macro, default or trigger that is stored in the database was
//! written by whoever made the file. So the functions that Rust's table does not admit are taken out of the system
//! catalog, where the binder would look for them, and a bound plan is refused for its operators and table functions.
//! DuckDB's optimizer looks for a few of them too, behind the binder: those stay, and a bound plan is refused for them.

#include "inside.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/table_function_catalog_entry.hpp"
#include "duckdb/common/enum_util.hpp"
#include "duckdb/main/connection.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/planner/expression/bound_aggregate_expression.hpp"
#include "duckdb/planner/expression/bound_function_expression.hpp"
#include "duckdb/planner/expression/bound_window_expression.hpp"
#include "duckdb/planner/expression_iterator.hpp"
#include "duckdb/planner/logical_operator_visitor.hpp"
#include "duckdb/planner/operator/logical_copy_to_file.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/planner_extension.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

namespace {

//! What the hooks are told at their registration.
struct Lock : public PlannerExtensionInfo {
	explicit Lock(const Options &options)
	    : locked_down(options.locked_down), files(!options.allowed_directories.empty()) {
	}

	bool Admits(const char *kind, const string &name) const {
		return admits_bound(rust::Str(kind), Text(name), files);
	}

	bool locked_down;
	//! The operator allows folders.
	bool files;
};

void CheckFunction(const Lock &lock, const Identifier &identifier) {
	auto name = StringUtil::Lower(identifier.GetIdentifierName());
	if (lock.Admits("optimizer_function", name)) {
		throw PermissionException("the function %s is not admitted here", name);
	}
}

//! What is left in the catalog for the optimizer's sake; what else is not admitted was not found.
void CheckExpression(const Lock &lock, const Expression &expression) {
	switch (expression.GetExpressionClass()) {
	case ExpressionClass::BOUND_FUNCTION:
		CheckFunction(lock, expression.Cast<BoundFunctionExpression>().Function().GetName());
		break;
	case ExpressionClass::BOUND_AGGREGATE:
		CheckFunction(lock, expression.Cast<BoundAggregateExpression>().Function().GetName());
		break;
	case ExpressionClass::BOUND_WINDOW:
		if (auto &aggregate = expression.Cast<BoundWindowExpression>().AggregateFunction()) {
			CheckFunction(lock, aggregate->GetName());
		}
		break;
	default:
		break;
	}
	ExpressionIterator::EnumerateChildren(expression,
	                                      [&](const Expression &child) { CheckExpression(lock, child); });
}

void CheckPlan(const Lock &lock, LogicalOperator &op) {
	auto kind = EnumUtil::ToString(op.type);
	if (!lock.Admits("operator", kind)) {
		throw PermissionException("%s is not admitted here", kind);
	}
	if (op.type == LogicalOperatorType::LOGICAL_GET) {
		auto name = StringUtil::Lower(op.Cast<LogicalGet>().function.GetName().GetIdentifierName());
		if (!lock.Admits("plan_function", name)) {
			throw PermissionException("the table function %s is not admitted here", name);
		}
	}
	LogicalOperatorVisitor::EnumerateExpressions(
	    op, [&](unique_ptr<Expression> *expression) { CheckExpression(lock, **expression); });
	for (auto &child : op.children) {
		CheckPlan(lock, *child);
	}
}

void AfterBind(PlannerExtensionInput &input, BoundStatement &statement) {
	auto &lock = static_cast<Lock &>(*input.info);
	if (lock.locked_down && statement.plan) {
		CheckPlan(lock, *statement.plan);
	}
	if (!SessionState::Get(input.context).read_only) {
		return;
	}
	for (auto &entry : input.binder.GetStatementProperties().modified_databases) {
		if (entry.first != Identifier::TempCatalog()) {
			throw duckdb::Exception({{"needs_writer", entry.first.GetIdentifierName()}}, ExceptionType::PERMISSION,
			                        "the statement changes the database, and was to be run only if it does not");
		}
	}
}

void Note(const LogicalOperator &op, uint32_t depth, rust::Vec<PlannedOperator> &out) {
	out.push_back(
	    PlannedOperator {Text(op.GetName()), depth, op.has_estimated_cardinality ? op.estimated_cardinality : 0});
	for (auto &child : op.children) {
		Note(*child, depth + 1, out);
	}
}

void AfterOptimizer(OptimizerExtensionInput &input, unique_ptr<LogicalOperator> &plan) {
	CountInputScans(*plan);
	auto &state = SessionState::Get(input.context);
	if (state.notes_operators) {
		state.operators.clear();
		auto &root = plan->type == LogicalOperatorType::LOGICAL_PREPARE ? *plan->children[0] : *plan;
		Note(root, 0, state.operators);
	}
}

void TakeOut(ClientContext &context, const Lock &lock, SchemaCatalogEntry &schema, CatalogType type, const char *kind) {
	vector<Identifier> names;
	schema.Scan(context, type, [&](CatalogEntry &entry) {
		auto name = StringUtil::Lower(entry.name.GetIdentifierName());
		if (entry.type == type && !lock.Admits(kind, name) && !lock.Admits("optimizer_function", name)) {
			names.push_back(entry.name);
		}
	});
	for (auto &name : names) {
		DropInfo drop;
		drop.type = type;
		drop.SetQualifiedName(schema.catalog.GetName(), schema.name, name);
		drop.allow_drop_internal = true;
		drop.cascade = true;
		schema.DropEntry(context, drop);
	}
}

//! DuckDB's function of duckdb_databases(), the same in every database.
std::atomic<table_function_t> show_databases {nullptr};

//! The paths of databases are the operator's business.
void ShowDatabasesWithoutPaths(ClientContext &context, TableFunctionInput &data, DataChunk &output) {
	static constexpr idx_t PATH = 2;
	show_databases.load()(context, data, output);
	output.data[PATH].Reference(Value(LogicalType::VARCHAR), count_t(output.size()));
}

void HidePaths(ClientContext &context) {
	auto &entry = Catalog::GetEntry<TableFunctionCatalogEntry>(
	    context,
	    QualifiedName(Identifier::SystemCatalog(), Identifier::DefaultSchema(), Identifier("duckdb_databases")));
	entry.functions.ApplyToFunctions([](TableFunction &function) {
		show_databases = function.function;
		function.function = ShowDatabasesWithoutPaths;
	});
}

void TakeOutFunctions(DatabaseInstance &database, const Lock &lock) {
	duckdb::Connection connection(database);
	auto &context = *connection.context;
	context.RunFunctionInTransaction([&]() {
		for (auto &schema : Catalog::GetSystemCatalog(context).GetSchemas(context)) {
			TakeOut(context, lock, schema.get(), CatalogType::TABLE_FUNCTION_ENTRY, "table_function");
			TakeOut(context, lock, schema.get(), CatalogType::SCALAR_FUNCTION_ENTRY, "function");
			TakeOut(context, lock, schema.get(), CatalogType::AGGREGATE_FUNCTION_ENTRY, "function");
			TakeOut(context, lock, schema.get(), CatalogType::PRAGMA_FUNCTION_ENTRY, "pragma");
		}
		HidePaths(context);
	});
}

} // namespace

void RegisterHooks(DatabaseInstance &database, const Options &options) {
	auto lock = make_shared_ptr<Lock>(options);
	if (lock->locked_down) {
		TakeOutFunctions(database, *lock);
	}
	auto &config = DBConfig::GetConfig(database);
	PlannerExtension planner;
	planner.post_bind_function = AfterBind;
	planner.planner_info = std::move(lock);
	PlannerExtension::Register(config, std::move(planner));
	OptimizerExtension optimizer;
	optimizer.optimize_function = AfterOptimizer;
	OptimizerExtension::Register(config, std::move(optimizer));
}

} // namespace openduck
