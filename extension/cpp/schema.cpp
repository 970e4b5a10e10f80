//! Schemas: finding entries, and changing them by statements that are sent.

#include "transaction.hpp"

namespace openduck {

//! Which names share a space.
static uint8_t Space(CatalogType type) {
	switch (type) {
	case CatalogType::TABLE_ENTRY:
	case CatalogType::VIEW_ENTRY:
		return 1;
	case CatalogType::TYPE_ENTRY:
		return 2;
	case CatalogType::SEQUENCE_ENTRY:
		return 3;
	case CatalogType::MACRO_ENTRY:
	case CatalogType::SCALAR_FUNCTION_ENTRY:
	case CatalogType::AGGREGATE_FUNCTION_ENTRY:
		return 4;
	case CatalogType::TABLE_MACRO_ENTRY:
	case CatalogType::TABLE_FUNCTION_ENTRY:
		return 5;
	default:
		return 0;
	}
}

RemoteSchema::RemoteSchema(RemoteCatalog &catalog, CreateSchemaInfo &info) : SchemaCatalogEntry(catalog, info) {
	comment = info.comment;
}

optional_ptr<RemoteSchema::Entries> RemoteSchema::Find(CatalogType type) {
	auto found = entries.find(Space(type));
	return found == entries.end() ? nullptr : &found->second;
}

void RemoteSchema::Add(unique_ptr<CatalogEntry> entry) {
	auto name = entry->name;
	entries[Space(entry->type)][name] = std::move(entry);
}

void RemoteSchema::Scan(ClientContext &context, CatalogType type, const std::function<void(CatalogEntry &)> &callback) {
	Scan(type, callback);
}

void RemoteSchema::Scan(CatalogType type, const std::function<void(CatalogEntry &)> &callback) {
	auto found = Find(type);
	if (!found) {
		return;
	}
	for (auto &entry : *found) {
		callback(*entry.second);
	}
}

optional_ptr<CatalogEntry> RemoteSchema::LookupEntry(CatalogTransaction transaction, const EntryLookupInfo &lookup) {
	auto found = Find(lookup.GetCatalogType());
	if (!found) {
		return nullptr;
	}
	auto entry = found->find(lookup.GetEntryIdentifier());
	if (entry == found->end()) {
		return nullptr;
	}
	if (entry->second->type == CatalogType::SEQUENCE_ENTRY) {
		// Its values are given out there: counting here would be wrong.
		throw NotImplementedException("the sequence %s belongs to the remote database %s: only statements that run "
		                              "there as a whole can use it",
		                              lookup.GetEntryName(), catalog.GetName());
	}
	return entry->second.get();
}

optional_ptr<CatalogEntry> RemoteSchema::Create(CatalogTransaction transaction, CreateInfo &info) {
	auto &remote = catalog.Cast<RemoteCatalog>();
	auto copy = info.Copy();
	RemotePushdownOptimizer::StripCatalogName(*copy, catalog.GetName());
	copy->SetQualifiedName(QualifiedName(Identifier(), name, info.GetQualifiedName().Name()));
	auto &context = transaction.GetContext();
	RunDDL(context, remote, copy->ToString());
	auto image = remote.Image(context);
	auto schema = image->schemas.find(name);
	if (schema == image->schemas.end()) {
		return nullptr;
	}
	EntryLookupInfo lookup(info.type, QualifiedName(info.GetQualifiedName().Name()));
	return schema->second->LookupEntry(transaction, lookup);
}

optional_ptr<CatalogEntry> RemoteSchema::CreateIndex(CatalogTransaction transaction, CreateIndexInfo &info,
                                                     TableCatalogEntry &table) {
	return Create(transaction, info);
}

optional_ptr<CatalogEntry> RemoteSchema::CreateFunction(CatalogTransaction transaction, CreateFunctionInfo &info) {
	if (info.type != CatalogType::MACRO_ENTRY && info.type != CatalogType::TABLE_MACRO_ENTRY) {
		throw BinderException("only macros can be created in the remote database %s", catalog.GetName());
	}
	return Create(transaction, info);
}

optional_ptr<CatalogEntry> RemoteSchema::CreateTable(CatalogTransaction transaction, BoundCreateTableInfo &info) {
	return Create(transaction, *info.base);
}

optional_ptr<CatalogEntry> RemoteSchema::CreateView(CatalogTransaction transaction, CreateViewInfo &info) {
	return Create(transaction, info);
}

optional_ptr<CatalogEntry> RemoteSchema::CreateSequence(CatalogTransaction transaction, CreateSequenceInfo &info) {
	return Create(transaction, info);
}

optional_ptr<CatalogEntry> RemoteSchema::CreateType(CatalogTransaction transaction, CreateTypeInfo &info) {
	return Create(transaction, info);
}

void RemoteSchema::DropEntry(ClientContext &context, DropInfo &info) {
	DropInfo copy(info);
	copy.SetQualifiedName(QualifiedName(Identifier(), name, info.GetQualifiedName().Name()));
	RunDDL(context, catalog.Cast<RemoteCatalog>(), copy.ToString());
}

void RemoteSchema::Alter(CatalogTransaction transaction, AlterInfo &info) {
	auto copy = info.Copy();
	RemotePushdownOptimizer::StripCatalogName(*copy, catalog.GetName());
	RunDDL(transaction.GetContext(), catalog.Cast<RemoteCatalog>(), copy->ToString());
}

} // namespace openduck
