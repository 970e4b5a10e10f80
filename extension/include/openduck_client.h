// What the C++ side sees of the client: connections, statements, results and uploads.
//
// Rows travel by the Arrow C data interface. Texts are UTF-8 with a length; what is passed in is copied,
// what is passed out lives as long as its owner. Functions that may fail return OD_OK or OD_FAILED and fill
// the error, which `od_error_clear` empties. Handles may be used by several threads at once, and are freed once.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ArrowSchema;
struct ArrowArray;

typedef struct od_client od_client;
typedef struct od_result od_result;
typedef struct od_upload od_upload;

#define OD_OK 0
#define OD_FAILED 1
// `od_result_next`: there are no more rows.
#define OD_END 2

typedef struct od_text {
	const char *data;
	size_t size;
} od_text;

// A failure: DuckDB's name of the exception's type, its message, and what else is known, as keys and values in turn.
typedef struct od_error {
	od_text kind;
	od_text message;
	const od_text *extra;
	size_t extra_size;
	void *owner;
} od_error;

// Asked some fifty times a second while a call waits: true ends it with an `INTERRUPT` error.
typedef struct od_interrupt {
	bool (*asked)(const void *with);
	const void *with;
} od_interrupt;

typedef struct od_config {
	od_text endpoint;
	od_text token;
	od_text ca_file;
	uint64_t connect_timeout_ms;
} od_config;

// Empty texts and zeros are defaults; see execution.proto.
typedef struct od_statement {
	od_text database;
	od_text sql;
	od_text session;
	od_text snapshot;
	od_text idempotency_key;
	uint64_t min_lsn;
	uint64_t timeout_ms;
	uint32_t inline_bytes;
	uint32_t streams_max;
	// Names and values in turn.
	const od_text *settings;
	size_t settings_size;
	// One row, or null; both are taken over.
	struct ArrowSchema *parameters_schema;
	struct ArrowArray *parameters;
	bool read_only;
} od_statement;

int32_t od_client_new(const od_config *config, od_client **client, od_error *error);
void od_client_free(od_client *client);

int32_t od_execute(od_client *client, const od_statement *statement, od_interrupt interrupt, od_result **result,
                   od_error *error);

size_t od_result_columns(const od_result *result);
od_text od_result_column_name(const od_result *result, size_t column);
od_text od_result_column_type(const od_result *result, size_t column);
uint32_t od_result_streams(const od_result *result);
uint64_t od_result_lsn(const od_result *result);
uint64_t od_result_schema_version(const od_result *result);
int32_t od_result_schema(const od_result *result, struct ArrowSchema *schema, od_error *error);
// The next batch in the result's order, and its place in it.
int32_t od_result_next(const od_result *result, od_interrupt interrupt, struct ArrowArray *array, uint64_t *place,
                       od_error *error);
// Cancels what still runs.
void od_result_free(od_result *result);

// A statement that uses one input, by its name; the schema is taken over.
int32_t od_upload_new(od_client *client, const od_statement *statement, od_text name, struct ArrowSchema *schema,
                      od_upload **upload, od_error *error);
// Adds rows; the array is taken over.
int32_t od_upload_push(const od_upload *upload, struct ArrowArray *array, od_interrupt interrupt, od_error *error);
// The statement's answer.
int32_t od_upload_finish(const od_upload *upload, od_interrupt interrupt, od_result **result, od_error *error);
// Cancels a statement whose upload was not finished.
void od_upload_free(od_upload *upload);

void od_error_clear(od_error *error);

#ifdef __cplusplus
}
#endif
