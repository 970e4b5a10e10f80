#include "catalog.hpp"

#include "rows.hpp"
#include "transaction.hpp"

namespace openduck {

//! How long an image is taken for fresh where the backend tells no version of its schema.
static constexpr std::chrono::milliseconds FRESH {1000};

//! Images that are kept for who points into them.
static constexpr idx_t IMAGES_KEPT = 64;

//! Sessions that wait for a transaction.
static constexpr idx_t SESSIONS_KEPT = 16;

string Quoted(const Identifier &name) {
	return SQLQuotedIdentifier(name) + string();
}

RemoteCatalog::RemoteCatalog(AttachedDatabase &db, Attachment attachment_p)
    : Catalog(db), attachment(std::move(attachment_p)), client(attachment.client, attachment.database),
      raw_session(Client::RandomName()) {
}

//! What a statement with one row of one text gives.
static string OneText(ClientContext &context, RemoteCatalog &catalog, const Client &client, const string &sql) {
	Statement statement;
	statement.sql = sql;
	statement.inline_bytes = 4096;
	statement.snapshot = catalog.Options().snapshot;
	auto result = client.Execute(context, statement);
	catalog.Learn(*result, false, true);
	RowFormat format(context, *result);
	RowReader reader(context, format);
	DataChunk chunk;
	chunk.Initialize(context, format.types);
	reader.Read(context, *result, chunk);
	return chunk.size() == 1 ? chunk.GetValue(0, 0).ToString() : string();
}

void RemoteCatalog::Greet(ClientContext &context) {
	auto version = OneText(context, *this, client, "SELECT version()");
	if (version != DuckDB::LibraryVersion()) {
		throw InvalidInputException("the server at %s runs DuckDB %s, and this is %s: install the same version on both "
		                            "sides",
		                            client.Endpoint(), version, DuckDB::LibraryVersion());
	}
	time_zone = OneText(context, *this, client, "SHOW TimeZone");
}

shared_ptr<CatalogImage> RemoteCatalog::Image(ClientContext &context) {
	return RemoteTransaction::Get(context, *this).Image(context);
}

shared_ptr<CatalogImage> RemoteCatalog::SharedImage(ClientContext &context) {
	auto fresh = [&](shared_ptr<CatalogImage> &newest) {
		lock_guard<mutex> guard(lock);
		newest = images.empty() || stale ? nullptr : images.back();
		return newest && (!attachment.snapshot.empty() || std::chrono::steady_clock::now() - checked < FRESH);
	};
	shared_ptr<CatalogImage> newest;
	if (fresh(newest)) {
		return newest;
	}
	if (newest && newest->schema_version > 0) {
		// Any answer tells the schema's version: the smallest question will do.
		OneText(context, *this, client, "SELECT 1");
		if (fresh(newest)) {
			return newest;
		}
	}
	auto asked = std::chrono::steady_clock::now();
	{
		lock_guard<mutex> guard(lock);
		stale = false;
	}
	auto image = ReadCatalog(context, *this);
	auto names = functions_read ? case_insensitive_set_t() : ReadFunctions(context, *this);
	lock_guard<mutex> guard(lock);
	if (!names.empty()) {
		functions = std::move(names);
		functions_read = true;
	}
	for (auto &schema : image->schemas) {
		auto add = [&](CatalogEntry &macro) { functions.insert(macro.name.GetIdentifierName()); };
		schema.second->Scan(CatalogType::MACRO_ENTRY, add);
		schema.second->Scan(CatalogType::TABLE_MACRO_ENTRY, add);
		schema.second->Scan(CatalogType::TYPE_ENTRY,
		                    [&](CatalogEntry &type) { functions.insert(":" + type.name.GetIdentifierName()); });
	}
	image->number = ++images_read;
	checked = asked;
	images.push_back(image);
	while (images.size() > IMAGES_KEPT) {
		images.erase(images.begin());
	}
	return image;
}

void RemoteCatalog::Forget(vector<shared_ptr<CatalogImage>> used) {
	lock_guard<mutex> guard(lock);
	stale = true;
	images.insert(images.begin(), used.begin(), used.end());
}

void RemoteCatalog::Learn(const Result &result, bool wrote, bool shared) {
	auto lsn = result.Lsn();
	auto known = newest_lsn.load();
	while (wrote && lsn > known && !newest_lsn.compare_exchange_weak(known, lsn)) {
	}
	lock_guard<mutex> guard(lock);
	if (!shared || result.SchemaVersion() == 0 || images.empty()) {
		return;
	}
	if (result.SchemaVersion() == images.back()->schema_version) {
		checked = std::chrono::steady_clock::now();
	} else {
		stale = true;
	}
}

bool RemoteCatalog::SupportsFunction(const string &name) {
	lock_guard<mutex> guard(lock);
	return functions.find(name) != functions.end();
}

bool RemoteCatalog::HasType(const string &name) {
	return SupportsFunction(":" + name);
}

string RemoteCatalog::TakeSession() {
	lock_guard<mutex> guard(lock);
	if (sessions.empty()) {
		return Client::RandomName();
	}
	auto session = std::move(sessions.back());
	sessions.pop_back();
	return session;
}

void RemoteCatalog::ReturnSession(string session) {
	lock_guard<mutex> guard(lock);
	if (sessions.size() < SESSIONS_KEPT) {
		sessions.push_back(std::move(session));
	}
}

optional_idx RemoteCatalog::GetCatalogVersion(ClientContext &context) {
	lock_guard<mutex> guard(lock);
	return images_read + (stale ? 1 : 0);
}

optional<Identifier> RemoteCatalog::GetDefaultSchema() const {
	return Identifier(DEFAULT_SCHEMA);
}

CatalogLookupBehavior RemoteCatalog::CatalogTypeLookupRule(CatalogType type) const {
	switch (type) {
	case CatalogType::SCALAR_FUNCTION_ENTRY:
	case CatalogType::TABLE_FUNCTION_ENTRY:
	case CatalogType::AGGREGATE_FUNCTION_ENTRY:
	case CatalogType::MACRO_ENTRY:
	case CatalogType::TABLE_MACRO_ENTRY:
	case CatalogType::TYPE_ENTRY:
		// Built-in ones are found first: most names are theirs.
		return CatalogLookupBehavior::LOWER_PRIORITY;
	case CatalogType::PRAGMA_FUNCTION_ENTRY:
	case CatalogType::COPY_FUNCTION_ENTRY:
	case CatalogType::COLLATION_ENTRY:
		return CatalogLookupBehavior::NEVER_LOOKUP;
	default:
		return CatalogLookupBehavior::STANDARD;
	}
}

optional_ptr<SchemaCatalogEntry> RemoteCatalog::LookupSchema(CatalogTransaction transaction,
                                                             const EntryLookupInfo &lookup,
                                                             OnEntryNotFound if_not_found) {
	auto image = Image(transaction.GetContext());
	auto entry = image->schemas.find(lookup.GetEntryIdentifier());
	if (entry != image->schemas.end()) {
		return entry->second.get();
	}
	if (if_not_found == OnEntryNotFound::RETURN_NULL) {
		return nullptr;
	}
	throw CatalogException(lookup.GetErrorContext(), "Schema with name \"%s\" does not exist in %s!",
	                       lookup.GetEntryName(), GetName().GetIdentifierName());
}

void RemoteCatalog::ScanSchemas(ClientContext &context, std::function<void(SchemaCatalogEntry &)> callback) {
	for (auto &schema : Image(context)->schemas) {
		callback(*schema.second);
	}
}

optional_ptr<CatalogEntry> RemoteCatalog::CreateSchema(CatalogTransaction transaction, CreateSchemaInfo &info) {
	auto copy = info.Copy();
	RemotePushdownOptimizer::StripCatalogName(*copy, GetName());
	RunDDL(transaction.GetContext(), *this, copy->ToString());
	auto image = Image(transaction.GetContext());
	auto entry = image->schemas.find(info.SchemaName());
	return entry == image->schemas.end() ? nullptr : entry->second.get();
}

void RemoteCatalog::DropSchema(ClientContext &context, DropInfo &info) {
	DropInfo copy(info);
	copy.SetQualifiedName(QualifiedName(info.GetQualifiedName().Name()));
	RunDDL(context, *this, copy.ToString());
}

void RunDDL(ClientContext &context, RemoteCatalog &catalog, const string &sql) {
	auto &transaction = RemoteTransaction::Get(context, catalog);
	Statement statement;
	statement.sql = sql;
	statement.inline_bytes = 4096;
	transaction.Execute(context, statement, true);
	transaction.ForgetImage();
}

DatabaseSize RemoteCatalog::GetDatabaseSize(ClientContext &context) {
	// The backend does not tell the sizes of its files.
	return DatabaseSize();
}

string RemoteCatalog::GetDBPath() {
	return attachment.database + (attachment.snapshot.empty() ? "" : "@" + attachment.snapshot);
}

string RemoteCatalog::GetConnectDisplay() {
	return attachment.database + " at " + attachment.client.endpoint;
}

} // namespace openduck
