#include "transaction.hpp"

#include <unistd.h>

namespace openduck {

RemoteTransaction::RemoteTransaction(TransactionManager &manager, ClientContext &context, RemoteCatalog &catalog)
    : Transaction(manager, context), catalog(catalog), process(getpid()) {
}

RemoteTransaction &RemoteTransaction::Get(ClientContext &context, Catalog &catalog) {
	return Transaction::Get(context, catalog).Cast<RemoteTransaction>();
}

void RemoteTransaction::Announce(ClientContext &context) {
	lock_guard<mutex> guard(lock);
	auto number = context.transaction.GetActiveQuery();
	if (number != statement_number) {
		statement_number = number;
		parts = 0;
	}
	parts++;
}

void RemoteTransaction::CheckProcess() const {
	if (process != getpid()) {
		throw TransactionException("this transaction belongs to the process that this one was forked from: ROLLBACK, "
		                           "and begin a new one");
	}
}

void RemoteTransaction::Begin(ClientContext &context) {
	auto taken = catalog.TakeSession();
	Statement begin;
	begin.sql = "BEGIN TRANSACTION";
	begin.session = taken;
	begin.inline_bytes = 4096;
	try {
		catalog.Remote().Execute(context, begin);
	} catch (InterruptException &) {
		throw;
	} catch (std::exception &) {
		// It may have been idle for too long, or its server was started anew.
		taken = Client::RandomName();
		begin.session = taken;
		catalog.Remote().Execute(context, begin);
	}
	session = std::move(taken);
}

void RemoteTransaction::Place(ClientContext &context, Statement &statement, bool writes) {
	CheckProcess();
	lock_guard<mutex> guard(lock);
	auto &snapshot = catalog.Options().snapshot;
	if (!statement.snapshot.empty()) {
		// AT names a state of its own.
		return;
	}
	if (!snapshot.empty()) {
		statement.snapshot = snapshot;
		return;
	}
	statement.min_lsn = catalog.NewestLsn();
	if (writes) {
		wrote = true;
	}
	if (session.empty() && (!context.transaction.IsAutoCommit() || parts > 1)) {
		Begin(context);
	}
	if (!session.empty()) {
		statement.session = session;
		statement.min_lsn = 0;
		return;
	}
	if (writes) {
		statement.idempotency_key = Client::RandomName();
	}
}

unique_ptr<Result> RemoteTransaction::Execute(ClientContext &context, Statement &statement, bool writes) {
	Place(context, statement, writes);
	auto result = catalog.Remote().Execute(context, statement);
	// Another state's schema tells nothing of the newest.
	auto shared = statement.session.empty() && statement.snapshot.empty();
	catalog.Learn(*result, writes && statement.session.empty(), shared);
	return result;
}

void RemoteTransaction::Learn(const Result &result, bool wrote_now) {
	catalog.Learn(result, wrote_now && session.empty(), session.empty());
}

shared_ptr<CatalogImage> RemoteTransaction::Image(ClientContext &context) {
	if (!image) {
		image = changed_schema ? ReadCatalog(context, catalog) : catalog.SharedImage(context);
		images.push_back(image);
	}
	return image;
}

void RemoteTransaction::ForgetImage() {
	image.reset();
	changed_schema = true;
}

ErrorData RemoteTransaction::Commit(ClientContext &context) {
	if (changed_schema) {
		catalog.Forget(std::move(images));
	}
	if (session.empty()) {
		return ErrorData();
	}
	try {
		CheckProcess();
		Statement commit;
		commit.sql = "COMMIT";
		commit.session = session;
		commit.inline_bytes = 4096;
		auto result = catalog.Remote().Execute(context, commit);
		catalog.Learn(*result, wrote, false);
		catalog.ReturnSession(std::move(session));
	} catch (std::exception &exception) {
		session.clear();
		return ErrorData(exception);
	}
	return ErrorData();
}

void RemoteTransaction::Rollback() {
	if (changed_schema) {
		catalog.Forget(std::move(images));
	}
	if (session.empty() || process != getpid()) {
		return;
	}
	try {
		Statement rollback;
		rollback.sql = "ROLLBACK";
		rollback.session = session;
		rollback.inline_bytes = 4096;
		catalog.Remote().Execute(nullptr, rollback);
		catalog.ReturnSession(std::move(session));
	} catch (std::exception &) { // NOLINT: the session ends by itself, and its transaction with it
	}
	session.clear();
}

RemoteTransactionManager::RemoteTransactionManager(AttachedDatabase &db, RemoteCatalog &catalog)
    : TransactionManager(db), catalog(catalog) {
}

Transaction &RemoteTransactionManager::StartTransaction(ClientContext &context) {
	auto transaction = make_uniq<RemoteTransaction>(*this, context, catalog);
	auto &result = *transaction;
	lock_guard<mutex> guard(lock);
	transactions[result] = std::move(transaction);
	return result;
}

ErrorData RemoteTransactionManager::CommitTransaction(ClientContext &context, Transaction &transaction) {
	auto error = transaction.Cast<RemoteTransaction>().Commit(context);
	lock_guard<mutex> guard(lock);
	transactions.erase(transaction);
	return error;
}

void RemoteTransactionManager::RollbackTransaction(Transaction &transaction) {
	transaction.Cast<RemoteTransaction>().Rollback();
	lock_guard<mutex> guard(lock);
	transactions.erase(transaction);
}

void RemoteTransactionManager::Checkpoint(ClientContext &context, bool force) {
	Statement statement;
	statement.sql = force ? "FORCE CHECKPOINT" : "CHECKPOINT";
	statement.inline_bytes = 4096;
	catalog.Remote().Execute(context, statement);
}

} // namespace openduck
