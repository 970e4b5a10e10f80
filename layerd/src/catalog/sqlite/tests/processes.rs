//! Processes of their own: this test program again, with one of the ignored tests below.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const FILE: &str = "CATALOG_TEST_FILE";

/// Starts a process that does what the ignored test `role` does, on the home's catalog.
fn start(home: &Home, role: &str) -> Child {
    let (_, module) = module_path!().split_once("::").unwrap();
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("{module}::{role}"),
            "--ignored",
            "--nocapture",
        ])
        .env(FILE, home.file())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn open_in_child() -> SqliteCatalog {
    let file = env::var_os(FILE).expect("only another test starts this one");
    SqliteCatalog::open(Path::new(&file)).unwrap()
}

#[test]
#[ignore = "the part of another process; run by processes_share_a_new_catalog"]
fn role_create() {
    let catalog = open_in_child();
    create(&catalog, &format!("own-{}", std::process::id())).unwrap();
    for round in 0..10 {
        match create(&catalog, &format!("shared-{round}")) {
            Ok(_) => println!("\nwon {round}"),
            Err(CatalogError::DatabaseExists(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn processes_share_a_new_catalog() {
    let home = Home::new();
    let children: Vec<Child> = (0..4).map(|_| start(&home, "role_create")).collect();
    let mut won = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        won.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("won "))
                .map(str::to_owned),
        );
    }
    won.sort_unstable();
    assert_eq!(
        won,
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "each name is won once"
    );
    assert_eq!(names(&home.open().unwrap()).len(), 14);
}

#[test]
#[ignore = "the part of another process; run by what_a_killed_process_was_told_is_there"]
fn role_clone_for_ever() {
    let catalog = open_in_child();
    let database = catalog.database(&"a".parse().unwrap()).unwrap();
    let base = Base {
        database: database.id,
        point: None,
    };
    for number in 0_u64.. {
        let called = format!("c{number}");
        catalog
            .create_database(&called.parse().unwrap(), 60, Some((base, Timestamp(0), 0)))
            .unwrap();
        println!("\ndone {called}");
    }
}

#[test]
fn what_a_killed_process_was_told_is_there() {
    let home = Home::new();
    create(&home.open().unwrap(), "a").unwrap();
    let mut told = vec!["a".to_owned()];
    for round in 0..3 {
        let mut child = start(&home, "role_clone_for_ever");
        let output = child.stdout.take().unwrap();
        let lines = BufReader::new(output)
            .lines()
            .map_while(std::io::Result::ok);
        let mut done = lines.filter_map(|line| line.strip_prefix("done ").map(str::to_owned));
        told.extend(done.by_ref().take(20 + 17 * round));
        child.kill().unwrap();
        told.extend(done);
        child.wait().unwrap();
        let catalog = home.open().unwrap();
        let found = names(&catalog);
        assert!(
            told.iter().all(|called| found.contains(called)),
            "round {round}"
        );
        assert!(
            found.len() <= told.len() + 1,
            "at most the call in flight is there beyond them"
        );
        for database in catalog
            .databases()
            .unwrap()
            .iter()
            .filter(|d| d.base.is_some())
        {
            catalog.drop_database(database.id).unwrap();
        }
        told.truncate(1);
    }
}
