//! Reading a catalog: one statement gives all of it, each entry with the SQL that made it.
//!
//! The SQL is parsed here; types come by DuckDB's full names, so that a type of the user's own is known by what it is.

#include "rows.hpp"
#include "transaction.hpp"

namespace openduck {

namespace {

//! kind, schema, name, sql, comment, estimated rows, names and types of the columns, comments of the columns.
constexpr const char *EVERYTHING = R"(
WITH c AS (SELECT table_oid, list(column_name ORDER BY column_index) AS names, list(data_type ORDER BY column_index) AS types,
    list(comment ORDER BY column_index) AS comments
    FROM duckdb_columns() WHERE database_name = current_database() AND NOT internal GROUP BY ALL)
SELECT 0 AS kind, schema_name AS schema, '' AS name, '' AS sql, comment, NULL::BIGINT AS rows, NULL::VARCHAR[] AS names,
    NULL::VARCHAR[] AS types, NULL::VARCHAR[] AS comments
    FROM duckdb_schemas() WHERE database_name = current_database()
    AND schema_name NOT IN ('information_schema', 'pg_catalog')
UNION ALL SELECT 1, schema_name, table_name, sql, comment, estimated_size, names, types, comments
    FROM duckdb_tables() t JOIN c USING (table_oid) WHERE database_name = current_database()
UNION ALL SELECT 2, schema_name, view_name, sql, comment, NULL, names, types, comments
    FROM duckdb_views() v LEFT JOIN c ON c.table_oid = v.view_oid WHERE database_name = current_database() AND NOT internal
UNION ALL SELECT 3, schema_name, type_name, logical_type, comment, NULL, labels, NULL, NULL
    FROM duckdb_types() WHERE database_name = current_database() AND NOT internal
UNION ALL SELECT 4, schema_name, sequence_name, sql, comment, NULL, NULL, NULL, NULL
    FROM duckdb_sequences() WHERE database_name = current_database()
UNION ALL SELECT 5, schema_name, index_name, sql, comment, NULL, [table_name], NULL, NULL
    FROM duckdb_indexes() WHERE database_name = current_database() AND sql IS NOT NULL
UNION ALL SELECT 6, schema_name, function_name, macro_definition, comment, NULL, parameters, [function_type], NULL
    FROM duckdb_functions() WHERE database_name = current_database() AND function_type IN ('macro', 'table_macro') AND NOT internal
ORDER BY kind)";

enum class Kind : uint8_t { SCHEMA, TABLE, VIEW, TYPE, SEQUENCE, INDEX, MACRO };

//! One row of it.
struct Row {
	Row(DataChunk &chunk, idx_t row) : chunk(chunk), row(row) {
	}

	Value Get(idx_t column) const {
		return chunk.GetValue(column, row);
	}
	Kind GetKind() const {
		return static_cast<Kind>(Get(0).GetValue<int32_t>());
	}
	Identifier Schema() const {
		return Identifier(Get(1).ToString());
	}
	Identifier Name() const {
		return Identifier(Get(2).ToString());
	}
	string Sql() const {
		auto sql = Get(3);
		return sql.IsNull() ? string() : sql.ToString();
	}
	Value Comment() const {
		return Get(4);
	}
	optional_idx Rows() const {
		auto rows = Get(5);
		return rows.IsNull() ? optional_idx() : optional_idx(NumericCast<idx_t>(rows.GetValue<int64_t>()));
	}
	vector<Value> List(idx_t column) const {
		auto list = Get(column);
		return list.IsNull() ? vector<Value>() : ListValue::GetChildren(list);
	}

	DataChunk &chunk;
	idx_t row;
};

unique_ptr<CreateInfo> Parse(ClientContext &context, const string &sql) {
	Parser parser(context);
	parser.ParseQuery(sql);
	if (parser.statements.size() != 1 || parser.statements[0]->type != StatementType::CREATE_STATEMENT) {
		throw ParserException("not a CREATE: %s", sql);
	}
	return std::move(parser.statements[0]->Cast<CreateStatement>().info);
}

unique_ptr<CatalogEntry> Table(ClientContext &context, RemoteCatalog &catalog, RemoteSchema &schema, const Row &row) {
	auto names = row.List(6), types = row.List(7), comments = row.List(8);
	unique_ptr<CreateInfo> parsed;
	try {
		parsed = Parse(context, row.Sql());
	} catch (std::exception &) { // NOLINT: columns and types are known without
	}
	CreateTableInfo info(schema, row.Name());
	for (idx_t i = 0; i < names.size(); i++) {
		Identifier name(names[i].ToString());
		auto type = ParseType(context, types[i].ToString());
		ColumnDefinition column(name, type);
		if (parsed && parsed->Cast<CreateTableInfo>().columns.ColumnExists(name)) {
			auto &given = parsed->Cast<CreateTableInfo>().columns.GetColumn(name);
			if (given.Generated()) {
				column = ColumnDefinition(name, type, given.GeneratedExpression().Copy(), given.Category());
			} else if (given.HasDefaultValue()) {
				column.SetDefaultValue(given.DefaultValue().Copy());
			}
		}
		if (i < comments.size()) {
			column.SetComment(comments[i]);
		}
		info.columns.AddColumn(std::move(column));
	}
	if (parsed) {
		info.constraints = std::move(parsed->Cast<CreateTableInfo>().constraints);
	}
	info.comment = row.Comment();
	return make_uniq<RemoteTable>(catalog, schema, info, row.Rows());
}

unique_ptr<CatalogEntry> View(ClientContext &context, RemoteCatalog &catalog, RemoteSchema &schema, const Row &row) {
	auto parsed = Parse(context, row.Sql());
	auto &info = parsed->Cast<CreateViewInfo>();
	info.SetQualification(catalog.GetName(), schema.name);
	info.sql = row.Sql();
	info.comment = row.Comment();
	auto names = row.List(6), types = row.List(7);
	for (idx_t i = 0; i < names.size(); i++) {
		info.names.emplace_back(names[i].ToString());
		info.types.push_back(ParseType(context, types[i].ToString()));
	}
	return make_uniq<ViewCatalogEntry>(catalog, schema, info);
}

unique_ptr<CatalogEntry> Type(ClientContext &context, RemoteCatalog &catalog, RemoteSchema &schema, const Row &row) {
	LogicalType type;
	auto labels = row.List(6);
	if (!labels.empty()) {
		Vector values(LogicalType::VARCHAR, labels.size());
		for (idx_t i = 0; i < labels.size(); i++) {
			values.SetValue(i, labels[i]);
		}
		type = LogicalType::ENUM(values, labels.size());
	} else {
		type = ParseType(context, row.Sql());
	}
	CreateTypeInfo info;
	info.type = type;
	info.SetQualifiedName(QualifiedName(catalog.GetName(), schema.name, row.Name()));
	info.comment = row.Comment();
	return make_uniq<TypeCatalogEntry>(catalog, schema, info);
}

unique_ptr<CatalogEntry> Sequence(ClientContext &context, RemoteCatalog &catalog, RemoteSchema &schema,
                                  const Row &row) {
	auto parsed = Parse(context, row.Sql());
	auto &info = parsed->Cast<CreateSequenceInfo>();
	info.SetQualification(catalog.GetName(), schema.name);
	info.comment = row.Comment();
	return make_uniq<SequenceCatalogEntry>(catalog, schema, info);
}

unique_ptr<CatalogEntry> Macro(ClientContext &context, RemoteCatalog &catalog, RemoteSchema &schema, const Row &row) {
	string parameters;
	for (auto &parameter : row.List(6)) {
		parameters += (parameters.empty() ? "" : ", ") + Quoted(Identifier(parameter.ToString()));
	}
	auto table = row.List(7)[0].ToString() == "table_macro";
	auto parsed = Parse(context, "CREATE MACRO " + Quoted(row.Name()) + "(" + parameters + ") AS " +
	                                 (table ? "TABLE " : "") + row.Sql());
	auto &info = parsed->Cast<CreateMacroInfo>();
	info.SetQualification(catalog.GetName(), schema.name);
	info.comment = row.Comment();
	if (table) {
		return make_uniq<TableMacroCatalogEntry>(catalog, schema, info);
	}
	return make_uniq<ScalarMacroCatalogEntry>(catalog, schema, info);
}

unique_ptr<CatalogEntry> Entry(ClientContext &context, RemoteCatalog &catalog, RemoteSchema &schema, const Row &row) {
	switch (row.GetKind()) {
	case Kind::TABLE:
		return Table(context, catalog, schema, row);
	case Kind::VIEW:
		return View(context, catalog, schema, row);
	case Kind::TYPE:
		return Type(context, catalog, schema, row);
	case Kind::SEQUENCE:
		return Sequence(context, catalog, schema, row);
	case Kind::MACRO:
		return Macro(context, catalog, schema, row);
	default:
		return nullptr;
	}
}

} // namespace

shared_ptr<CatalogImage> ReadCatalog(ClientContext &context, RemoteCatalog &catalog) {
	Statement statement;
	statement.sql = EVERYTHING;
	statement.inline_bytes = 4 << 20;
	auto image = make_shared_ptr<CatalogImage>();
	auto result = RemoteTransaction::Get(context, catalog).Execute(context, statement, false);
	image->schema_version = result->SchemaVersion();
	RowFormat format(context, *result);
	RowReader reader(context, format);
	DataChunk chunk;
	chunk.Initialize(context, format.types);
	while (true) {
		chunk.Reset();
		reader.Read(context, *result, chunk);
		if (chunk.size() == 0) {
			break;
		}
		for (idx_t i = 0; i < chunk.size(); i++) {
			Row row(chunk, i);
			if (row.GetKind() == Kind::SCHEMA) {
				CreateSchemaInfo info;
				info.SetQualifiedName(QualifiedName(catalog.GetName(), row.Schema(), Identifier()));
				info.comment = row.Comment();
				image->schemas[row.Schema()] = make_uniq<RemoteSchema>(catalog, info);
				continue;
			}
			auto schema = image->schemas.find(row.Schema());
			if (schema == image->schemas.end()) {
				continue;
			}
			try {
				auto entry = Entry(context, catalog, *schema->second, row);
				if (entry) {
					schema->second->Add(std::move(entry));
				}
			} catch (std::exception &) { // NOLINT
				// What this DuckDB can't read is not there; the rest of the catalog is.
			}
		}
	}
	return image;
}

case_insensitive_set_t ReadFunctions(ClientContext &context, RemoteCatalog &catalog) {
	Statement statement;
	statement.sql = "SELECT DISTINCT function_name FROM duckdb_functions() "
	                "UNION ALL SELECT ':' || type_name FROM duckdb_types()";
	statement.inline_bytes = 1 << 20;
	case_insensitive_set_t names;
	auto result = catalog.Remote().Execute(context, statement);
	RowFormat format(context, *result);
	RowReader reader(context, format);
	DataChunk chunk;
	chunk.Initialize(context, format.types);
	do {
		chunk.Reset();
		reader.Read(context, *result, chunk);
		for (idx_t i = 0; i < chunk.size(); i++) {
			names.insert(chunk.GetValue(0, i).ToString());
		}
	} while (chunk.size() > 0);
	return names;
}

} // namespace openduck
