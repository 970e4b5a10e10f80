//! The second guard: what a locked database can bind at all, and which plans it runs.
//!
//! Client SQL was judged before it came here. But a view, macro, default or trigger that is stored in the database was
//! written by whoever made the file. So the functions that Rust's table does not admit are taken out of the system
//! catalog, where the binder would look for them, and a bound plan is refused for its operators and table functions.

#include "inside.hpp"

#include "engine/src/ffi.rs.h"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/common/enum_util.hpp"
#include "duckdb/main/connection.hpp"
#include "duckdb/parser/parsed_data/drop_info.hpp"
#include "duckdb/planner/operator/logical_copy_to_file.hpp"
#include "duckdb/planner/operator/logical_get.hpp"
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

void AfterBind(PlannerExtensionInput &, BoundStatement &statement) {
	if (statement.plan) {
		CheckPlan(*statement.plan);
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

void RegisterGuard(DatabaseInstance &database) {
	duckdb::Connection connection(database);
	auto &context = *connection.context;
	context.RunFunctionInTransaction([&]() {
		auto &catalog = Catalog::GetSystemCatalog(context);
		for (auto &schema : catalog.GetSchemas(context)) {
			TakeOut(context, schema.get(), CatalogType::TABLE_FUNCTION_ENTRY, "table_function");
			TakeOut(context, schema.get(), CatalogType::SCALAR_FUNCTION_ENTRY, "function");
			TakeOut(context, schema.get(), CatalogType::AGGREGATE_FUNCTION_ENTRY, "function");
			TakeOut(context, schema.get(), CatalogType::PRAGMA_FUNCTION_ENTRY, "pragma");
		}
	});
	PlannerExtension extension;
	extension.post_bind_function = AfterBind;
	PlannerExtension::Register(DBConfig::GetConfig(database), std::move(extension));
}

} // namespace openduck
