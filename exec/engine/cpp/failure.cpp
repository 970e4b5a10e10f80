#include "failure.hpp"

#include "duckdb/common/error_data.hpp"
#include "duckdb/common/exception.hpp"
#include "duckdb/common/string_util.hpp"

namespace openduck {

using duckdb::ErrorData;

//! DuckDB's exceptions lose what was added to the error after they were thrown (the line of the SQL), so this carries
//! the error itself.
class Failure : public std::exception {
public:
	explicit Failure(ErrorData error_p) : error(std::move(error_p)) {
	}
	const char *what() const noexcept override {
		return error.Message().c_str();
	}

	ErrorData error;
};

void Throw(const ErrorData &error) {
	throw Failure(error);
}

std::string DescribeException(const std::exception &exception) noexcept {
	try {
		auto failure = dynamic_cast<const Failure *>(&exception);
		auto error = failure ? failure->error : ErrorData(exception);
		return duckdb::StringUtil::ExceptionToJSONMap(error.Type(), error.Message(), error.ExtraInfo());
	} catch (...) {
		return R"({"exception_type":"Out of Memory","exception_message":"Out of Memory Error: while an error was told"})";
	}
}

} // namespace openduck
