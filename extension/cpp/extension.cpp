//! What DuckDB calls when it loads the file, under either of its names.

#include "options.hpp"
#include "push.hpp"
#include "transaction.hpp"

namespace openduck {

namespace {

//! How many keys of a join's one side are named to its other side.
constexpr idx_t KEYS_TOLD = 2000;

//! Where there is no AS, DuckDB makes the name from the path: from its last part, credentials and all.
void CheckName(ClientContext &context, const string &path, const string &name, const string &database) {
	auto given = AttachedDatabase::ExtractDatabaseName(path, FileSystem::GetFileSystem(context));
	auto leaks = StringUtil::Contains(StringUtil::Lower(name), "token=");
	if (leaks || (StringUtil::Contains(path, "?") && given == Identifier(name) && name != database)) {
		throw InvalidInputException("without a name this database would be named after a part of its options: write "
		                            "ATTACH '…' AS name, or give ENDPOINT and TOKEN in parentheses, by a secret or by "
		                            "OPENDUCK_ENDPOINT and OPENDUCK_TOKEN");
	}
}

//! The path of the database that the process was started with, credentials and all.
struct MainPath : public StorageExtensionInfo {
	string path;
};

unique_ptr<Catalog> Attach(optional_ptr<StorageExtensionInfo> storage, ClientContext &context, AttachedDatabase &db,
                           const string &name, AttachInfo &info, AttachOptions &options) {
	auto &main = dynamic_cast<MainPath &>(*storage);
	auto path = options.is_main_database && !main.path.empty() ? main.path : info.path;
	auto attachment = ReadOptions(context, path, options.options);
	CheckName(context, info.path, name, attachment.database);
	// Nobody else needs to see these.
	options.options.clear();
	options.original_path = attachment.database;
	info.path = attachment.database;
	if (!attachment.snapshot.empty() && options.access_mode == AccessMode::READ_WRITE) {
		throw InvalidInputException("a SNAPSHOT can't be attached for writing: leave READ_WRITE out");
	}
	if (!attachment.snapshot.empty()) {
		db.SetReadOnlyDatabase();
	}
	auto catalog = make_uniq<RemoteCatalog>(db, std::move(attachment));
	catalog->Greet(context);
	return std::move(catalog);
}

unique_ptr<TransactionManager> CreateTransactions(optional_ptr<StorageExtensionInfo> storage, AttachedDatabase &db,
                                                  Catalog &catalog) {
	return make_uniq<RemoteTransactionManager>(db, catalog.Cast<RemoteCatalog>());
}

void Load(ExtensionLoader &loader) {
	auto &config = DBConfig::GetConfig(loader.GetDatabaseInstance());
	if (StorageExtension::Find(config, "openduck")) {
		// The other file was here first.
		return;
	}
	auto storage = make_shared_ptr<StorageExtension>();
	storage->attach = Attach;
	storage->create_transaction_manager = CreateTransactions;
	auto main = make_shared_ptr<MainPath>();
	auto &type = config.options.database_type;
	if (type == "openduck" || type == "od") {
		// DuckDB names the database after the path: it shall see the database's name alone.
		main->path = config.options.database_path;
		config.options.database_path = PathOptions(main->path).database;
	}
	storage->storage_info = main;
	StorageExtension::Register(config, "openduck", storage);
	StorageExtension::Register(config, "od", storage);
	RegisterSecret(loader);
	loader.RegisterFunction(ScanFunction());
	loader.RegisterFunction(QueryFunctions());
	RegisterOperations(loader);
	RegisterExplain(loader);
	// A scan out there is worth more keys than one in memory: 50 is DuckDB's own limit of keys that a join tells its
	// other side one by one.
	if (Settings::Get<DynamicOrFilterThresholdSetting>(config) == 50) {
		config.SetOptionByName("dynamic_or_filter_threshold", Value::UBIGINT(KEYS_TOLD));
	}
	loader.SetDescription("Remote databases of OpenDuck, attached like local ones");
}

} // namespace

} // namespace openduck

extern "C" {

DUCKDB_CPP_EXTENSION_ENTRY(openduck, loader) { // NOLINT
	openduck::Load(loader);
}

DUCKDB_CPP_EXTENSION_ENTRY(od, loader) { // NOLINT
	openduck::Load(loader);
}
}
