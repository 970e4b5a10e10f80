//! A text of SQL as DuckDB's tokenizer cuts it.

#include "inside.hpp"

#include "engine/src/ffi.rs.h"

#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/simplified_token.hpp"

namespace openduck {

using duckdb::Parser;
using duckdb::SimplifiedTokenType;

rust::Vec<Token> tokenize(rust::Str sql) {
	rust::Vec<Token> result;
	for (auto &token : Parser::Tokenize(std::string(sql))) {
		bool shown = token.type == SimplifiedTokenType::SIMPLIFIED_TOKEN_IDENTIFIER ||
		             token.type == SimplifiedTokenType::SIMPLIFIED_TOKEN_OPERATOR ||
		             token.type == SimplifiedTokenType::SIMPLIFIED_TOKEN_KEYWORD;
		result.push_back(Token {size_t(token.start), shown});
	}
	return result;
}

} // namespace openduck
