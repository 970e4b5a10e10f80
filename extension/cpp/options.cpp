#include "options.hpp"

namespace openduck {

static constexpr const char *DEFAULT_ENDPOINT = "http://localhost:7878";

//! %20 and the like.
static string Decoded(const string &text) {
	string result;
	for (idx_t i = 0; i < text.size(); i++) {
		if (text[i] == '%' && i + 2 < text.size() && isxdigit(text[i + 1]) && isxdigit(text[i + 2])) {
			result += char(std::stoi(text.substr(i + 1, 2), nullptr, 16));
			i += 2;
		} else {
			result += text[i];
		}
	}
	return result;
}

PathOptions::PathOptions(const string &path) {
	auto mark = path.find('?');
	database = Decoded(path.substr(0, mark));
	if (mark == string::npos) {
		return;
	}
	for (auto &pair : StringUtil::Split(path.substr(mark + 1), '&')) {
		auto sign = pair.find('=');
		if (sign == string::npos || sign == 0) {
			// Not echoed: it may be a part of a token.
			throw InvalidInputException("the options behind ? in the path are written name=value, with & between them");
		}
		options[pair.substr(0, sign)] = Decoded(pair.substr(sign + 1));
	}
}

static idx_t Milliseconds(const string &name, const string &text) {
	idx_t value = 0;
	for (auto letter : text) {
		if (!isdigit(letter) || value > 1000000000) {
			throw InvalidInputException("%s wants a number of milliseconds", name);
		}
		value = value * 10 + idx_t(letter - '0');
	}
	return value;
}

static void Apply(Attachment &attachment, const string &name, const string &value) {
	auto key = StringUtil::Lower(name);
	if (key == "endpoint") {
		attachment.client.endpoint = value;
	} else if (key == "token") {
		attachment.client.token = value;
	} else if (key == "snapshot") {
		attachment.snapshot = value;
	} else if (key == "ca_file") {
		attachment.client.ca_file = value;
	} else if (key == "connect_timeout_ms") {
		attachment.client.connect_timeout_ms = Milliseconds(key, value);
	} else if (key == "statement_timeout_ms") {
		attachment.client.statement_timeout_ms = Milliseconds(key, value);
	} else {
		throw BinderException("Unrecognized option for openduck: %s (there are ENDPOINT, TOKEN, SNAPSHOT, CA_FILE, "
		                      "SECRET, CONNECT_TIMEOUT_MS, STATEMENT_TIMEOUT_MS)",
		                      name);
	}
}

//! The secret that is named, or whose scope fits the endpoint best.
static void ApplySecret(ClientContext &context, Attachment &attachment, const string &name) {
	auto &manager = SecretManager::Get(context);
	auto transaction = CatalogTransaction::GetSystemCatalogTransaction(context);
	unique_ptr<SecretEntry> named;
	SecretMatch match;
	optional_ptr<const BaseSecret> secret;
	if (!name.empty()) {
		named = manager.GetSecretByName(transaction, name);
		if (!named || named->secret->GetType() != "openduck") {
			throw InvalidInputException("there is no secret of TYPE openduck named \"%s\"", name);
		}
		secret = named->secret.get();
	} else {
		match = manager.LookupSecret(transaction, attachment.client.endpoint, "openduck");
		if (!match.HasMatch()) {
			return;
		}
		secret = match.GetSecret();
	}
	auto &values = dynamic_cast<const KeyValueSecret &>(*secret);
	for (auto key : {"token", "ca_file", "endpoint"}) {
		Value value;
		if (values.TryGetValue(Identifier(key), value) && !value.IsNull()) {
			Apply(attachment, key, value.ToString());
		}
	}
}

static string Environment(const char *name) {
	auto value = std::getenv(name);
	return value ? value : "";
}

Attachment ReadOptions(ClientContext &context, const string &path, unordered_map<string, Value> &options) {
	PathOptions parsed(path);
	string secret;
	vector<pair<string, string>> given;
	for (auto &option : parsed.options) {
		given.emplace_back(option.first, option.second);
	}
	for (auto &option : options) {
		given.emplace_back(option.first, option.second.ToString());
	}
	Attachment attachment;
	attachment.database = parsed.database;
	attachment.client.endpoint = Environment("OPENDUCK_ENDPOINT");
	attachment.client.token = Environment("OPENDUCK_TOKEN");
	if (attachment.client.endpoint.empty()) {
		attachment.client.endpoint = DEFAULT_ENDPOINT;
	}
	// The endpoint first: a secret is found by it.
	for (auto &option : given) {
		if (StringUtil::CIEquals(option.first, "endpoint")) {
			attachment.client.endpoint = option.second;
		} else if (StringUtil::CIEquals(option.first, "secret")) {
			secret = option.second;
		}
	}
	ApplySecret(context, attachment, secret);
	for (auto &option : given) {
		if (!StringUtil::CIEquals(option.first, "secret")) {
			Apply(attachment, option.first, option.second);
		}
	}
	auto &name = attachment.database;
	if (name.empty() || name.size() > 64) {
		throw InvalidInputException("name the database, as in ATTACH 'openduck:mydb' AS cloud");
	}
	return attachment;
}

//===--------------------------------------------------------------------===//
// Secrets
//===--------------------------------------------------------------------===//
static unique_ptr<BaseSecret> CreateSecret(ClientContext &context, CreateSecretInput &input) {
	auto scope = input.scope;
	if (scope.empty()) {
		auto endpoint = input.options.find("endpoint");
		scope.push_back(endpoint == input.options.end() ? "" : endpoint->second.ToString());
	}
	auto secret = make_uniq<KeyValueSecret>(scope, input.type, input.provider, input.name);
	for (auto key : {"token", "ca_file", "endpoint"}) {
		secret->TrySetValue(Identifier(key), input);
	}
	secret->redact_keys = {Identifier("token")};
	return std::move(secret);
}

void RegisterSecret(ExtensionLoader &loader) {
	SecretType type;
	type.name = "openduck";
	type.deserializer = KeyValueSecret::Deserialize<KeyValueSecret>;
	type.default_provider = "config";
	type.extension = "openduck";
	loader.RegisterSecretType(type);
	CreateSecretFunction function;
	function.secret_type = "openduck";
	function.provider = "config";
	function.function = CreateSecret;
	for (auto key : {"token", "ca_file", "endpoint"}) {
		function.named_parameters[key] = LogicalType::VARCHAR;
	}
	loader.RegisterFunction(function);
}

} // namespace openduck
