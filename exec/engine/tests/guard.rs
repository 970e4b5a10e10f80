//! What a locked-down instance refuses. Each thing is first shown to work where the guard is off: a guard
//! against what can't happen proves nothing.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{config, error, file, number, open, run, texts};
use engine::admit::{Policy, admit};
use engine::{Connection, Instance, InstanceConfig, parse};

fn instance(path: &Path, locked_down: bool) -> Instance {
    open(&InstanceConfig {
        locked_down,
        ..file(path.to_owned())
    })
}

/// The parser's guard and the engine's, separately.
fn refused_by_the_text(sql: &str) -> bool {
    let statements = parse(sql).expect(sql);
    let error = statements
        .iter()
        .find_map(|s| admit(s, &Policy::default()).err());
    error.is_some_and(|error| error.kind == "Permission")
}

fn refused_by_the_engine(connection: &mut Connection, sql: &str) {
    let error = error(connection, sql);
    let kind = error.kind.as_str();
    assert!(
        matches!(kind, "Permission" | "Catalog" | "Invalid Input"),
        "{sql}: {error:?}"
    );
}

#[test]
fn what_reaches_the_host_is_refused_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let secret = at("secret.csv");
    std::fs::write(&secret, "a,b\n1,2\n").expect("writes");
    let (open_path, locked_path) = (
        folder.path().join("open.duckdb"),
        folder.path().join("locked.duckdb"),
    );
    let unlocked = instance(&open_path, false);
    let locked = instance(&locked_path, true);
    let mut free = unlocked.connect().expect("connects");
    let mut bound = locked.connect().expect("connects");
    run(&mut free, &["CREATE TABLE t AS SELECT 1 AS i, 'x' AS e"]);
    run(&mut bound, &["CREATE TABLE t AS SELECT 1 AS i, 'x' AS e"]);
    let works = [
        format!("FROM read_csv('{secret}')"),
        format!("FROM read_text('{secret}')"),
        format!("FROM read_blob('{secret}')"),
        format!("FROM glob('{}')", at("*")),
        format!("FROM sniff_csv('{secret}')"),
        format!("SELECT (SELECT content FROM read_text('{secret}'))"),
        format!("WITH c AS (FROM read_csv('{secret}')) FROM c"),
        format!("COPY t TO '{}'", at("out.csv")),
        format!("COPY (FROM t) TO '{}' (FORMAT parquet)", at("out.parquet")),
        format!("EXPORT DATABASE '{}'", at("out")),
        format!("ATTACH '{}' AS other", at("other.duckdb")),
        "DETACH other".to_owned(),
        "FROM duckdb_settings()".to_owned(),
        "FROM duckdb_extensions()".to_owned(),
        "FROM duckdb_temporary_files()".to_owned(),
        "FROM duckdb_secrets()".to_owned(),
        "SELECT current_setting('temp_directory')".to_owned(),
        "SELECT sleep_ms(1)".to_owned(),
        "CHECKPOINT".to_owned(),
        "FORCE CHECKPOINT".to_owned(),
        "CALL enable_logging()".to_owned(),
        "SET GLOBAL default_order = 'DESC'".to_owned(),
        "SET threads = 1".to_owned(),
        "SET memory_limit = '1GB'".to_owned(),
        format!("SET temp_directory = '{}'", at("spill")),
        "PRAGMA enable_verification".to_owned(),
        "PRAGMA disable_verification".to_owned(),
        "PRAGMA disable_checkpoint_on_shutdown".to_owned(),
        "LOAD icu".to_owned(),
    ];
    for sql in works {
        run(&mut free, &[&sql]);
        assert!(refused_by_the_text(&sql), "{sql} passed the parser's guard");
        if !sql.starts_with("SET GLOBAL default") {
            refused_by_the_engine(&mut bound, &sql);
        }
    }
    for sql in [
        "INSTALL httpfs",
        "CREATE SECRET s (TYPE s3)",
        "UPDATE EXTENSIONS",
        "COPY FROM DATABASE a TO b",
        "CREATE EXTENSION REPOSITORY r WITH PREFIX 'http://127.0.0.1/' USING PUBLIC KEY 'x'",
        "VACUUM",
    ] {
        assert!(refused_by_the_text(sql), "{sql} passed the parser's guard");
    }
    assert_eq!(number(&mut bound, "SELECT count(*) FROM t"), 1);
}

#[test]
fn the_database_itself_can_be_neither_read_nor_overwritten_as_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |name: &str, locked_down: bool, sqls: &dyn Fn(&str) -> Vec<String>| {
        let path = folder.path().join(name);
        let instance = instance(&path, locked_down);
        let mut connection = instance.connect().expect("connects");
        run(&mut connection, &["CREATE TABLE t AS FROM range(10)"]);
        for sql in sqls(&path.display().to_string()) {
            let outcome = connection.run(&sql);
            assert_eq!(outcome.is_err(), locked_down, "{sql}: {outcome:?}");
        }
    };
    // DuckDB's own switches are not enough: the main database's path stays open to SQL.
    let path = folder.path().join("switches.duckdb");
    {
        let unlocked = instance(&path, false);
        let mut connection = unlocked.connect().expect("connects");
        run(
            &mut connection,
            &[
                "CREATE TABLE t AS FROM range(10)",
                "SET enable_external_access = false",
                "SET lock_configuration = true",
            ],
        );
        run(
            &mut connection,
            &[&format!(
                "SELECT content FROM read_blob('{}')",
                path.display()
            )],
        );
        assert_eq!(
            error(&mut connection, "FROM read_blob('/etc/passwd')").kind,
            "Permission"
        );
    }
    let reads = |path: &str| vec![format!("SELECT content FROM read_blob('{path}')")];
    check("read.duckdb", false, &reads);
    check("read-locked.duckdb", true, &reads);
    check("write.duckdb", true, &|path| {
        vec![
            format!("COPY t TO '{path}'"),
            format!("COPY t TO '{path}.wal'"),
        ]
    });
}

#[test]
fn no_path_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("d.duckdb");
    let shows = "SELECT path FROM duckdb_databases() WHERE database_name = 'd'";
    let text = path.display().to_string();
    {
        let unlocked = instance(&path, false);
        assert_eq!(
            texts(&mut unlocked.connect().expect("connects"), shows),
            std::slice::from_ref(&text)
        );
    }
    let locked = instance(&path, true);
    let mut connection = locked.connect().expect("connects");
    assert_eq!(texts(&mut connection, shows), ["NULL"]);
    for sql in [
        "FROM duckdb_databases",
        "PRAGMA database_list",
        "SHOW DATABASES",
        "FROM pragma_database_list",
    ] {
        let rows = format!("{:?}", connection.run(sql).expect(sql));
        assert!(!rows.contains(&text), "{sql}: {rows}");
    }
}

#[test]
fn a_view_or_macro_of_the_file_brings_nothing_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("imported.duckdb");
    let secret = folder.path().join("secret.csv");
    std::fs::write(&secret, "a,b\n1,2\n").expect("writes");
    let secret = secret.display();
    let uses = [
        "FROM v",
        "FROM own",
        "FROM m()",
        "SELECT s('temp_directory')",
        "SELECT list_transform([1], lambda x: s('temp_directory'))",
        "FROM settings",
        "INSERT INTO d (i) VALUES (1)",
        "SELECT g FROM gen",
        "INSERT INTO watched VALUES (1)",
        "FROM states",
        "FROM chosen",
        "FROM windows",
    ];
    {
        let unlocked = instance(&path, false);
        let mut connection = unlocked.connect().expect("connects");
        run(
            &mut connection,
            &[
                &format!("CREATE VIEW v AS FROM read_csv('{secret}')"),
                &format!("CREATE VIEW own AS FROM read_blob('{}')", path.display()),
                &format!("CREATE MACRO m() AS TABLE FROM read_text('{secret}')"),
                "CREATE MACRO s(x) AS current_setting(x)",
                "CREATE VIEW settings AS FROM duckdb_settings()",
                "CREATE TABLE d (i INTEGER, x VARCHAR DEFAULT current_setting('temp_directory'))",
                "CREATE TABLE gen (i INTEGER, g BOOLEAN AS (sleep_ms(0) IS NULL))",
                "CREATE TABLE watched (i INTEGER)",
                "CREATE TABLE noted (x VARCHAR)",
                // States of aggregates, which are believed.
                "CREATE TABLE kept AS SELECT sum(i) EXPORT_STATE AS s FROM range(3) r(i)",
                "CREATE VIEW states AS SELECT count(s) FROM (SELECT combine_aggr(s) AS s FROM kept)",
                "CREATE VIEW chosen AS SELECT 1 FROM kept WHERE abs(finalize(s)) > 0",
                "CREATE VIEW windows AS SELECT count(*) OVER (ORDER BY finalize(s)) FROM kept",
                &format!(
                    "CREATE TRIGGER tr AFTER INSERT ON watched FOR EACH STATEMENT INSERT INTO noted SELECT content FROM read_text('{secret}')"
                ),
            ],
        );
        for sql in uses {
            run(&mut connection, &[sql]);
        }
    }
    let locked = instance(&path, true);
    let mut connection = locked.connect().expect("connects");
    for sql in uses {
        assert!(!refused_by_the_text(sql), "{sql}: the text shows nothing");
        refused_by_the_engine(&mut connection, sql);
    }
}

#[test]
fn folders_that_the_operator_allows_are_open_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::create_dir_all(&inside).expect("makes");
    std::fs::create_dir_all(&outside).expect("makes");
    std::fs::write(outside.join("secret.csv"), "a\n1\n").expect("writes");
    std::os::unix::fs::symlink(&outside, inside.join("link")).expect("links");
    let policy = Policy {
        allowed_directories: vec![inside.clone()],
    };
    let instance = open(&InstanceConfig {
        locked_down: true,
        allowed_directories: policy.allowed_directories.clone(),
        ..file(folder.path().join("d.duckdb"))
    });
    let mut connection = instance.connect().expect("connects");
    run(&mut connection, &["CREATE TABLE t AS FROM range(10)"]);
    let copy = |path: &Path| format!("COPY t TO '{}'", path.display());
    let admitted = |sql: &str| admit(&parse(sql).expect(sql)[0], &policy).is_ok();
    let good = copy(&inside.join("t.csv"));
    assert!(admitted(&good));
    run(
        &mut connection,
        &[
            &good,
            &format!("FROM read_csv('{}')", inside.join("t.csv").display()),
        ],
    );
    for path in [
        outside.join("t.csv"),
        inside.join("../out/t.csv"),
        inside.join("link/t.csv"),
        folder.path().join("d.duckdb"),
        folder.path().join("d.duckdb.wal"),
        Path::new("t.csv").to_owned(),
        Path::new("s3://bucket/t.csv").to_owned(),
        Path::new("/dev/stdout").to_owned(),
    ] {
        assert!(!admitted(&copy(&path)), "{}", path.display());
    }
    assert!(!admitted("COPY t TO (getvariable('x'))"));
    refused_by_the_engine(&mut connection, &copy(&outside.join("t.csv")));
    refused_by_the_engine(
        &mut connection,
        &format!("FROM read_csv('{}')", outside.join("secret.csv").display()),
    );
}

#[test]
fn ordinary_sql_is_admitted() {
    let mut locked = config();
    locked.locked_down = true;
    let mut connection = open(&locked).connect().expect("connects");
    for sql in [
        "CREATE TABLE t (i INTEGER PRIMARY KEY, e VARCHAR, d DATE DEFAULT current_date, CHECK (i > 0))",
        "INSERT INTO t (i, e) VALUES (1, 'a'), (2, 'b') ON CONFLICT DO NOTHING",
        "INSERT INTO t (i, e) SELECT range + 10, 'x' FROM range(5000)",
        "UPDATE t SET e = upper(e) WHERE i = 1 RETURNING *",
        "MERGE INTO t USING (SELECT 1 AS i) s USING (i) WHEN MATCHED THEN UPDATE SET e = 'm'",
        "DELETE FROM t WHERE i = 2",
        "SELECT e, count(*), sum(i), list(i), median(i), quantile_cont(i, 0.5) FROM t GROUP BY ALL ORDER BY ALL",
        "SELECT sum(i) OVER (PARTITION BY e ORDER BY i ROWS 3 PRECEDING), lag(i) OVER (ORDER BY i) FROM t QUALIFY row_number() OVER () < 9",
        "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 5) FROM r",
        "SELECT list_transform([1, 2], lambda x: x + 1), [x * 2 FOR x IN [1, 2]], {'a': 1}.a, MAP {'k': 1}['k']",
        "SELECT 'abc' LIKE 'a%', regexp_matches('abc', 'b'), strftime(now(), '%Y'), date_trunc('month', current_date)",
        "SELECT a.i FROM t a ASOF JOIN t b ON a.i >= b.i",
        "SELECT i FROM t WHERE EXISTS (SELECT 1 FROM t u WHERE u.i = t.i + 1) ORDER BY i LIMIT 3",
        "PIVOT t ON e USING count(*)",
        // The optimizer makes one aggregate of another's states, and a plan that is copied names its scans.
        "CREATE TABLE g AS SELECT range::INTEGER AS i, 'x' || (range % 3) AS e FROM range(5000)",
        "SELECT e, i % 2, count(*), sum(i) FROM g GROUP BY ROLLUP (e, i % 2)",
        "SELECT a.i, sum(b.i) FROM g AS a, g AS b WHERE a.i IN (SELECT i FROM g GROUP BY i HAVING sum(i) > 100) AND a.i = b.i GROUP BY a.i",
        "WITH w AS (SELECT a.i AS x FROM g AS a, g AS b WHERE a.i = b.i AND a.e <> b.e) SELECT count(DISTINCT g.i), sum(g.i) FROM g WHERE g.e = 'x1' AND g.i IN (SELECT x FROM w) AND g.i IN (SELECT h.i FROM g AS h, w WHERE h.i = w.x)",
        "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
        "SUMMARIZE t",
        "DESCRIBE t",
        "SHOW TABLES",
        "EXPLAIN ANALYZE FROM t",
        "PRAGMA table_info('t')",
        "FROM information_schema.columns",
        "FROM duckdb_tables()",
        "FROM pg_catalog.pg_attribute",
        "CREATE VIEW v AS FROM t",
        "CREATE MACRO plus(x, y := 1) AS x + y",
        "SELECT plus(1)",
        "CREATE TYPE mood AS ENUM ('sad', 'glad')",
        "CREATE SEQUENCE s",
        "SELECT nextval('s')",
        "CREATE INDEX ix ON t (e)",
        "ALTER TABLE t ADD COLUMN z INTEGER",
        "CREATE TEMP TABLE tt AS FROM t",
        "SET TimeZone = 'Europe/Berlin'",
        "SET SESSION default_null_order = 'nulls_first'",
        "RESET TimeZone",
        "SET VARIABLE x = 1",
        "SELECT getvariable('x')",
        "BEGIN",
        "COMMIT",
        "PREPARE p AS SELECT $1 + 1",
        "EXECUTE p(1)",
        "DEALLOCATE p",
        "ANALYZE",
        "SELECT json_extract('{\"a\": 1}', '$.a'), to_json({'a': 1}), '[1]'::JSON",
        "FROM json_each('[1, 2]')",
        "SELECT * FROM t TABLESAMPLE 10%",
        "FROM query('SELECT 1')",
        "DROP TABLE t CASCADE",
    ] {
        for statement in parse(sql).expect(sql) {
            admit(&statement, &Policy::default()).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        run(&mut connection, &[sql]);
    }
}

#[test]
fn every_setting_of_the_list_is_a_setting() {
    let mut locked = config();
    locked.locked_down = true;
    let mut connection = open(&locked).connect().expect("connects");
    for name in engine::admit::SETTINGS {
        if !matches!(*name, "schema" | "search_path") {
            connection
                .reset_session(name)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn no_function_of_duckdb_is_overlooked() {
    let mut connection = open(&config()).connect().expect("connects");
    let mut names = |kinds: &str| -> BTreeSet<String> {
        let sql = format!(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ({kinds})"
        );
        texts(&mut connection, &sql).into_iter().collect()
    };
    let unlisted: Vec<String> = names("'table'")
        .into_iter()
        .filter(|name| engine::admit::is_listed("table_function", name).is_none())
        .chain(
            names("'scalar', 'aggregate', 'window'")
                .into_iter()
                .filter(|name| engine::admit::is_listed("function", name).is_none()),
        )
        .collect();
    assert_eq!(
        unlisted,
        Vec::<String>::new(),
        "neither admitted nor refused"
    );
}
