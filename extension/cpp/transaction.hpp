//! A local transaction, as far as it concerns one remote database.
//!
//! Most are one statement: it runs at the backend as its own transaction, in one round trip. A transaction that BEGIN
//! opened, or whose one statement has several parts, is a transaction in a session there, begun with its first use.
#pragma once

#include "catalog.hpp"

namespace openduck {

class RemoteTransaction : public Transaction {
public:
	RemoteTransaction(TransactionManager &manager, ClientContext &context, RemoteCatalog &catalog);

	static RemoteTransaction &Get(ClientContext &context, Catalog &catalog);

	//! One more statement will be sent for what runs now.
	void Announce(ClientContext &context);
	//! What was announced until now, and going back to it: binding for the types alone sends nothing.
	idx_t Announced() const {
		return parts;
	}
	void Unannounce(idx_t announced) {
		parts = announced;
	}
	//! Whether more than one is.
	bool HasParts() const {
		return parts > 1;
	}
	//! Gives a statement its place: a session, a state to read, a key.
	void Place(ClientContext &context, Statement &statement, bool writes);
	//! Runs a statement in its place.
	unique_ptr<Result> Execute(ClientContext &context, Statement &statement, bool writes);
	//! What a statement's answer tells.
	void Learn(const Result &result, bool wrote);

	//! The catalog, as this transaction sees it: the shared image, or its own after it has changed the schema.
	shared_ptr<CatalogImage> Image(ClientContext &context);
	//! The schema was changed in this transaction.
	void ForgetImage();

	ErrorData Commit(ClientContext &context);
	void Rollback();

private:
	//! A transaction of a parent process is not ours.
	void CheckProcess() const;
	void Begin(ClientContext &context);

	RemoteCatalog &catalog;
	mutex lock;
	int process;
	//! What was announced, of the local statement with this number.
	atomic<idx_t> parts {0};
	idx_t statement_number = 0;
	string session;
	bool wrote = false;
	shared_ptr<CatalogImage> image;
	//! Earlier images, which bound entries may still point into.
	vector<shared_ptr<CatalogImage>> images;
	bool changed_schema = false;
};

class RemoteTransactionManager : public TransactionManager {
public:
	RemoteTransactionManager(AttachedDatabase &db, RemoteCatalog &catalog);

	Transaction &StartTransaction(ClientContext &context) override;
	ErrorData CommitTransaction(ClientContext &context, Transaction &transaction) override;
	void RollbackTransaction(Transaction &transaction) override;
	void Checkpoint(ClientContext &context, bool force) override;

private:
	RemoteCatalog &catalog;
	mutex lock;
	reference_map_t<Transaction, unique_ptr<RemoteTransaction>> transactions;
};

} // namespace openduck
