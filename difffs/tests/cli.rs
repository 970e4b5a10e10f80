//! The `openduck-fs` command as its callers see it: exit status, stdout, stderr. Everything here
//! runs the real program against a home of its own, and nothing needs a mount.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use layerd::frozen::FileKind;
use layerd::id::FileId;
use layerd::store::{Store, StoreConfig};
use layerd::writer::{NewFile, WriterOptions};
use rustix::fs::FlockOperation;
use serde_json::Value;
use tempfile::TempDir;

/// A home that goes away with its test, and nothing of the caller's environment in what runs.
struct Home {
    dir: TempDir,
}

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        Ran {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// It failed as every failure must look: this status, nothing on stdout, one line on stderr.
    #[track_caller]
    fn refused(&self, status: i32) -> &str {
        assert_eq!(
            self.status,
            Some(status),
            "stdout {:?}, stderr {:?}",
            self.stdout,
            self.stderr
        );
        assert_eq!(self.stdout, "");
        assert!(self.stderr.starts_with("openduck-fs: "), "{}", self.stderr);
        assert_eq!(self.stderr.matches('\n').count(), 1, "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        &self.stderr
    }
}

fn openduck_fs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openduck-fs"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    command
}

impl Home {
    fn new() -> Home {
        Home {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = openduck_fs();
        command
            .env("OPENDUCK_HOME", self.path())
            .args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().expect("it runs"))
    }

    /// Runs a command that must succeed, and returns its text.
    #[track_caller]
    fn text(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.status, Some(0), "{line}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs a command that must succeed, and returns its one document.
    #[track_caller]
    fn json(&self, line: &str) -> Value {
        let text = self.text(&format!("--json {line}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error} in {text:?}"))
    }

    /// Commits as a mount would: `pages` pages of 4 KiB full of `byte` in the database's file, in
    /// one commit each.
    fn commit(&self, database: &str, pages: std::ops::Range<u64>, byte: u8) {
        let store = Store::open(&StoreConfig::of_home(self.path())).expect("the home opens");
        let writer = store
            .open_writer(&database.parse().expect("a name"), WriterOptions::default())
            .expect("a writer");
        let name = format!("{database}.duckdb");
        let new = NewFile {
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        let file = match writer.lookup(FileId::ROOT, name.as_bytes()) {
            Ok(attr) => attr.file,
            Err(_) => {
                writer
                    .create(FileId::ROOT, name.as_bytes(), new)
                    .expect("a file")
                    .file
            }
        };
        for page in pages {
            writer
                .write(file, page * 4096, &[byte; 4096])
                .expect("a write");
            writer.sync().expect("a commit");
        }
        writer.close().expect("a close");
    }

    /// A home with `mydb`, which has three commits and two snapshots: `first` on the first one,
    /// and one without a name on the last.
    fn with_history() -> Home {
        let home = Home::new();
        home.text("create mydb");
        home.commit("mydb", 0..1, 1);
        home.text("snapshot mydb first");
        home.commit("mydb", 1..3, 2);
        home.text("snapshot mydb");
        home
    }
}

#[test]
fn list_log_and_snapshot_documents_have_their_keys() {
    let home = Home::new();
    assert_eq!(home.json("list"), serde_json::json!({"databases": []}));
    assert_eq!(home.json("status"), serde_json::json!({"mounts": []}));
    assert_eq!(home.json("create mydb")["database"]["name"], "mydb");
    home.commit("mydb", 0..1, 1);

    let taken = home.json("snapshot mydb first");
    assert!(
        taken["snapshot"]["id"]
            .as_str()
            .unwrap()
            .starts_with("snap-")
    );
    assert_eq!(taken["snapshot"]["name"], "first");
    assert_eq!(taken["snapshot"]["lsn"], 1);
    home.commit("mydb", 1..3, 2);
    let unnamed = home.json("snapshot mydb");
    assert_eq!(unnamed["snapshot"]["name"], Value::Null);
    assert_eq!(unnamed["snapshot"]["lsn"], 3);

    let log = home.json("log mydb --commits");
    let snapshots = log["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 2, "{log}");
    assert_eq!(snapshots[0]["id"], taken["snapshot"]["id"], "oldest first");
    assert_eq!(snapshots[1]["name"], Value::Null);
    assert_eq!(
        (&snapshots[0]["lsn"], &snapshots[1]["lsn"]),
        (&1.into(), &3.into())
    );
    assert!(snapshots[0]["time"].as_str().unwrap().ends_with('Z'));
    let added: Vec<u64> = snapshots
        .iter()
        .map(|s| s["added_bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(added, [4096, 8192]);
    let lsns: Vec<u64> = log["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["lsn"].as_u64().unwrap())
        .collect();
    assert_eq!(lsns, [1, 2, 3]);

    let list = home.json("list");
    let database = &list["databases"][0];
    assert_eq!(database["name"], "mydb");
    assert_eq!(database["head_lsn"], 3);
    assert!(database["bytes"].as_u64().unwrap() >= 3 * 4096, "{list}");
    assert!(database["created"].as_str().unwrap().ends_with('Z'));
    assert_eq!(home.json("log mydb").get("commits"), None);
}

#[test]
fn every_form_of_reference_finds_its_commit() {
    let home = Home::with_history();
    let log = home.json("log mydb --commits");
    let id = log["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let second = log["commits"][1]["time"].as_str().unwrap().to_owned();
    for (number, (reference, lsn)) in [
        ("first", 1),
        (id.as_str(), 1),
        ("lsn:2", 2),
        (second.as_str(), 2),
        ("latest", 3),
        ("2100-01-01 00:00", 3),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = home.command("--json clone");
        command.args([format!("mydb@{reference}"), format!("clone{number}")]);
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(ran.status, Some(0), "{reference}: {}", ran.stderr);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["snapshot"]["lsn"], lsn, "{reference}");
        let named = matches!(number, 0 | 1);
        assert_eq!(
            document["snapshot"]["id"] == id.as_str(),
            named,
            "{document}"
        );
        assert_eq!(document["snapshot"]["name"] == "first", named, "{document}");
    }
}

#[test]
fn unknown_references_are_refused_and_named() {
    let home = Home::with_history();
    for (reference, named) in [
        ("nosuch", "nosuch"),
        ("snap-0000000000000000", "snap-0000000000000000"),
        ("lsn:99", "99"),
        ("2001-01-01T00:00:00Z", "2001-01-01"),
    ] {
        for line in [
            format!("clone mydb@{reference} new"),
            format!("restore mydb@{reference}"),
            format!("show mydb@{reference}"),
        ] {
            let ran = home.run(&line);
            assert!(ran.refused(1).contains(named), "{line}: {}", ran.stderr);
        }
    }
    assert_eq!(home.json("list")["databases"].as_array().unwrap().len(), 1);
}

#[test]
fn restore_goes_on_counting_and_keeps_what_was_between() {
    let home = Home::with_history();
    let restored = home.json("restore mydb@first");
    assert_eq!(restored["snapshot"]["lsn"], 4);
    assert!(restored["snapshot"].as_object().unwrap().contains_key("id"));
    assert!(
        restored["snapshot"]
            .as_object()
            .unwrap()
            .contains_key("name")
    );
    assert_eq!(home.json("show mydb@lsn:3")["lsn"], 3);
    assert_eq!(home.json("list")["databases"][0]["head_lsn"], 4);
}

#[test]
fn show_draws_the_stack_without_colours_into_a_pipe() {
    let home = Home::with_history();
    home.text("clone mydb@lsn:2 branch");
    home.commit("branch", 5..6, 9);
    let picture = home.text("show branch");
    assert!(picture.starts_with("branch at lsn 3: "), "{picture}");
    assert!(picture.contains("of mydb"), "{picture}");
    assert!(picture.contains("cut after 2"), "{picture}");
    assert!(!picture.contains('\u{1b}'), "{picture}");
    let document = home.json("show branch");
    assert_eq!(
        document["layers"].as_array().unwrap().len(),
        3,
        "{document}"
    );
}

#[test]
fn removed_databases_come_back_until_they_expire() {
    let home = Home::with_history();
    home.text("remove mydb");
    assert!(home.run("log mydb").refused(1).contains("mydb"));
    let back = home.json("undrop mydb");
    assert_eq!(back["database"]["head_lsn"], 3);
    assert_eq!(
        home.json("log mydb")["snapshots"].as_array().unwrap().len(),
        2
    );
    assert!(home.run("undrop mydb").refused(1).contains("mydb"));
}

#[test]
fn snapshots_come_and_go_by_name_and_id() {
    let home = Home::with_history();
    assert!(
        home.run("snapshot mydb first")
            .refused(1)
            .contains("\"first\"")
    );
    let id = home.json("log mydb")["snapshots"][1]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    home.text(&format!("unsnapshot mydb {id}"));
    home.text("unsnapshot mydb first");
    assert_eq!(home.json("log mydb")["snapshots"], serde_json::json!([]));
    assert!(
        home.run("unsnapshot mydb first")
            .refused(1)
            .contains("first")
    );
}

#[test]
fn retention_is_set_and_shown() {
    let home = Home::with_history();
    for (given, seconds) in [("12h", 43_200), ("0", 0), ("30d", 2_592_000)] {
        assert_eq!(
            home.json(&format!("retention mydb {given}"))["retention_s"],
            seconds
        );
        assert_eq!(home.json("list")["databases"][0]["retention_s"], seconds);
    }
}

#[test]
fn files_go_in_and_come_out_bit_by_bit() {
    let home = Home::new();
    let (source, copy) = (
        home.path().join("plain.duckdb"),
        home.path().join("copy.duckdb"),
    );
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&source, &content).unwrap();
    fs::write(home.path().join("plain.duckdb.wal"), b"the log").unwrap();
    let imported = home.json(&format!("import {} mydb", source.display()));
    assert_eq!(imported["database"]["name"], "mydb");
    let exported = home.json(&format!("export mydb {}", copy.display()));
    assert_eq!(exported["files"].as_array().unwrap().len(), 2, "{exported}");
    assert!(fs::read(&copy).unwrap() == content, "the copy differs");
    assert_eq!(
        fs::read(home.path().join("copy.duckdb.wal")).unwrap(),
        b"the log"
    );
    let again = home.run(&format!("export mydb {}", copy.display()));
    assert!(again.refused(1).contains("copy.duckdb"));
    let missing = home.run("import /nowhere/x.duckdb other");
    assert!(missing.refused(1).contains("/nowhere/x.duckdb"));
    assert!(
        home.run(&format!("import {} mydb", source.display()))
            .refused(1)
            .contains("mydb")
    );
}

#[test]
fn a_file_that_its_writer_has_locked_is_not_imported() {
    let home = Home::new();
    let source = home.path().join("plain.duckdb");
    fs::write(&source, [7; 4096]).unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&source)
        .unwrap();
    // The kind of lock that DuckDB takes. It is this process's, so it is in the command's way.
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let ran = home.run(&format!("import {} mydb", source.display()));
    assert!(ran.refused(1).contains("plain.duckdb"));
    assert_eq!(
        home.json("list")["databases"],
        serde_json::json!([]),
        "nothing half-made stays"
    );
    drop(file);
    home.text(&format!("import {} mydb", source.display()));
}

#[test]
fn diff_tells_what_changed() {
    let home = Home::with_history();
    let diff = home.json("diff mydb@first mydb@latest");
    assert_eq!(diff["same"], false);
    assert_eq!(diff["files"][0]["path"], "mydb.duckdb");
    assert_eq!(diff["changed_bytes"], 8192);
    assert_eq!(home.json("diff mydb@lsn:3 mydb")["same"], true);
}

#[test]
fn damage_makes_verify_exit_with_1_and_say_where() {
    let home = Home::with_history();
    let good = home.json("verify --deep");
    assert_eq!(good["ok"], true);
    assert!(good["checked_bytes"].as_u64().unwrap() > 3 * 4096);
    assert_eq!(good["problems"], serde_json::json!([]));

    let layer = largest_file(&home.path().join("objects"));
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&layer).unwrap().permissions();
    #[allow(
        clippy::permissions_set_readonly_false,
        reason = "the file is ours, in a directory of ours"
    )]
    permissions.set_readonly(false);
    fs::set_permissions(&layer, permissions).unwrap();
    fs::write(&layer, bytes).unwrap();

    let ran = home.run("verify --deep --json");
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.starts_with("openduck-fs: "), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let problem = &report["problems"][0];
    let name = layer.file_name().unwrap().to_str().unwrap();
    let named = problem["layer"].as_str().unwrap();
    assert!(
        name.contains(named) || named.contains(name),
        "{report} about {name}"
    );
    assert!(
        problem["offset"].is_u64() && problem["what"].is_string(),
        "{report}"
    );
}

fn largest_file(directory: &Path) -> std::path::PathBuf {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            match entry.path().is_dir() {
                true => pending.push(entry.path()),
                false => files.push((entry.metadata().expect("a file").len(), entry.path())),
            }
        }
    }
    files.into_iter().max().expect("a layer").1
}

#[test]
fn compact_and_gc_give_back_what_nothing_keeps() {
    let home = Home::with_history();
    for byte in 3..8 {
        home.commit("mydb", 0..3, byte);
    }
    let before = home.json("list")["databases"][0]["bytes"].as_u64().unwrap();
    home.text("unsnapshot mydb first");
    home.text("retention mydb 0");
    let compacted = home.json("compact mydb");
    assert_eq!(compacted["database"], "mydb");
    assert!(
        compacted["layers_before"].as_u64().unwrap() > compacted["layers_after"].as_u64().unwrap(),
        "{compacted}"
    );
    let dry = home.json("gc --dry-run --grace 0s");
    assert_eq!(dry["dry_run"], true);
    let done = home.json("gc --grace 0s");
    for key in ["layers_deleted", "bytes_freed", "layers_kept"] {
        assert_eq!(dry[key], done[key], "{key}");
    }
    assert!(done["layers_deleted"].as_u64().unwrap() > 0, "{done}");
    let after = home.json("list")["databases"][0]["bytes"].as_u64().unwrap();
    assert!(after < before / 2, "{after} of {before} bytes are left");
    assert_eq!(home.json("gc --grace 0s")["layers_deleted"], 0);
    assert_eq!(home.json("verify --deep")["ok"], true);
}

#[test]
fn bad_names_are_refused_as_usage() {
    let home = Home::new();
    let long = "x".repeat(300);
    for name in [
        "",
        "a/b",
        "..",
        "../../etc",
        ".hidden",
        "a b",
        "a\nb",
        "a\u{1b}[2Jb",
        "-x",
        "ä",
        &long,
    ] {
        for command in ["create", "log", "remove", "snapshot"] {
            let ran = Ran::of(home.command(command).args(["--", name]).output().unwrap());
            assert!(ran.refused(2).contains("database name"), "{}", ran.stderr);
            assert!(ran.stderr.len() < 400, "{}", ran.stderr);
            assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
        }
    }
    for name in ["latest", "a/b", "2026-01-31", "lsn:1", "snap-1", &long] {
        let ran = Ran::of(
            home.command("snapshot mydb")
                .args(["--", name])
                .output()
                .unwrap(),
        );
        assert!(ran.refused(2).contains("snapshot name"), "{}", ran.stderr);
    }
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}

#[test]
fn command_lines_that_make_no_sense_exit_with_2() {
    let home = Home::new();
    for line in [
        "",
        "frobnicate",
        "create",
        "create a b",
        "restore mydb",
        "list --frob",
        "retention mydb soon",
        "gc --grace -1s",
        "mount mydb@a /tmp --follow",
        "completions tcsh",
    ] {
        home.run(line).refused(2);
    }
    let broken = OsString::from_vec(b"\xff\xfe".to_vec());
    for command in ["create", "import /tmp/x", "umount"] {
        let ran = Ran::of(home.command(command).arg(&broken).output().unwrap());
        assert!(ran.refused(2).contains("UTF-8"), "{}", ran.stderr);
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let home = Home::new();
    for line in [
        "--help",
        "--version",
        "help mount",
        "mount --help",
        "completions bash",
        "completions zsh",
        "completions fish",
    ] {
        assert!(!home.text(line).is_empty(), "{line}");
    }
}

#[test]
fn flags_beat_environment_and_environment_beats_the_file() {
    let home = Home::new();
    fs::write(
        home.path().join("openduck.toml"),
        "meta = 'sqlite:from-file.db'\nobjects = 'file:file-objects'\n",
    )
    .unwrap();
    let made = |name: &str| home.path().join(name).exists();
    home.text("create a");
    assert!(
        made("from-file.db") && made("file-objects"),
        "the file's paths stand on the home"
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let by_environment = home
        .command("create b")
        .env("OPENDUCK_META", "sqlite:from-env.db")
        .env("OPENDUCK_OBJECTS", "file:env-objects")
        .current_dir(elsewhere.path())
        .output();
    assert!(by_environment.unwrap().status.success());
    assert!(
        elsewhere.path().join("from-env.db").exists()
            && elsewhere.path().join("env-objects").exists(),
        "the environment's stand on the caller's directory"
    );

    let by_flag = home
        .command("--meta sqlite:from-flag.db --objects file:flag-objects create c")
        .env("OPENDUCK_META", "sqlite:unused.db")
        .current_dir(elsewhere.path())
        .output();
    assert!(by_flag.unwrap().status.success());
    assert!(elsewhere.path().join("from-flag.db").exists());
    assert!(!elsewhere.path().join("unused.db").exists());

    let mixed = home
        .command("--meta sqlite:from-flag.db list")
        .env("OPENDUCK_OBJECTS", "file:env-objects")
        .current_dir(elsewhere.path())
        .output();
    assert!(
        !mixed.unwrap().status.success(),
        "layers belong to one catalog"
    );

    let names = |ran: Value| {
        ran["databases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(home.json("list")),
        ["a"],
        "each catalog knows its own"
    );

    let other = Home::new();
    let flagged = home
        .command("--json create d")
        .arg("--home")
        .arg(other.path())
        .output();
    assert!(flagged.unwrap().status.success());
    assert_eq!(
        names(other.json("list")),
        ["d"],
        "--home beats OPENDUCK_HOME"
    );
}

#[test]
fn a_configuration_file_that_makes_no_sense_is_named() {
    let home = Home::new();
    for wrong in ["mta = 'x'", "meta = 7", "meta = 'sqlite:", "\u{0}"] {
        fs::write(home.path().join("openduck.toml"), wrong).unwrap();
        assert!(
            home.run("list").refused(1).contains("openduck.toml"),
            "{wrong:?}"
        );
    }
    fs::write(home.path().join("openduck.toml"), [0xff, 0xfe]).unwrap();
    assert!(home.run("list").refused(1).contains("openduck.toml"));
}

#[test]
fn stores_of_other_kinds_are_refused_by_name() {
    let home = Home::new();
    assert!(
        home.run("--meta mysql://x list")
            .refused(1)
            .contains("mysql://x")
    );
    assert!(
        home.run("--objects ftp://x list")
            .refused(1)
            .contains("ftp://x")
    );
}

#[test]
fn a_home_that_can_not_be_is_named() {
    let home = Home::new();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    for place in [file.to_str().unwrap(), "/proc/none"] {
        let ran = Ran::of(
            openduck_fs()
                .args(["--home", place, "list"])
                .output()
                .unwrap(),
        );
        assert!(ran.refused(1).contains(place), "{}", ran.stderr);
    }
    let homeless = Ran::of(openduck_fs().arg("list").output().unwrap());
    assert!(homeless.refused(1).contains("--home"));
}

#[test]
fn mount_points_that_can_not_be_are_named_and_make_no_database() {
    let home = Home::new();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let missing = place.path().join("missing");
    for (dir, why) in [
        (file.to_str().unwrap(), "not a directory"),
        (place.path().to_str().unwrap(), "not empty"),
        (missing.to_str().unwrap(), "does not exist"),
        ("/proc", "not empty"),
    ] {
        let ran = home.run(&format!("mount mydb {dir}"));
        assert!(ran.refused(1).contains(why), "{dir}: {}", ran.stderr);
        assert!(ran.stderr.contains(dir), "{}", ran.stderr);
    }
    for dir in [
        place.path().to_str().unwrap(),
        missing.to_str().unwrap(),
        "/proc",
    ] {
        let ran = home.run(&format!("umount {dir}"));
        assert!(ran.refused(1).contains(dir), "{}", ran.stderr);
    }
    assert_eq!(home.json("list")["databases"], serde_json::json!([]));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::with_history();
    for line in [
        "list",
        "log mydb --commits",
        "--json log mydb",
        "completions bash",
        "--help",
    ] {
        let mut child = home
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let status = child.wait().unwrap();
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{line}");
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(home.command("list").stdout(full).output().unwrap());
    assert!(ran.refused(1).contains("stdout"));
}

#[test]
fn commands_at_the_same_time_do_not_hurt_each_other() {
    const EACH: usize = 6;
    let home = Home::with_history();
    let all = |line: &(dyn Fn(usize) -> String + Sync)| -> Vec<Ran> {
        thread::scope(|scope| {
            let home = &home;
            let running: Vec<_> = (0..EACH)
                .map(|n| scope.spawn(move || home.run(&line(n))))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    };
    for line in [
        &(|n| format!("create db{n}")) as &(dyn Fn(usize) -> String + Sync),
        &|n| format!("snapshot mydb s{n}"),
        &|n| format!("clone mydb@first clone{n}"),
        &|n| {
            if n % 2 == 0 {
                "list".to_owned()
            } else {
                format!("log db{n}")
            }
        },
    ] {
        for ran in all(line) {
            assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        }
    }
    let created: Vec<Ran> = all(&|_| "create same".to_owned());
    assert_eq!(
        created.iter().filter(|ran| ran.status == Some(0)).count(),
        1,
        "one wins"
    );
    for loser in created.iter().filter(|ran| ran.status != Some(0)) {
        assert!(loser.refused(1).contains("exists already"));
    }
    assert_eq!(
        home.json("list")["databases"].as_array().unwrap().len(),
        2 + 2 * EACH
    );
    assert_eq!(
        home.json("log mydb")["snapshots"].as_array().unwrap().len(),
        2 + EACH
    );
}

#[test]
fn commands_at_the_same_time_may_make_the_home() {
    let home = Home::new();
    let runs: Vec<Ran> = thread::scope(|scope| {
        let home = &home;
        let running: Vec<_> = (0..6)
            .map(|n| scope.spawn(move || home.run(&format!("create db{n}"))))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for ran in runs {
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    }
    assert_eq!(home.json("list")["databases"].as_array().unwrap().len(), 6);
}

/// Runs a command where its home is on a read-only disk: a bind mount in a mount namespace that
/// ends with the command.
fn run_read_only(home: &Home, line: &str) -> Ran {
    let script = format!(
        "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec {1} {line}",
        home.path().display(),
        env!("CARGO_BIN_EXE_openduck-fs"),
    );
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
        .args(["--mount", "sh", "-c", &script])
        .env("OPENDUCK_HOME", home.path());
    Ran::of(
        command
            .output()
            .expect("unshare (Debian package util-linux) runs"),
    )
}

#[test]
fn a_read_only_home_can_be_read_and_says_so_when_written() {
    let home = Home::with_history();
    for line in [
        "list",
        "log mydb --commits",
        "show mydb@first",
        "status",
        "verify --deep",
        "diff mydb@first mydb",
    ] {
        let ran = run_read_only(&home, line);
        assert_eq!(ran.status, Some(0), "{line}: {}", ran.stderr);
        assert!(!ran.stdout.is_empty(), "{line}");
    }
    for line in [
        "create new",
        "snapshot mydb s",
        "clone mydb new",
        "restore mydb@first",
        "remove mydb",
        "gc --grace 0s",
    ] {
        let ran = run_read_only(&home, line);
        let said = ran.refused(1).to_lowercase();
        assert!(
            said.contains("read-only") || said.contains("readonly"),
            "{line}: {said}"
        );
    }
    assert_eq!(home.json("list")["databases"].as_array().unwrap().len(), 1);
}
