#include "failure.hpp"

#include "duckdb/common/error_data.hpp"
#include "duckdb/common/exception.hpp"
#include "duckdb/common/string_util.hpp"
#include "duckdb/parser/query_error_context.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

namespace {

//! DuckDB's error with all it carries. Its own exceptions lose the place in the SQL when they draw it into the message.
class Failure : public std::exception {
public:
	Failure(const ErrorData &error, const string &sql) : type(error.Type()), message(error.Message()) {
		extra = error.ExtraInfo();
		// Connections ask for errors as JSON (session.cpp), which keeps the message without the drawing.
		auto parsed = StringUtil::ParseJSONMap(error.RawMessage(), true);
		auto entry = parsed.find("exception_message");
		if (entry != parsed.end() || extra.find("position") != extra.end()) {
			auto &text = entry != parsed.end() ? entry->second : error.RawMessage();
			message = Exception::ExceptionTypeToString(type) + " Error: " + Draw(sql, text);
		}
	}

	const char *what() const noexcept override {
		return message.c_str();
	}

	ExceptionType type;
	string message;
	unordered_map<string, string> extra;

private:
	//! The message with the line of the SQL and a mark below it, as DuckDB's clients show it.
	string Draw(const string &sql, const string &text) {
		auto position = extra.find("position");
		if (position == extra.end() || sql.empty()) {
			return text;
		}
		idx_t length = 0;
		auto location = extra.find("location");
		if (location != extra.end()) {
			// "[start,length]"
			auto comma = location->second.find(',');
			if (comma != string::npos) {
				length = std::strtoull(location->second.c_str() + comma + 1, nullptr, 10);
			}
			extra.erase(location);
		}
		return QueryErrorContext::Format(sql, text, std::strtoull(position->second.c_str(), nullptr, 10), length);
	}
};

} // namespace

void Throw(const ErrorData &error, const string &sql) {
	throw Failure(error, sql);
}

std::string DescribeException(const std::exception &exception) noexcept {
	try {
		auto failure = dynamic_cast<const Failure *>(&exception);
		if (failure) {
			return StringUtil::ExceptionToJSONMap(failure->type, failure->message, failure->extra);
		}
		ErrorData error(exception);
		return StringUtil::ExceptionToJSONMap(error.Type(), error.Message(), error.ExtraInfo());
	} catch (...) {
		return R"({"exception_type":"Out of Memory","exception_message":"Out of Memory Error: while an error was told"})";
	}
}

} // namespace openduck
