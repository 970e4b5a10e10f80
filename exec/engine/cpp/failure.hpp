//! How a C++ exception reaches Rust: as a JSON map of DuckDB's error.

#pragma once

#include "rust/cxx.h"

#include <exception>
#include <string>

namespace duckdb {
class ErrorData;
}

namespace openduck {

//! Throws DuckDB's error with everything it carries, about this SQL if there is one.
[[noreturn]] void Throw(const duckdb::ErrorData &error, const std::string &sql = std::string());

//! The JSON map of whatever is being thrown: `exception_type`, `exception_message`, and what else DuckDB tells.
std::string DescribeException(const std::exception &exception) noexcept;

} // namespace openduck

namespace rust {
namespace behavior {

//! The bridge runs every function that may throw through this.
template <typename Try, typename Fail>
static void trycatch(Try &&call, Fail &&fail) noexcept try {
	call();
} catch (const std::exception &exception) { fail(openduck::DescribeException(exception)); } catch (...) {
	fail(R"({"exception_type":"Unknown","exception_message":"Unknown Error: what was thrown was no exception"})");
}

} // namespace behavior
} // namespace rust
