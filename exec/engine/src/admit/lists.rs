//! The lists. What is not on one is refused; the refused ones that DuckDB 2.0.0 has are named as well,
//! for clear words, and so that a test can tell that none was overlooked.

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::parse::StatementKind;

/// The settings that a session may change, for itself. They change what SQL means, and nothing else.
pub const SETTINGS: &[&str] = &[
    "calendar",
    "default_collation",
    "default_null_order",
    "default_order",
    "error_on_division_by_zero",
    "ieee_floating_point_ops",
    "integer_division",
    "null_order",
    "order_by_non_integer_literal",
    "preserve_identifier_case",
    "preserve_insertion_order",
    "scalar_subquery_error_on_multiple_rows",
    "schema",
    "search_path",
    "timezone",
];

/// Pragmas that only show.
pub(super) const PRAGMAS: &[&str] = &[
    "collations",
    "database_list",
    "database_size",
    "functions",
    "show",
    "show_databases",
    "show_tables",
    "show_tables_expanded",
    "storage_info",
    "table_info",
    "version",
];

/// Table functions that make rows of their arguments, or show the catalog.
const TABLE_FUNCTIONS: &[&str] = &[
    "duckdb_columns",
    "duckdb_constraints",
    "duckdb_coordinate_systems",
    // Without its column of paths, see cpp/guard.cpp.
    "duckdb_databases",
    "duckdb_dependencies",
    "duckdb_functions",
    "duckdb_indexes",
    "duckdb_keywords",
    "duckdb_prepared_statements",
    "duckdb_schemas",
    "duckdb_sequences",
    "duckdb_table_sample",
    "duckdb_tables",
    "duckdb_triggers",
    "duckdb_types",
    "duckdb_variables",
    "duckdb_views",
    "generate_series",
    "icu_calendar_names",
    "json_each",
    "json_tree",
    "openduck_input",
    "pg_timezone_names",
    "pragma_collations",
    "pragma_database_size",
    "pragma_show",
    "pragma_storage_info",
    "pragma_table_info",
    "pragma_version",
    "query",
    "query_table",
    "range",
    "repeat",
    "repeat_row",
    "summary",
    "test_all_types",
    "test_vector_types",
    "unnest",
];

/// Table functions of plans that SQL can't name to good effect: what scans a table.
const PLAN_FUNCTIONS: &[&str] = &["seq_scan"];

/// Table functions that read files: only where the operator allows folders.
const FILE_FUNCTIONS: &[&str] = &[
    "glob",
    "parquet_bloom_probe",
    "parquet_file_metadata",
    "parquet_full_metadata",
    "parquet_kv_metadata",
    "parquet_metadata",
    "parquet_scan",
    "parquet_schema",
    "read_blob",
    "read_csv",
    "read_csv_auto",
    "read_json",
    "read_json_auto",
    "read_json_objects",
    "read_json_objects_auto",
    "read_ndjson",
    "read_ndjson_auto",
    "read_ndjson_objects",
    "read_parquet",
    "read_text",
    "sniff_csv",
];

/// Table functions that DuckDB has, and that are never admitted.
const REFUSED_TABLE_FUNCTIONS: &[&str] = &[
    "arrow_scan",
    "arrow_scan_dumb",
    "checkpoint",
    "create_external_resource",
    "deregister_external_resource",
    "destroy_external_resource",
    "disable_logging",
    "disable_profiling",
    "duckdb_approx_database_count",
    "duckdb_available_metrics",
    "duckdb_connection_count",
    "duckdb_dialects",
    "duckdb_eviction_queues",
    "duckdb_extension_repositories",
    "duckdb_extensions",
    "duckdb_external_file_cache",
    "duckdb_external_resource_types",
    "duckdb_external_resources",
    "duckdb_grammar_extensions",
    "duckdb_log_contexts",
    "duckdb_logs",
    "duckdb_memory",
    "duckdb_optimizers",
    "duckdb_secret_type_parameters",
    "duckdb_secret_types",
    "duckdb_secrets",
    "duckdb_settings",
    "duckdb_temporary_files",
    "enable_logging",
    "enable_profiling",
    "force_checkpoint",
    "json_execute_serialized_sql",
    "pragma_metadata_info",
    "pragma_platform",
    "pragma_user_agent",
    "read_duckdb",
    "read_single_csv_file",
    "read_single_json_file",
    "read_single_parquet_file",
    "register_external_resource",
    "register_external_resource_type",
    "seq_scan",
    "truncate_duckdb_logs",
    "which_secret",
];

/// Functions that DuckDB has, and that are not admitted; those whose names begin with `__internal` are
/// not either, which only the optimizer may use.
const REFUSED_FUNCTIONS: &[&str] = &[
    // Take bytes for aggregate states and variants, and believe them.
    "combine",
    "combine_aggr",
    "finalize",
    "to_aggregate_state",
    "variant_bytes_to_variant",
    // Shows paths.
    "current_setting",
    "getenv",
    // Run what a text says.
    "json_deserialize_sql",
    "json_serialize_plan",
    // Keeps a thread of DuckDB's busy.
    "sleep_ms",
    "write_log",
];

/// Of those that are not admitted, what DuckDB's optimizer looks for in the catalog, by name or to copy a
/// plan. They stay there, and a bound plan must have no function of these; a scan it may have, which needs a
/// table, and SQL can't call it without one.
const OPTIMIZER_FUNCTIONS: &[&str] = &["combine_aggr", "finalize", "seq_scan"];

/// Scalar, aggregate and window functions: all of DuckDB 2.0.0's but those above.
static FUNCTIONS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("functions.txt").lines().collect());

/// Operators of bound plans.
const OPERATORS: &[&str] = &[
    "LOGICAL_PROJECTION",
    "LOGICAL_FILTER",
    "LOGICAL_AGGREGATE_AND_GROUP_BY",
    "LOGICAL_WINDOW",
    "LOGICAL_UNNEST",
    "LOGICAL_LIMIT",
    "LOGICAL_ORDER_BY",
    "LOGICAL_TOP_N",
    "LOGICAL_DISTINCT",
    "LOGICAL_SAMPLE",
    "LOGICAL_PIVOT",
    "LOGICAL_SECURE_VIEW",
    "LOGICAL_GET",
    "LOGICAL_CHUNK_GET",
    "LOGICAL_DELIM_GET",
    "LOGICAL_EXPRESSION_GET",
    "LOGICAL_DUMMY_SCAN",
    "LOGICAL_EMPTY_RESULT",
    "LOGICAL_CTE_REF",
    "LOGICAL_JOIN",
    "LOGICAL_DELIM_JOIN",
    "LOGICAL_COMPARISON_JOIN",
    "LOGICAL_ANY_JOIN",
    "LOGICAL_CROSS_PRODUCT",
    "LOGICAL_POSITIONAL_JOIN",
    "LOGICAL_ASOF_JOIN",
    "LOGICAL_DEPENDENT_JOIN",
    "LOGICAL_UNION",
    "LOGICAL_EXCEPT",
    "LOGICAL_INTERSECT",
    "LOGICAL_RECURSIVE_CTE",
    "LOGICAL_MATERIALIZED_CTE",
    "LOGICAL_INSERT",
    "LOGICAL_DELETE",
    "LOGICAL_UPDATE",
    "LOGICAL_MERGE_INTO",
    "LOGICAL_TRIGGER",
    "LOGICAL_ALTER",
    "LOGICAL_CREATE_TABLE",
    "LOGICAL_CREATE_INDEX",
    "LOGICAL_CREATE_SEQUENCE",
    "LOGICAL_CREATE_VIEW",
    "LOGICAL_CREATE_SCHEMA",
    "LOGICAL_CREATE_MACRO",
    "LOGICAL_CREATE_TYPE",
    "LOGICAL_CREATE_TRIGGER",
    "LOGICAL_DROP",
    "LOGICAL_PRAGMA",
    "LOGICAL_TRANSACTION",
    "LOGICAL_EXPLAIN",
    "LOGICAL_PREPARE",
    "LOGICAL_EXECUTE",
    "LOGICAL_VACUUM",
    "LOGICAL_SET",
    "LOGICAL_RESET",
];

/// Whether the binder may find a function, or a plan may have an operator; or whether a function is one of
/// the optimizer's. `files`: the operator allows
/// folders, in which DuckDB itself keeps files functions and COPY.
pub(crate) fn admits_bound(kind: &str, name: &str, files: bool) -> bool {
    match kind {
        "table_function" => {
            TABLE_FUNCTIONS.contains(&name) || (files && FILE_FUNCTIONS.contains(&name))
        }
        "plan_function" => {
            PLAN_FUNCTIONS.contains(&name) || admits_bound("table_function", name, files)
        }
        "function" => FUNCTIONS.contains(name),
        "optimizer_function" => OPTIMIZER_FUNCTIONS.contains(&name),
        "pragma" => PRAGMAS.contains(&name),
        "operator" => OPERATORS.contains(&name) || (files && name == "LOGICAL_COPY_TO_FILE"),
        _ => false,
    }
}

/// Whether a name is one of DuckDB's table functions that are not admitted. Other names may be macros;
/// the binder has the last word.
pub(super) fn refuses_table_function(name: &str, files: bool) -> bool {
    REFUSED_TABLE_FUNCTIONS.contains(&name) || (!files && FILE_FUNCTIONS.contains(&name))
}

/// The same for other functions.
pub(super) fn refuses_function(name: &str) -> bool {
    REFUSED_FUNCTIONS.contains(&name) || name.starts_with("__internal")
}

/// The word for a kind of statement that is not admitted.
pub(super) fn refused_statement(kind: StatementKind) -> Option<&'static str> {
    Some(match kind {
        StatementKind::Select
        | StatementKind::Insert
        | StatementKind::Update
        | StatementKind::Delete
        | StatementKind::MergeInto
        | StatementKind::Create
        | StatementKind::Drop
        | StatementKind::Alter
        | StatementKind::Transaction
        | StatementKind::Prepare
        | StatementKind::Execute
        | StatementKind::Explain
        | StatementKind::Copy
        | StatementKind::Set
        | StatementKind::Pragma
        | StatementKind::Call
        | StatementKind::Vacuum
        | StatementKind::Analyze
        | StatementKind::Several => return None,
        StatementKind::CopyDatabase => "COPY FROM DATABASE",
        StatementKind::Export => "EXPORT",
        StatementKind::Attach => "ATTACH",
        StatementKind::Detach => "DETACH",
        StatementKind::Load => "LOAD or INSTALL",
        StatementKind::UpdateExtensions => "UPDATE EXTENSIONS",
        StatementKind::Connect | StatementKind::Disconnect => "CONNECT",
        StatementKind::Other => "a statement of this kind",
    })
}

/// Whether DuckDB's function of this name is admitted (`Some(true)`), refused by name, or on no list.
pub fn is_listed(kind: &str, name: &str) -> Option<bool> {
    if admits_bound(kind, name, true) {
        return Some(true);
    }
    let refused = match kind {
        "table_function" => refuses_table_function(name, true),
        _ => refuses_function(name),
    };
    refused.then_some(false)
}
