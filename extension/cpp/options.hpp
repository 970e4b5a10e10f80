//! Where a database is, and as whom: from the path, ATTACH's options, a secret, the environment.
#pragma once

#include "catalog.hpp"

namespace openduck {

//! Takes options out of a path like `mydb?endpoint=…&token=…`.
struct PathOptions {
	explicit PathOptions(const string &path);

	string database;
	case_insensitive_map_t<string> options;
};

//! All sources together: an option of ATTACH beats the path, the path a secret, a secret the environment.
Attachment ReadOptions(ClientContext &context, const string &path, unordered_map<string, Value> &options);

void RegisterSecret(ExtensionLoader &loader);

} // namespace openduck
