//! What a text asks for, whole; and that no text makes the parser fall.

mod common;

use engine::{EntryKind, SettingScope, Statement, StatementKind, parse};
use proptest::prelude::*;

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

/// Every name that a statement uses, sorted.
fn names(sql: &str) -> String {
    let facts = one(sql).facts;
    let mut names: Vec<String> = Vec::new();
    names.extend(facts.tables.iter().map(|table| format!("t:{}", table.name)));
    names.extend(
        facts
            .changed
            .iter()
            .map(|table| format!("w:{}", table.name)),
    );
    names.extend(
        facts
            .functions
            .iter()
            .map(|function| format!("f:{}", function.name)),
    );
    names.extend(
        facts
            .table_functions
            .iter()
            .map(|function| format!("tf:{}", function.name)),
    );
    names.extend(facts.unknown.iter().map(|what| format!("unknown:{what}")));
    names.sort();
    names.dedup();
    names.join(" ")
}

#[test]
fn a_walk_finds_what_is_nested_anywhere() {
    let mut wrong = Vec::new();
    let mut check = |sql: &str, expected: &str| {
        let found = names(sql);
        if found != expected {
            wrong.push(format!("{sql}: {found}, not {expected}"));
        }
    };
    check(
        "SELECT f(g(x)) FROM a JOIN b ON h(a.i) = b.i WHERE i(1) AND x IN (SELECT k() FROM c)",
        "f:f f:g f:h f:i f:k t:a t:b t:c",
    );
    check(
        "WITH c AS (FROM f()) SELECT (SELECT g() FROM c)",
        "f:g t:c tf:f",
    );
    check(
        "SELECT sum(x) FILTER (WHERE f(x)) OVER (PARTITION BY g(x) ORDER BY h(x) ROWS BETWEEN i() PRECEDING AND CURRENT ROW)",
        "f:f f:g f:h f:i f:sum",
    );
    check(
        "SELECT list_transform(x, lambda y: f(y)) FROM t ORDER BY g(x) LIMIT h()",
        "f:f f:g f:h f:list_transform t:t",
    );
    check(
        "SELECT x GROUP BY GROUPING SETS ((f(x)), (g(x))) HAVING h(x) QUALIFY i(x)",
        "f:f f:g f:h f:i",
    );
    check(
        "SELECT DISTINCT ON (f(x)) x FROM (VALUES (g())) t(x)",
        "f:f f:g",
    );
    check(
        "SELECT CASE WHEN f() THEN g() ELSE h() END::VARCHAR COLLATE de, x BETWEEN i() AND j()",
        "f:f f:g f:h f:i f:j",
    );
    check("FROM tf(f(), (SELECT g() FROM t))", "f:f f:g t:t tf:tf");
    check("FROM t AT (VERSION => f())", "f:f t:t");
    check(
        "PIVOT t ON f(x) IN (SELECT g() FROM u) USING sum(h(x)) GROUP BY y",
        "f:f f:g f:h f:sum t:t t:u",
    );
    check(
        "FROM a POSITIONAL JOIN (FROM b UNION ALL BY NAME FROM c EXCEPT FROM f())",
        "t:a t:b t:c tf:f",
    );
    check(
        "INSERT INTO t SELECT f() FROM u ON CONFLICT (x) DO UPDATE SET y = g() WHERE h() RETURNING i()",
        "f:f f:g f:h f:i t:t t:u w:t",
    );
    check(
        "UPDATE t SET x = f() FROM u WHERE g() RETURNING h()",
        "f:f f:g f:h t:t t:u w:t",
    );
    check(
        "DELETE FROM t USING u WHERE f() RETURNING g()",
        "f:f f:g t:t t:u w:t",
    );
    check(
        "MERGE INTO t USING u ON f() WHEN MATCHED AND g() THEN UPDATE SET x = h() WHEN NOT MATCHED THEN INSERT VALUES (i())",
        "f:f f:g f:h f:i t:t t:u w:t",
    );
    check(
        "CREATE TABLE t (a INT DEFAULT f(), b INT AS (g(a)), CHECK (h(a)))",
        "f:f f:g f:h w:t",
    );
    check("CREATE TABLE t AS SELECT f() FROM u", "f:f t:u w:t");
    check("CREATE VIEW v AS SELECT f() FROM u", "f:f t:u w:v");
    check(
        "CREATE MACRO m(x, y := f()) AS g(x), (x) AS h(x)",
        "f:f f:g f:h",
    );
    check(
        "CREATE MACRO m() AS TABLE SELECT f() FROM tf()",
        "f:f tf:tf",
    );
    check("CREATE INDEX i ON t (f(x))", "f:f w:t");
    check("CREATE TYPE e AS ENUM (SELECT f() FROM t)", "f:f t:t");
    check("COPY (SELECT f() FROM t) TO 'x'", "f:f t:t");
    check("COPY t FROM 'x'", "w:t");
    check("EXPLAIN ANALYZE SELECT f() FROM t", "f:f t:t");
    check("PREPARE p AS SELECT f($1) FROM t", "f:f t:t");
    check("EXECUTE p(f())", "f:f");
    check("CALL tf(f())", "f:f tf:tf");
    check("SET VARIABLE x = (SELECT f() FROM t)", "f:f t:t");
    check("DESCRIBE SELECT f() FROM t", "f:f t:t");
    check("SUMMARIZE t", "t:t");
    check(
        "WITH x AS (INSERT INTO t VALUES (f()) RETURNING i) FROM x",
        "f:f t:x w:t",
    );
    check(
        "WITH x AS (COPY (SELECT f() FROM t) TO 'y') FROM x",
        "f:f t:t t:x",
    );
    check(
        "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH STATEMENT INSERT INTO u SELECT f()",
        "f:f t:t w:t w:u",
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn plain_reads_are_told_from_the_rest() {
    for sql in [
        "SELECT 1",
        "FROM t",
        "EXPLAIN FROM t",
        "EXPLAIN ANALYZE FROM t",
        "VALUES (1)",
        "SHOW TABLES",
        "DESCRIBE t",
    ] {
        assert!(one(sql).facts.is_plainly_read(), "{sql}");
    }
    for sql in [
        "INSERT INTO t VALUES (1)",
        "WITH x AS (DELETE FROM t RETURNING i) FROM x",
        "CREATE TABLE t (i INT)",
        "COPY t TO 'x'",
        "BEGIN",
        "SET TimeZone = 'UTC'",
        "PRAGMA version",
        "CALL f()",
        "EXPLAIN ANALYZE DELETE FROM t",
        "PREPARE p AS FROM t",
        "ATTACH 'x'",
        "CHECKPOINT",
        "VACUUM",
        "WITH x AS (COPY (FROM t) TO 'y') FROM x",
    ] {
        assert!(!one(sql).facts.is_plainly_read(), "{sql}");
    }
}

#[test]
fn details_are_told() {
    let set = one("SET GLOBAL Threads = 4").facts.settings.remove(0);
    assert_eq!(
        (set.name.as_str(), set.scope, set.reset),
        ("threads", SettingScope::Global, false)
    );
    let reset = one("RESET SESSION TimeZone").facts.settings.remove(0);
    assert_eq!(
        (reset.name.as_str(), reset.scope, reset.reset),
        ("timezone", SettingScope::Session, true)
    );
    assert_eq!(one("USE x").facts.settings[0].name, "schema");
    let copy = one("COPY t TO 'a.parquet' (FORMAT Parquet)")
        .facts
        .copies
        .remove(0);
    assert_eq!(
        (copy.from, copy.path.as_deref(), copy.format.as_str()),
        (false, Some("a.parquet"), "parquet")
    );
    assert_eq!(
        one("COPY t TO (getvariable('x'))").facts.copies[0].path,
        None
    );
    assert_eq!(
        one("BEGIN TRANSACTION READ ONLY")
            .facts
            .transaction
            .as_deref(),
        Some("BEGIN")
    );
    assert_eq!(one("ABORT").facts.transaction.as_deref(), Some("ROLLBACK"));
    assert_eq!(one("DROP SECRET s").facts.entries, [EntryKind::Secret]);
    assert_eq!(
        one("DEALLOCATE p").facts.prepared_name.as_deref(),
        Some("p")
    );
    assert_eq!(one("SELECT $b, $a, $b").parameters, ["a", "b"]);
    assert!(one("CREATE TEMP TABLE t (i INT)").facts.temporary);
    assert!(one("VACUUM").facts.vacuums && !one("ANALYZE").facts.vacuums);
    assert_eq!(one("FROM a.b.c").facts.tables[0].catalog, "a");
    assert_eq!(
        one("CREATE SECRET s (TYPE s3)").facts.entries,
        [EntryKind::Secret]
    );
}

#[test]
fn statements_are_taken_apart() {
    let statements =
        parse("SELECT 1; -- a comment\n ; INSERT INTO t VALUES (';')").expect("parses");
    let kinds: Vec<StatementKind> = statements.iter().map(|statement| statement.kind).collect();
    assert_eq!(kinds, [StatementKind::Select, StatementKind::Insert]);
    assert!(statements[1].sql.contains("';'"), "{:?}", statements[1].sql);
    assert!(parse(" -- nothing").expect("parses").is_empty());
    let error = parse("SELECT 1; SELEC 2").expect_err("a slip");
    assert_eq!((error.kind.as_str(), error.position), ("Parser", Some(10)));
}

#[test]
fn deep_nesting_is_an_error() {
    for sql in [
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}", "-".repeat(100_001) + "1"),
        format!("SELECT 1{}", " + 1".repeat(100_000)),
        format!("{} SELECT 1", "EXPLAIN ".repeat(10_000)),
        "SELECT ".repeat(10_000),
    ] {
        let _ = parse(&sql);
    }
}

fn garbage() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "SELECT",
        "FROM",
        "WITH",
        "AS",
        "(",
        ")",
        ",",
        ";",
        "*",
        "'",
        "\"",
        "$1",
        "?",
        "::",
        "[",
        "]",
        "{",
        "}",
        "INSERT INTO",
        "VALUES",
        "CREATE",
        "TABLE",
        "MACRO",
        "PIVOT",
        "ON",
        "COPY",
        "TO",
        "SET",
        "PRAGMA",
        "EXPLAIN",
        "lambda x:",
        "1e9",
        "NULL",
        "a.b.c.d",
        "\u{0}",
        "é",
        "/*",
        "--",
        "\n",
        "CASE",
        "END",
        "OVER",
        "EXECUTE",
        "USING",
        "1",
        "t",
        "f",
    ]);
    let any = prop_oneof![4 => words.prop_map(ToOwned::to_owned), 1 => any::<String>()];
    prop::collection::vec(any, 0..30).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_text_parses_or_is_an_error(sql in garbage()) {
        if let Err(error) = parse(&sql) {
            prop_assert!(!error.message.is_empty());
            prop_assert!(!error.kind.is_empty());
        }
    }
}
