//! What a database's schema is, as one number.
//!
//! DuckDB counts the changes of a catalog, from zero in each instance: enough to know that nothing has changed since
//! one looked. The number itself is made of what the catalog holds, so that the writer's instance and each one of a
//! snapshot with the same schema tell the same.

#include "inside.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/schema_catalog_entry.hpp"
#include "duckdb/catalog/catalog_entry/sequence_catalog_entry.hpp"
#include "duckdb/common/serializer/binary_serializer.hpp"
#include "duckdb/common/serializer/memory_stream.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/parser/parsed_data/create_info.hpp"

namespace openduck {

using namespace duckdb; // NOLINT

static constexpr CatalogType KINDS[] = {CatalogType::TABLE_ENTRY,       CatalogType::TYPE_ENTRY,
                                        CatalogType::SEQUENCE_ENTRY,    CatalogType::MACRO_ENTRY,
                                        CatalogType::TABLE_MACRO_ENTRY, CatalogType::INDEX_ENTRY};

static Catalog &MainCatalog(ClientContext &context) {
	return Catalog::GetCatalog(context, ClientData::Get(context).default_database);
}

static hash_t HashOf(CatalogEntry &entry) {
	MemoryStream stream;
	if (entry.type == CatalogType::SEQUENCE_ENTRY) {
		// Its counter is data.
		auto data = entry.Cast<SequenceCatalogEntry>().GetData();
		stream.Write(data.increment);
		stream.Write(data.min_value);
		stream.Write(data.max_value);
		stream.Write(data.cycle);
		stream.WriteData(const_data_ptr_cast(entry.name.GetIdentifierName().data()),
		                 entry.name.GetIdentifierName().size());
	} else {
		BinarySerializer::Serialize(*entry.GetInfo(), stream);
	}
	return Hash(const_char_ptr_cast(stream.GetData()), stream.GetPosition());
}

std::uint64_t Session::catalog_version() const {
	auto &context = inside->Context();
	optional_idx version;
	context.RunFunctionInTransaction([&]() { version = MainCatalog(context).GetCatalogVersion(context); }, false);
	return version.IsValid() ? version.GetIndex() : 0;
}

std::uint64_t Session::schema_hash() const {
	auto &context = inside->Context();
	// Entries come in no order that matters.
	hash_t sum = 1;
	context.RunFunctionInTransaction(
	    [&]() {
		    for (auto &schema : MainCatalog(context).GetSchemas(context)) {
			    auto &name = schema.get().name.GetIdentifierName();
			    auto of_schema = Hash(name.data(), name.size());
			    sum += schema.get().internal ? 0 : of_schema;
			    for (auto kind : KINDS) {
				    schema.get().Scan(context, kind, [&](CatalogEntry &entry) {
					    if (!entry.internal) {
						    sum += CombineHash(of_schema, HashOf(entry));
					    }
				    });
			    }
		    }
	    },
	    false);
	return sum;
}

} // namespace openduck
