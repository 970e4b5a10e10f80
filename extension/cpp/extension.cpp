//! What DuckDB calls when it loads the file, under either of its names.

#include "options.hpp"
#include "push.hpp"
#include "transaction.hpp"

namespace openduck {

namespace {

unique_ptr<Catalog> Attach(optional_ptr<StorageExtensionInfo> storage, ClientContext &context, AttachedDatabase &db,
                           const string &name, AttachInfo &info, AttachOptions &options) {
	if (StringUtil::Contains(StringUtil::Lower(name), "token=")) {
		// DuckDB makes the name from the path where there is no AS.
		throw InvalidInputException("this database would be named after its token: write ATTACH '…' AS name, or give the "
		                            "token with TOKEN, OPENDUCK_TOKEN or a secret");
	}
	auto attachment = ReadOptions(context, info.path, options.options);
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
	return make_uniq<RemoteCatalog>(db, std::move(attachment));
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
	StorageExtension::Register(config, "openduck", storage);
	StorageExtension::Register(config, "od", storage);
	RegisterSecret(loader);
	loader.RegisterFunction(QueryFunctions());
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
