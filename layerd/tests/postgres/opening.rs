//! Opening: made where it is missing, refused where it is something else.

use std::sync::Barrier;
use std::thread;

use layerd::catalog::{self, CatalogError, Result};

use super::server::with_client;
use super::*;

fn open(store: &Store) -> Result<PostgresCatalog> {
    PostgresCatalog::open(&store.url())
}

fn assert_corrupt(store: &Store, about: &str) {
    match open(store).map(drop) {
        Err(CatalogError::Corrupt { catalog, reason }) => {
            assert!(reason.contains(about), "{reason}");
            assert!(catalog.ends_with(&format!("?schema={}", store.schema())));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let store = Store::new();
    create(&open(&store).unwrap(), "a");
    assert_eq!(names(&open(&store).unwrap()), ["a"]);
    let by_url = catalog::open(&store.url()).unwrap();
    assert_eq!(names(&*by_url), ["a"]);
}

#[test]
fn stores_in_one_database_are_apart() {
    let (one, other) = (Store::new(), Store::new());
    create(&open(&one).unwrap(), "a");
    assert_eq!(names(&open(&other).unwrap()), [""; 0]);
    create(&open(&other).unwrap(), "a");
}

#[test]
fn many_open_a_new_store_at_one_moment() {
    const THREADS: usize = 6;
    for _ in 0..3 {
        let store = Store::new();
        let ready = Barrier::new(THREADS);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (store, ready) = (&store, &ready);
                scope.spawn(move || {
                    ready.wait();
                    create(&open(store).unwrap(), &format!("a{number}"));
                });
            }
        });
        assert_eq!(names(&open(&store).unwrap()).len(), THREADS);
    }
}

#[test]
fn a_newer_version_is_refused() {
    let store = Store::new();
    open(&store).unwrap();
    store.run("UPDATE catalog_version SET version = 99");
    assert_corrupt(&store, "its version is 99");
}

#[test]
fn another_programs_schema_is_refused_and_left_alone() {
    let store = Store::new();
    let schema = store.schema();
    store.run(&format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.theirs (x INT)"
    ));
    assert_corrupt(&store, "tables of another program");
    store.run(
        "SELECT * FROM theirs; DO $$ BEGIN
        ASSERT (SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()) = 1;
    END $$",
    );
}

#[test]
fn who_may_only_change_rows_can_use_a_store_that_is_there() {
    let store = Store::new();
    create(&open(&store).unwrap(), "a");
    let (schema, role) = (store.schema(), format!("role_{}", store.schema()));
    store.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x';
         GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"
    ));
    let (_, place) = server::shared_address()
        .split_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let url = store.url_at(&format!("postgres://{role}:x@{place}"));
    let catalog = PostgresCatalog::open(&url).unwrap();
    let written = Written::new(&catalog, "b");
    written.publish(&catalog, 1).unwrap();
    assert_eq!(names(&catalog), ["a", "b"]);
    drop(catalog);
    store.run(&format!("DROP OWNED BY {role}; DROP ROLE {role};"));
}

#[test]
fn an_empty_schema_that_was_made_for_us_is_taken() {
    let store = Store::new();
    store.run(&format!("CREATE SCHEMA {}", store.schema()));
    create(&open(&store).unwrap(), "a");
}

#[test]
fn names_of_schemas_and_modes_are_checked() {
    let address = "postgres://u:secret@127.0.0.1/d";
    for (option, about) in [
        ("schema=Big", "schema"),
        ("schema=a%22b", "schema"),
        ("schema=pg_x", "schema"),
        ("schema=1a", "schema"),
        (&format!("schema={}", "a".repeat(51)), "schema"),
        ("sslmode=full", "sslmode"),
        (
            "sslrootcert=/nowhere/x.crt&sslmode=verify-full",
            "/nowhere/x.crt",
        ),
    ] {
        match PostgresCatalog::open(&format!("{address}?{option}")).map(drop) {
            Err(CatalogError::Unavailable { reason, .. }) => {
                assert!(reason.contains(about), "{reason}");
            }
            other => panic!("{option}: {other:?}"),
        }
    }
}

#[test]
fn the_servers_clock_is_the_clock() {
    let store = Store::new();
    let catalog = open(&store).unwrap();
    let server_now = || {
        with_client(&server::shared_address(), async |client| {
            let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            let row = client.query_one(sql, &[]).await.unwrap();
            Timestamp(row.get::<_, i64>(0) * 1000)
        })
    };
    let before = server_now();
    let now = catalog.now().unwrap();
    let created = create(&catalog, "a").created;
    assert!(before <= now && now <= created && created <= server_now());
}

#[test]
fn an_old_servers_values_that_make_no_sense_are_refused() {
    let store = Store::new();
    let catalog = open(&store).unwrap();
    create(&catalog, "a");
    store.run("UPDATE databases SET name = '../a'");
    assert!(matches!(
        catalog.databases(),
        Err(CatalogError::Corrupt { .. })
    ));
    store.run("DROP TABLE pin_layers");
    assert!(matches!(
        catalog.inventory(),
        Err(CatalogError::Corrupt { .. })
    ));
}

#[test]
fn a_catalog_works_in_a_task_of_another_runtime() {
    let store = Store::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let url = store.url();
    let found = runtime.block_on(async {
        let task = tokio::spawn(async move {
            let catalog = PostgresCatalog::open(&url).unwrap();
            create(&catalog, "a");
            names(&catalog)
        });
        task.await.unwrap()
    });
    assert_eq!(found, ["a"]);
}
