#include "inside.hpp"

#include "duckdb_static_extension.h"

#include "duckdb/main/config.hpp"
#include "duckdb/main/connection.hpp"

extern "C" {
int32_t duckdb_extension_core_functions_describe(duckdb_extension_descriptor *descriptor);
int32_t duckdb_extension_parquet_describe(duckdb_extension_descriptor *descriptor);
int32_t duckdb_extension_json_describe(duckdb_extension_descriptor *descriptor);
int32_t duckdb_extension_icu_describe(duckdb_extension_descriptor *descriptor);
}

namespace openduck {

using namespace duckdb; // NOLINT

Database::Database(std::unique_ptr<Inside> inside_p) : inside(std::move(inside_p)) {
}

Database::~Database() {
}

static void Run(duckdb::Connection &connection, const string &sql) {
	auto result = connection.Query(sql);
	if (result->HasError()) {
		Throw(result->GetErrorObject());
	}
}

//! A locked database can't be opened by anything but its own file and the folders that were allowed, can't load
//! anything, and its configuration can't be changed, but for what a session may set.
static void LockDown(duckdb::Connection &connection, const Options &options) {
	vector<Value> directories;
	for (auto &directory : options.allowed_directories) {
		directories.emplace_back(std::string(directory));
	}
	vector<Value> settings;
	for (auto &setting : options.allowed_settings) {
		settings.emplace_back(std::string(setting));
	}
	Run(connection, "SET allow_community_extensions = false");
	Run(connection, "SET allow_unredacted_secrets = false");
	Run(connection, "SET allow_persistent_secrets = false");
	Run(connection, "SET allowed_directories = " + Value::LIST(LogicalType::VARCHAR, directories).ToSQLString());
	Run(connection, "SET enable_external_access = false");
	Run(connection, "SET allowed_configs = " + Value::LIST(LogicalType::VARCHAR, settings).ToSQLString());
	Run(connection, "SET lock_configuration = true");
}

//! A static library brings its extensions along, but only those that are named here end up in the program.
static void LinkExtensions() {
	for (auto describe : {duckdb_extension_core_functions_describe, duckdb_extension_parquet_describe,
	                      duckdb_extension_json_describe, duckdb_extension_icu_describe}) {
		duckdb_register_static_extension(describe);
	}
}

std::shared_ptr<Database> open_database(const Options &options) {
	LinkExtensions();
	DBConfig config(options.read_only);
	auto set = [&](const char *name, Value value) {
		config.SetOptionByName(Identifier(name), value);
	};
	set("memory_limit", Value(std::to_string(options.memory_bytes) + "B"));
	set("threads", Value::BIGINT(NumericCast<int64_t>(options.threads)));
	set("temp_directory", Value(std::string(options.temp_directory)));
	set("max_temp_directory_size", Value(std::to_string(options.temp_bytes_max) + "B"));
	set("autoinstall_known_extensions", Value::BOOLEAN(false));
	set("autoload_known_extensions", Value::BOOLEAN(false));
	set("arrow_lossless_conversion", Value::BOOLEAN(true));
	if (!options.storage_version.empty()) {
		set("storage_compatibility_version", Value(std::string(options.storage_version)));
	}
	auto path = options.in_memory ? std::string(":memory:") : std::string(options.path);
	auto inside = std::make_unique<Database::Inside>();
	inside->duckdb = std::make_unique<DuckDB>(path, &config);
	auto &instance = *inside->duckdb->instance;
	RegisterInputFunction(instance);
	if (options.locked_down) {
		duckdb::Connection connection(instance);
		LockDown(connection, options);
	}
	RegisterHooks(instance, options);
	return std::make_shared<Database>(std::move(inside));
}

//! Changes a setting of the instance, past its lock: that is for clients.
static void Change(DatabaseInstance &instance, const char *name, const Value &value) {
	DBConfig::GetConfig(instance).SetOption(&instance, *DBConfig::GetOptionByName(Identifier(name)), value);
}

void Database::set_memory(uint64_t bytes) const {
	Change(*inside->duckdb->instance, "memory_limit", Value(std::to_string(bytes) + "B"));
}

void Database::set_threads(uint64_t threads) const {
	if (threads == 0) {
		throw InvalidInputException("an instance needs at least one thread");
	}
	Change(*inside->duckdb->instance, "threads", Value::BIGINT(NumericCast<int64_t>(threads)));
}

void Database::checkpoint() const {
	duckdb::Connection connection(*inside->duckdb->instance);
	Run(connection, "CHECKPOINT");
}

} // namespace openduck
