//! Scans of remote tables, and results of remote statements, as table functions.
#pragma once

#include "catalog.hpp"
#include "rows.hpp"

namespace openduck {

//! What a scan of a table knows when it is bound.
struct ScanBindData : public TableFunctionData {
	ScanBindData(RemoteCatalog &catalog, RemoteTable &table, shared_ptr<CatalogImage> image)
	    : catalog(catalog), table(table), image(std::move(image)) {
	}

	RemoteCatalog &catalog;
	RemoteTable &table;
	//! Keeps the table.
	shared_ptr<CatalogImage> image;
	//! The state that AT names; empty: the transaction's.
	string snapshot;
};

//! A result that several threads read.
struct ResultGlobalState : public GlobalTableFunctionState {
	idx_t MaxThreads() const override {
		return threads;
	}

	unique_ptr<Result> result;
	unique_ptr<RowFormat> format;
	idx_t threads = 1;
	atomic<idx_t> rows_read {0};
	idx_t rows_expected = 0;
};

struct ResultLocalState : public LocalTableFunctionState {
	ResultLocalState(ClientContext &context, const RowFormat &format) : reader(context, format) {
	}

	RowReader reader;
	//! What the scan reads, where more is read than given.
	DataChunk read;
	unique_ptr<ExpressionExecutor> filter;
};

//! A filter as SQL over a column's name; empty: it can't be said there. `optional` ones may be left out.
string FilterToSQL(const Expression &filter, const string &column);
//! Whether values of a type can be said in SQL without a loss.
bool SayableType(const LogicalType &type);

TableFunction ScanFunction();
//! What a bound scan of a table would send.
string ScanSQL(const LogicalGet &get);
//! Whether a scan is spread over several threads, and by how many streams.
uint32_t StreamsOf(ClientContext &context);

OperatorPartitionData ResultPartition(ClientContext &context, TableFunctionGetPartitionInput &input);
double ResultProgress(ClientContext &context, const FunctionData *bind_data, const GlobalTableFunctionState *state);

} // namespace openduck
