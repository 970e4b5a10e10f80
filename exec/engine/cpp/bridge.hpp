//! The whole of the C++ side, as Rust sees it: four handles, and functions that may throw.
//!
//! Every exception becomes a JSON text of DuckDB's error (failure.hpp), which the bridge hands to
//! Rust; nothing here decides what a statement may do.

#pragma once

#include "failure.hpp"

#include "rust/cxx.h"

#include <cstddef>
#include <cstdint>
#include <memory>

struct ArrowArray;
struct ArrowSchema;

namespace openduck {

struct Options;
struct Flow;
struct Fact;
struct ParsedStatement;
struct Token;
struct ColumnText;
struct Described;
struct PlannedOperator;
struct Source;
struct Start;

//! A database that is open.
class Database {
public:
	struct Inside;
	explicit Database(std::unique_ptr<Inside> inside);
	~Database();

	void set_memory(uint64_t bytes) const;
	void set_threads(uint64_t threads) const;
	void checkpoint() const;

	std::unique_ptr<Inside> inside;
};

//! Wakes the scans of one input that were parked because its source had nothing for them.
class Parked {
public:
	struct Inside;
	Parked();
	~Parked();

	void wake() const;

	std::unique_ptr<Inside> inside;
};

//! One connection.
class Session {
public:
	struct Inside;
	explicit Session(std::unique_ptr<Inside> inside);
	~Session();

	bool in_transaction() const;
	//! See schema.cpp.
	std::uint64_t catalog_version() const;
	std::uint64_t schema_hash() const;
	void interrupt() const;
	double progress() const;
	void set(rust::Str name, rust::Str value) const;
	void reset(rust::Str name) const;
	void add_input(rust::Str name, ArrowSchema *schema, rust::Box<Source> source, std::shared_ptr<Parked> parked) const;
	void remove_input(rust::Str name) const;
	//! The operators of the statement that was planned last, if it was to note them.
	rust::Vec<PlannedOperator> operators() const;

	std::unique_ptr<Inside> inside;
};

//! A statement that was bound and planned.
class Statement {
public:
	struct Inside;
	explicit Statement(std::unique_ptr<Inside> inside);
	~Statement();

	Described describe() const;
	void schema(ArrowSchema *out) const;

	std::unique_ptr<Inside> inside;
};

//! An open result.
class Stream {
public:
	struct Inside;
	explicit Stream(std::unique_ptr<Inside> inside);
	~Stream();

	Described describe() const;
	void schema(ArrowSchema *out) const;
	//! Moves the next batch to `out`; false at the end.
	bool next(ArrowArray *out);

	std::unique_ptr<Inside> inside;
};

std::shared_ptr<Database> open_database(const Options &options);
std::shared_ptr<Session> connect(const std::shared_ptr<Database> &database);
std::unique_ptr<Statement> prepare(const std::shared_ptr<Session> &session, rust::Str sql);
std::unique_ptr<Stream> execute(const std::shared_ptr<Session> &session, const Statement &statement,
                                ArrowSchema *parameter_schema, ArrowArray *parameters, const Flow &flow);
std::unique_ptr<Stream> start(const std::shared_ptr<Session> &session, rust::Str sql, ArrowSchema *parameter_schema,
                              ArrowArray *parameters, const Flow &flow, const Start &how);
rust::Vec<ParsedStatement> parse_statements(rust::Str sql);
rust::Vec<Token> tokenize(rust::Str sql);
std::shared_ptr<Parked> new_parked();

} // namespace openduck
