//! The hooks on plans: a guard below the parser's, and what is noted of a plan.
//!
//! Client SQL was judged before it came here. But a view, macro, default or trigger that is stored in the database was
//! written by whoever made the file. So the functions that Rust's table does not admit are taken out of the system
//! catalog, where the binder would look for them, and a bound plan is refused for its operators and table functions.

#include "inside.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/common/enum_util.hpp"
#include "duckdb/main/connection.hpp"
#include "duckdb/optimizer/optimizer_extension.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/planner/operator/logical_copy_to_file.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/planner_extension.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

namespace {

bool Admits(const char *kind, const string &name) {
	return admits_bound(rust::Str(kind), Text(StringUtil::Lower(name)));
}

void CheckPlan(LogicalOperator &op) {
	auto kind = EnumUtil::ToString(op.type);
	if (!Admits("operator", kind)) {
		throw PermissionException("%s is not admitted here", kind);
	}
	if (op.type == LogicalOperatorType::LOGICAL_GET) {
		auto name = op.Cast<LogicalGet>().function.GetName().GetIdentifierName();
		if (!Admits("table_function", name)) {
			throw PermissionException("the table function %s is not admitted here", name);
		}
	}
	for (auto &child : op.children) {
		CheckPlan(*child);
	}
}

//! What the hooks are told at their registration.
struct Locked : public PlannerExtensionInfo {
	explicit Locked(bool locked_down_p) : locked_down(locked_down_p) {
	}

	bool locked_down;
};

void AfterBind(PlannerExtensionInput &input, BoundStatement &statement) {
	auto &locked = static_cast<Locked &>(*input.info);
	if (locked.locked_down && statement.plan) {
		CheckPlan(*statement.plan);
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
	out.push_back(PlannedOperator {Text(op.GetName()), depth, op.has_estimated_cardinality ? op.estimated_cardinality : 0});
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

struct Removed {
	CatalogType type;
	Identifier name;
};

void TakeOut(ClientContext &context, SchemaCatalogEntry &schema, CatalogType type, const char *kind) {
	vector<Removed> removed;
	schema.Scan(context, type, [&](CatalogEntry &entry) {
		if (entry.type == type && !Admits(kind, entry.name.GetIdentifierName())) {
			removed.push_back(Removed {type, entry.name});
		}
	});
	for (auto &entry : removed) {
		DropInfo drop;
		drop.type = entry.type;
		drop.SetQualifiedName(schema.catalog.GetName(), schema.name, entry.name);
		drop.allow_drop_internal = true;
		drop.cascade = true;
		schema.DropEntry(context, drop);
	}
}

} // namespace

static void TakeOutFunctions(DatabaseInstance &database) {
	duckdb::Connection connection(database);
	auto &context = *connection.context;
	context.RunFunctionInTransaction([&]() {
		for (auto &schema : Catalog::GetSystemCatalog(context).GetSchemas(context)) {
			TakeOut(context, schema.get(), CatalogType::TABLE_FUNCTION_ENTRY, "table_function");
			TakeOut(context, schema.get(), CatalogType::SCALAR_FUNCTION_ENTRY, "function");
			TakeOut(context, schema.get(), CatalogType::AGGREGATE_FUNCTION_ENTRY, "function");
			TakeOut(context, schema.get(), CatalogType::PRAGMA_FUNCTION_ENTRY, "pragma");
		}
	});
}

void RegisterHooks(DatabaseInstance &database, bool locked_down) {
	if (locked_down) {
		TakeOutFunctions(database);
	}
	auto &config = DBConfig::GetConfig(database);
	PlannerExtension planner;
	planner.post_bind_function = AfterBind;
	planner.planner_info = make_shared_ptr<Locked>(locked_down);
	PlannerExtension::Register(config, std::move(planner));
	OptimizerExtension optimizer;
	optimizer.optimize_function = AfterOptimizer;
	OptimizerExtension::Register(config, std::move(optimizer));
}

} // namespace openduck
