#include "inside.hpp"

#include "engine/src/ffi.rs.h"

#include "duckdb/common/arrow/arrow_converter.hpp"
#include "duckdb/common/enum_util.hpp"
#include "duckdb/execution/physical_operator.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/main/client_config.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/prepared_statement_data.hpp"
#include "duckdb/common/string_util.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

Session::Session(std::unique_ptr<Inside> inside_p) : inside(std::move(inside_p)) {
}

Session::~Session() {
}

std::shared_ptr<Session> connect(const std::shared_ptr<Database> &database) {
	auto inside = std::make_unique<Session::Inside>();
	inside->database = database;
	inside->connection = std::make_unique<duckdb::Connection>(*database->inside->duckdb->instance);
	// The bar is what counts progress; it is never printed.
	auto &config = ClientConfig::GetConfig(inside->Context());
	config.enable_progress_bar = true;
	config.print_progress_bar = false;
	config.wait_time = 0;
	return std::make_shared<Session>(std::move(inside));
}

bool Session::in_transaction() const {
	return !inside->connection->IsAutoCommit();
}

void Session::interrupt() const {
	inside->Context().Interrupt();
}

double Session::progress() const {
	return inside->Context().GetQueryProgress().GetPercentage() / 100.0;
}

static void Change(duckdb::Connection &connection, const string &sql) {
	auto result = connection.Query(sql);
	if (result->HasError()) {
		Throw(result->GetErrorObject());
	}
}

void Session::set(rust::Str name, rust::Str value) const {
	Change(*inside->connection, StringUtil::Format("SET SESSION %s = %s", SQLIdentifier(Text(name)), SQLString(Text(value))));
}

void Session::reset(rust::Str name) const {
	Change(*inside->connection, StringUtil::Format("RESET SESSION %s", SQLIdentifier(Text(name))));
}

//===--------------------------------------------------------------------===//
// Statements
//===--------------------------------------------------------------------===//
Statement::Statement(std::unique_ptr<Inside> inside_p) : inside(std::move(inside_p)) {
}

Statement::~Statement() {
}

std::unique_ptr<Statement> prepare(const std::shared_ptr<Session> &session, rust::Str sql_p) {
	auto sql = Text(sql_p);
	auto &connection = *session->inside->connection;
	auto inside = std::make_unique<Statement::Inside>();
	inside->session = session;
	auto statements = connection.ExtractStatements(sql);
	if (statements.size() != 1) {
		throw InvalidInputException("one statement is run at a time, and this text has %llu", statements.size());
	}
	inside->type = statements[0]->type;
	inside->prepared = connection.Prepare(std::move(statements[0]));
	if (inside->prepared->HasError()) {
		Throw(inside->prepared->GetErrorObject());
	}
	return std::make_unique<Statement>(std::move(inside));
}

rust::Vec<ColumnText> Columns(const vector<LogicalType> &types, const vector<Identifier> &names) {
	rust::Vec<ColumnText> columns;
	columns.reserve(types.size());
	for (idx_t i = 0; i < types.size(); i++) {
		columns.push_back(ColumnText {Text(names[i].GetIdentifierName()), Text(types[i].ToString())});
	}
	return columns;
}

Described Statement::describe() const {
	auto &prepared = *inside->prepared;
	Described result {};
	result.statement_type = Text(EnumUtil::ToString(inside->type));
	result.known = prepared.MetadataAvailable();
	if (!result.known) {
		return result;
	}
	auto &properties = prepared.GetStatementProperties();
	result.return_type = static_cast<uint8_t>(properties.return_type);
	result.columns = Columns(prepared.GetTypes(), prepared.GetNames());
	result.parameter_count = prepared.GetParameterCount();
	result.needs_valid_transaction = properties.requires_valid_transaction;
	for (auto &entry : properties.read_databases) {
		result.read_databases.push_back(Text(entry.first.GetIdentifierName()));
	}
	for (auto &entry : properties.modified_databases) {
		result.modified_databases.push_back(Text(entry.first.GetIdentifierName()));
	}
	return result;
}

void Statement::schema(ArrowSchema *out) const {
	auto &prepared = *inside->prepared;
	auto properties = inside->session->inside->Context().GetClientProperties();
	ArrowConverter::ToArrowSchema(out, prepared.GetTypes(), IdentifiersToStrings(prepared.GetNames()), properties);
}

static void AddOperators(const PhysicalOperator &op, uint32_t depth, rust::Vec<PlannedOperator> &out) {
	out.push_back(PlannedOperator {Text(op.GetName()), depth, op.estimated_cardinality});
	for (auto &child : op.GetChildren()) {
		AddOperators(child.get(), depth + 1, out);
	}
}

rust::Vec<PlannedOperator> Statement::operators() const {
	rust::Vec<PlannedOperator> result;
	auto &known = ClientData::Get(inside->session->inside->Context()).prepared_statements;
	auto entry = known.find(Identifier(inside->prepared->GetName()));
	if (entry != known.end() && entry->second->physical_plan) {
		AddOperators(entry->second->physical_plan->Root(), 0, result);
	}
	return result;
}

} // namespace openduck
