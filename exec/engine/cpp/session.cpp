#include "inside.hpp"

#include "duckdb/common/arrow/arrow_converter.hpp"
#include "duckdb/common/enum_util.hpp"
#include "duckdb/common/type_visitor.hpp"
#include "duckdb/main/client_config.hpp"
#include "duckdb/main/settings.hpp"
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
	// So that an error's place in the SQL is told, and not only drawn (failure.cpp).
	config.user_settings.SetUserSetting(ErrorsAsJSONSetting::SettingIndex, Value::BOOLEAN(true));
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
	Change(*inside->connection,
	       StringUtil::Format("SET SESSION %s = %s", SQLIdentifier(Text(name)), SQLString(Text(value))));
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

duckdb::unique_ptr<SQLStatement> OneStatement(duckdb::Connection &connection, const string &sql) {
	vector<duckdb::unique_ptr<SQLStatement>> statements;
	try {
		statements = connection.ExtractStatements(sql);
	} catch (const std::exception &exception) { Throw(ErrorData(exception), sql); }
	if (statements.size() != 1) {
		throw InvalidInputException("one statement is run at a time, and this text has %llu", statements.size());
	}
	return std::move(statements[0]);
}

std::unique_ptr<Statement> prepare(const std::shared_ptr<Session> &session, rust::Str sql) {
	auto &connection = *session->inside->connection;
	auto &state = SessionState::Get(*connection.context);
	state.read_only = false;
	state.notes_operators = true;
	state.operators.clear();
	auto inside = std::make_unique<Statement::Inside>();
	inside->session = session;
	inside->sql = Text(sql);
	auto statement = OneStatement(connection, inside->sql);
	inside->type = statement->type;
	inside->prepared = connection.Prepare(std::move(statement));
	if (inside->prepared->HasError()) {
		Throw(inside->prepared->GetErrorObject(), inside->sql);
	}
	return std::make_unique<Statement>(std::move(inside));
}

Described Describe(StatementType type, const StatementProperties &properties, const vector<LogicalType> &types,
                   const vector<Identifier> &names) {
	Described result {};
	result.statement_type = Text(EnumUtil::ToString(type));
	result.known = true;
	result.return_type = static_cast<uint8_t>(properties.return_type);
	result.parameter_count = properties.parameter_count;
	result.needs_valid_transaction = properties.requires_valid_transaction;
	for (idx_t i = 0; i < types.size(); i++) {
		result.columns.push_back(ColumnText {Text(names[i].GetIdentifierName()), Text(types[i].ToString())});
	}
	for (auto &entry : properties.read_databases) {
		result.read_databases.push_back(Text(entry.first.GetIdentifierName()));
	}
	for (auto &entry : properties.modified_databases) {
		result.modified_databases.push_back(Text(entry.first.GetIdentifierName()));
	}
	return result;
}

Described Statement::describe() const {
	auto &prepared = *inside->prepared;
	auto result = Describe(inside->type, prepared.GetStatementProperties(), prepared.GetTypes(), prepared.GetNames());
	result.known = prepared.MetadataAvailable();
	// Only what expands into several statements has no name to be executed by.
	result.expands = prepared.GetName().empty();
	result.parameter_count = prepared.GetNamedParameterMap().size();
	return result;
}

void MakeSchema(ArrowSchema *out, const duckdb::vector<LogicalType> &types, const duckdb::vector<Identifier> &names,
                ClientProperties properties) {
	for (idx_t column = 0; column < types.size(); column++) {
		// Of this type DuckDB makes a schema without a format, which nobody can read.
		if (TypeVisitor::Contains(types[column], [](const LogicalType &type) { return type.IsAggregateState(); })) {
			throw NotImplementedException("the column %s is the state of an aggregate, which stays in the database",
			                              SQLIdentifier(names[column]));
		}
	}
	ArrowConverter::ToArrowSchema(out, types, IdentifiersToStrings(names), properties);
}

void Statement::schema(ArrowSchema *out) const {
	auto &prepared = *inside->prepared;
	auto properties = inside->session->inside->Context().GetClientProperties();
	MakeSchema(out, prepared.GetTypes(), prepared.GetNames(), properties);
}

rust::Vec<PlannedOperator> Session::operators() const {
	return SessionState::Get(inside->Context()).operators;
}

} // namespace openduck
