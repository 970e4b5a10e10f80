//! A remote database as a catalog of DuckDB.
//!
//! Everything in it is read from the backend with one statement, when it is first asked for, and kept as one image:
//! schemas and their entries, immutable. When the backend's schema changes a new image takes its place; who still
//! holds the old one (a bound plan) keeps it alive. Changes are statements that are sent; no entry is made here.
#pragma once

#include "client.hpp"

namespace openduck {

class RemoteCatalog;
class RemoteTransaction;

//! How a database was attached.
struct Attachment {
	ClientOptions client;
	string database;
	//! The state that is read; empty: the newest.
	string snapshot;
};

//! A schema of an image.
class RemoteSchema : public SchemaCatalogEntry {
public:
	RemoteSchema(RemoteCatalog &catalog, CreateSchemaInfo &info);

	void Scan(ClientContext &context, CatalogType type, const std::function<void(CatalogEntry &)> &callback) override;
	void Scan(CatalogType type, const std::function<void(CatalogEntry &)> &callback) override;
	optional_ptr<CatalogEntry> LookupEntry(CatalogTransaction transaction, const EntryLookupInfo &lookup) override;

	optional_ptr<CatalogEntry> CreateIndex(CatalogTransaction transaction, CreateIndexInfo &info,
	                                       TableCatalogEntry &table) override;
	optional_ptr<CatalogEntry> CreateFunction(CatalogTransaction transaction, CreateFunctionInfo &info) override;
	optional_ptr<CatalogEntry> CreateTable(CatalogTransaction transaction, BoundCreateTableInfo &info) override;
	optional_ptr<CatalogEntry> CreateView(CatalogTransaction transaction, CreateViewInfo &info) override;
	optional_ptr<CatalogEntry> CreateSequence(CatalogTransaction transaction, CreateSequenceInfo &info) override;
	optional_ptr<CatalogEntry> CreateType(CatalogTransaction transaction, CreateTypeInfo &info) override;
	void DropEntry(ClientContext &context, DropInfo &info) override;
	void Alter(CatalogTransaction transaction, AlterInfo &info) override;

	void Add(unique_ptr<CatalogEntry> entry);

private:
	using Entries = identifier_map_t<unique_ptr<CatalogEntry>>;

	optional_ptr<Entries> Find(CatalogType type);
	//! Runs a CREATE here, and gives what it made.
	optional_ptr<CatalogEntry> Create(CatalogTransaction transaction, CreateInfo &info);

	//! By kind: tables and views share their names, macros too.
	map<uint8_t, Entries> entries;
};

//! All schemas at one time.
struct CatalogImage {
	identifier_map_t<unique_ptr<RemoteSchema>> schemas;
	idx_t number = 0;
	//! The backend's own number of it; 0: unknown.
	idx_t schema_version = 0;
};

//! A table or, where `at` is set, a table at an earlier state.
class RemoteTable : public TableCatalogEntry {
public:
	RemoteTable(RemoteCatalog &catalog, RemoteSchema &schema, CreateTableInfo &info, optional_idx cardinality);

	const ColumnList &GetColumns() const override {
		return columns;
	}
	unique_ptr<BaseStatistics> GetStatistics(ClientContext &context, column_t column) override;
	TableFunction GetScanFunction(ClientContext &context, unique_ptr<FunctionData> &bind_data) override;
	TableFunction GetScanFunction(ClientContext &context, unique_ptr<FunctionData> &bind_data,
	                              const EntryLookupInfo &lookup) override;
	TableStorageInfo GetStorageInfo(ClientContext &context) override;
	void BindUpdateConstraints(Binder &binder, LogicalGet &get, LogicalProjection &projection, LogicalUpdate &update,
	                           ClientContext &context) override;
	bool HasGeneratedColumns() const override;

	//! Its name for the backend.
	string RemoteName() const;

	optional_idx cardinality;

private:
	ColumnList columns;
};

class RemoteCatalog : public Catalog {
public:
	RemoteCatalog(AttachedDatabase &db, Attachment attachment);

	static constexpr const char *TYPE = "openduck";

	void Initialize(bool load_builtin) override {
	}
	string GetCatalogType() override {
		return TYPE;
	}
	optional_idx GetCatalogVersion(ClientContext &context) override;
	optional<Identifier> GetDefaultSchema() const override;
	bool SupportsTimeTravel() const override {
		return true;
	}
	CatalogLookupBehavior CatalogTypeLookupRule(CatalogType type) const override;

	optional_ptr<CatalogEntry> CreateSchema(CatalogTransaction transaction, CreateSchemaInfo &info) override;
	optional_ptr<SchemaCatalogEntry> LookupSchema(CatalogTransaction transaction, const EntryLookupInfo &lookup,
	                                              OnEntryNotFound if_not_found) override;
	void ScanSchemas(ClientContext &context, std::function<void(SchemaCatalogEntry &)> callback) override;

	PhysicalOperator &PlanCreateTableAs(ClientContext &context, PhysicalPlanGenerator &planner, LogicalCreateTable &op,
	                                    PhysicalOperator &plan) override;
	PhysicalOperator &PlanInsert(ClientContext &context, PhysicalPlanGenerator &planner, LogicalInsert &op,
	                             optional_ptr<PhysicalOperator> plan) override;
	PhysicalOperator &PlanDelete(ClientContext &context, PhysicalPlanGenerator &planner, LogicalDelete &op,
	                             PhysicalOperator &plan) override;
	PhysicalOperator &PlanUpdate(ClientContext &context, PhysicalPlanGenerator &planner, LogicalUpdate &op,
	                             PhysicalOperator &plan) override;
	unique_ptr<LogicalOperator> BindCreateIndex(Binder &binder, CreateStatement &statement, TableCatalogEntry &table,
	                                            unique_ptr<LogicalOperator> plan) override;

	DatabaseSize GetDatabaseSize(ClientContext &context) override;
	bool InMemory() override {
		return false;
	}
	//! Without credentials.
	string GetDBPath() override;
	string GetConnectDisplay() override;

	bool Supports(RemoteCapability capability) const override;
	unique_ptr<TableRef> RemoteExecute(ClientContext &context, unique_ptr<QueryNode> node) override;
	unique_ptr<TableRef> RemoteExecute(ClientContext &context, unique_ptr<SQLStatement> statement) override;
	unique_ptr<TableRef> RemoteExecute(ClientContext &context, const string &sql) override;
	bool SupportsPushdown(const ParsedExpression &expression) override;
	bool SupportsPushdown(const TableRef &ref) override;
	bool SupportsPushdown(const QueryNode &node) override;
	bool SupportsPushdown(const SQLStatement &statement) override;

	//! What there is, as the transaction of this context sees it.
	shared_ptr<CatalogImage> Image(ClientContext &context);
	//! What there is; read where it is not known, or not fresh.
	shared_ptr<CatalogImage> SharedImage(ClientContext &context);
	//! The schema was changed, or seen to have changed. Images that somebody may still point into are kept.
	void Forget(vector<shared_ptr<CatalogImage>> used = {});
	//! What an answer tells of the commit, and, where it was given outside of transactions, of the schema's version.
	void Learn(const Result &result, bool wrote, bool shared);

	Client &Remote() {
		return client;
	}
	const Attachment &Options() const {
		return attachment;
	}
	//! The newest commit that was made, or seen, from here.
	idx_t NewestLsn() const {
		return newest_lsn;
	}
	//! The time zone that statements have there unless they are told another.
	const string &RemoteTimeZone() const {
		return time_zone;
	}
	//! Asks who is there: a wrong token or endpoint is said, and another version of DuckDB refused.
	void Greet(ClientContext &context);
	//! Whether the backend has a function or macro of this name.
	bool SupportsFunction(const string &name);
	//! Whether the backend has a type of this name that is not DuckDB's own everywhere.
	bool HasType(const string &name);
	//! A session for one transaction at a time, and its return.
	string TakeSession();
	void ReturnSession(string session);

private:
	void DropSchema(ClientContext &context, DropInfo &info) override;

	Attachment attachment;
	Client client;
	mutex lock;
	//! The newest one last; earlier ones are kept for who still points into them.
	vector<shared_ptr<CatalogImage>> images;
	idx_t images_read = 0;
	bool stale = false;
	//! When the newest image was last known to be what there is.
	std::chrono::steady_clock::time_point checked;
	atomic<idx_t> newest_lsn {0};
	vector<string> sessions;
	string time_zone;
	//! The functions that the backend has, and its types, each behind a colon.
	case_insensitive_set_t functions;
	atomic<bool> functions_read {false};
	//! The session of raw statements, as CONNECT sends them.
	string raw_session;
};

//! Reads all of a catalog.
shared_ptr<CatalogImage> ReadCatalog(ClientContext &context, RemoteCatalog &catalog);
//! The names of all functions that the backend has, and those of its types, each behind a colon.
case_insensitive_set_t ReadFunctions(ClientContext &context, RemoteCatalog &catalog);
//! Runs a statement that gives no rows, in the transaction of this context, and forgets the image.
void RunDDL(ClientContext &context, RemoteCatalog &catalog, const string &sql);
//! A name in quotes.
string Quoted(const Identifier &name);

} // namespace openduck
