//! Statements that run at the backend as a whole.
#pragma once

#include "scan.hpp"

namespace openduck {

//! What is sent, carried from the statement's rewriting to its binding.
struct PushInfo : public TableFunctionInfo {
	PushInfo(RemoteCatalog &catalog, string sql) : catalog(catalog), sql(std::move(sql)) {
	}

	RemoteCatalog &catalog;
	string sql;
	//! What the rows look like; null: they are counts, or there are none.
	unique_ptr<QueryNode> shape;
	bool writes = false;
	bool ddl = false;
	//! A statement that changes the schema and counts rows: CREATE TABLE AS.
	bool counts = false;
	//! A statement of CONNECT, in the session of these.
	string raw_session;
};

TableFunctionSet QueryFunctions();
void RegisterOperations(ExtensionLoader &loader);
void RegisterExplain(ExtensionLoader &loader);
//! What a bound scan or query sends, without the filters that are known only later; nothing where it is local.
void SentBy(const LogicalGet &get, optional_ptr<RemoteCatalog> &catalog, string &sql, string &snapshot);

} // namespace openduck
