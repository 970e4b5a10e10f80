//! Tables: what DuckDB asks of one when it binds.

#include "scan.hpp"

#include "transaction.hpp"

namespace openduck {

RemoteTable::RemoteTable(RemoteCatalog &catalog, RemoteSchema &schema, CreateTableInfo &info, optional_idx cardinality)
    : TableCatalogEntry(catalog, schema, info), cardinality(cardinality), columns(std::move(info.columns)) {
	comment = info.comment;
}

string RemoteTable::RemoteName() const {
	return Quoted(schema.name) + "." + Quoted(name);
}

bool RemoteTable::HasGeneratedColumns() const {
	return columns.LogicalColumnCount() != columns.PhysicalColumnCount();
}

unique_ptr<BaseStatistics> RemoteTable::GetStatistics(ClientContext &context, column_t column) {
	return nullptr;
}

TableFunction RemoteTable::GetScanFunction(ClientContext &context, unique_ptr<FunctionData> &bind_data) {
	auto &remote = catalog.Cast<RemoteCatalog>();
	auto &transaction = RemoteTransaction::Get(context, remote);
	transaction.Announce(context);
	bind_data = make_uniq<ScanBindData>(remote, *this, transaction.Image(context));
	return ScanFunction();
}

//! What AT says, as a reference of the backend's.
static string SnapshotOf(const BoundAtClause &at) {
	auto unit = at.Unit();
	auto value = at.GetValue();
	if (unit == "version") {
		auto text = value.ToString();
		auto number = !text.empty() && std::all_of(text.begin(), text.end(), ::isdigit);
		return number ? "lsn:" + text : text;
	}
	if (unit == "timestamp") {
		// An instant, so that it does not depend on whose time zone it is.
		auto instant = value.DefaultCastAs(LogicalType::TIMESTAMP_TZ);
		auto text = Timestamp::ToString(timestamp_t(instant.GetValueUnsafe<timestamp_tz_t>().value));
		text[text.find(' ')] = 'T';
		return text + "Z";
	}
	throw BinderException("AT (%s => …) is not known here: use AT (VERSION => lsn or name) or AT (TIMESTAMP => time)",
	                      unit);
}

TableFunction RemoteTable::GetScanFunction(ClientContext &context, unique_ptr<FunctionData> &bind_data,
                                           const EntryLookupInfo &lookup) {
	auto function = GetScanFunction(context, bind_data);
	if (lookup.GetAtClause()) {
		bind_data->Cast<ScanBindData>().snapshot = SnapshotOf(*lookup.GetAtClause());
	}
	return function;
}

TableStorageInfo RemoteTable::GetStorageInfo(ClientContext &context) {
	TableStorageInfo info;
	info.cardinality = cardinality;
	// ON CONFLICT is bound against keys.
	for (auto &constraint : constraints) {
		if (constraint->type != ConstraintType::UNIQUE) {
			continue;
		}
		auto &unique = constraint->Cast<UniqueConstraint>();
		IndexInfo index;
		index.is_primary = unique.IsPrimaryKey();
		index.is_unique = true;
		index.is_foreign = false;
		if (unique.HasIndex()) {
			index.column_set.insert(unique.GetIndex().index);
		} else {
			for (auto column : unique.GetColumnNames()) {
				index.column_set.insert(columns.GetColumnIndex(column).index);
			}
		}
		info.index_info.push_back(std::move(index));
	}
	return info;
}

void RemoteTable::BindUpdateConstraints(Binder &binder, LogicalGet &get, LogicalProjection &projection,
                                        LogicalUpdate &update, ClientContext &context) {
	// The backend checks them.
}

} // namespace openduck
