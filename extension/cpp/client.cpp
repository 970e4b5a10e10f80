#include "client.hpp"

namespace openduck {

namespace {

od_text Text(const string &text) {
	return od_text {text.data(), text.size()};
}

string String(od_text text) {
	return string(text.data, text.size);
}

bool Asked(const void *context) {
	return static_cast<const ClientContext *>(context)->IsInterrupted();
}

od_interrupt InterruptOf(optional_ptr<ClientContext> context) {
	return context ? od_interrupt {Asked, context.get()} : od_interrupt {nullptr, nullptr};
}

//! Raises what a local query would raise.
[[noreturn]] void Raise(od_error &error) {
	auto kind = String(error.kind);
	auto message = String(error.message);
	unordered_map<string, string> extra;
	for (idx_t i = 0; i + 1 < error.extra_size; i += 2) {
		auto name = String(error.extra[i]);
		// The place is one in the SQL that was sent, not in the user's.
		if (name != "position" && name != "location" && name != "remote_position") {
			extra[name] = String(error.extra[i + 1]);
		}
	}
	od_error_clear(&error);
	auto type = Exception::StringToExceptionType(kind);
	if (type == ExceptionType::INTERRUPT) {
		throw InterruptException();
	}
	auto prefix = Exception::ExceptionTypeToString(type) + " Error: ";
	while (StringUtil::StartsWith(message, prefix)) {
		message = message.substr(prefix.size());
	}
	if (type == ExceptionType::FATAL || type == ExceptionType::INTERNAL) {
		// The other side's trouble must not invalidate the database here.
		throw IOException("the server failed: %s", message);
	}
	throw Exception(extra, type, message);
}

void Check(int32_t code, od_error &error) {
	if (code == OD_FAILED) {
		Raise(error);
	}
}

//! A statement as the C interface takes it; its texts live as long as this.
struct Given {
	Given(ClientContext *context, const string &database, Statement &statement, idx_t timeout_ms) {
		for (auto &setting : statement.settings) {
			settings.push_back(Text(setting.first));
			settings.push_back(Text(setting.second));
		}
		value.database = Text(database);
		value.sql = Text(statement.sql);
		value.session = Text(statement.session);
		value.snapshot = Text(statement.snapshot);
		value.idempotency_key = Text(statement.idempotency_key);
		value.min_lsn = statement.min_lsn;
		value.timeout_ms = timeout_ms;
		value.inline_bytes = statement.inline_bytes;
		value.streams_max = statement.streams_max;
		value.settings = settings.data();
		value.settings_size = settings.size();
		value.read_only = statement.read_only;
		if (statement.parameters) {
			auto properties = context->GetClientProperties();
			properties.arrow_lossless_conversion = true;
			properties.produce_arrow_string_view = false;
			auto types = statement.parameters->GetTypes();
			ArrowConverter::ToArrowSchema(&schema, types, statement.parameter_names, properties);
			auto casts = ArrowTypeExtensionData::GetExtensionTypes(*context, types);
			ArrowConverter::ToArrowArray(*statement.parameters, &array, properties, casts);
			value.parameters_schema = &schema;
			value.parameters = &array;
		}
	}
	~Given() {
		if (schema.release) {
			schema.release(&schema);
		}
		if (array.release) {
			array.release(&array);
		}
	}

	od_statement value {};
	vector<od_text> settings;
	ArrowSchema schema {};
	ArrowArray array {};
};

} // namespace

vector<pair<string, string>> Result::Columns() const {
	vector<pair<string, string>> columns;
	for (idx_t i = 0; i < od_result_columns(handle); i++) {
		columns.emplace_back(String(od_result_column_name(handle, i)), String(od_result_column_type(handle, i)));
	}
	return columns;
}

void Result::Schema(ArrowSchema &schema) const {
	od_error error {};
	Check(od_result_schema(handle, &schema, &error), error);
}

bool Result::Next(ClientContext &context, ArrowArray &array, idx_t &place) const {
	od_error error {};
	uint64_t index = 0;
	auto code = od_result_next(handle, InterruptOf(context), &array, &index, &error);
	Check(code, error);
	place = index;
	return code == OD_OK;
}

void Upload::Push(ClientContext &context, ArrowArray &array) const {
	od_error error {};
	Check(od_upload_push(handle, &array, InterruptOf(context), &error), error);
}

unique_ptr<Result> Upload::Finish(ClientContext &context) const {
	od_error error {};
	od_result *result = nullptr;
	Check(od_upload_finish(handle, InterruptOf(context), &result, &error), error);
	return make_uniq<Result>(result);
}

Client::Client(ClientOptions options_p, string database_p)
    : options(std::move(options_p)), database(std::move(database_p)) {
	od_config config {Text(options.endpoint), Text(options.token), Text(options.ca_file), options.connect_timeout_ms};
	od_error error {};
	Check(od_client_new(&config, &handle, &error), error);
}

Client::~Client() {
	od_client_free(handle);
}

unique_ptr<Result> Client::Execute(optional_ptr<ClientContext> context, Statement &statement) const {
	Given given(context.get(), database, statement, options.statement_timeout_ms);
	od_error error {};
	od_result *result = nullptr;
	Check(od_execute(handle, &given.value, InterruptOf(context), &result, &error), error);
	return make_uniq<Result>(result);
}

unique_ptr<Upload> Client::Begin(ClientContext &context, Statement &statement, const string &input,
                                 ArrowSchema &schema) const {
	Given given(&context, database, statement, options.statement_timeout_ms);
	od_error error {};
	od_upload *upload = nullptr;
	Check(od_upload_new(handle, &given.value, Text(input), &schema, &upload, &error), error);
	return make_uniq<Upload>(upload);
}

string Client::RandomName() {
	return UUID::ToString(UUID::GenerateRandomUUID());
}

} // namespace openduck
