//! PostgreSQL servers for tests, and stores on them.
//!
//! A server lives in a directory of its own, on a free port of the loopback. Beside it waits a
//! shell at the end of a pipe: when the test process ends, however it does, the pipe closes, and
//! the shell stops the server and removes the directory.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A name and a password with all that makes trouble in a URL, and both as they stand there.
pub const USER: &str = "duck:y";
pub const PASSWORD: &str = "p@ss/w:rd?=&se%cret";
pub const USER_IN_URL: &str = "duck%3Ay";
pub const PASSWORD_IN_URL: &str = "p%40ss%2Fw%3Ard%3F%3D%26se%25cret";

/// A server that is stopped when this is dropped.
pub struct Server {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
    /// The server's user, where we are root, who must not be it.
    user: Option<(u32, u32)>,
    keeper: Option<Child>,
}

impl Server {
    /// Starts a server.
    pub fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let user = server_user();
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut server = Server {
            programs: programs(),
            directory,
            port: 0,
            user,
            keeper: None,
        };
        server.initialize();
        server.keep();
        server.port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        server.resume();
        server
    }

    /// Its URL, up to the options.
    pub fn address(&self) -> String {
        self.address_at(self.port)
    }

    /// The same behind another port.
    pub fn address_at(&self, port: u16) -> String {
        format!("postgres://{USER_IN_URL}:{PASSWORD_IN_URL}@127.0.0.1:{port}/postgres")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.crt")
    }

    /// Stops it: `fast` as an administrator would, `immediate` as a crash.
    pub fn stop(&self, how: &str) {
        self.control(&["-m", how, "-w", "stop"]);
    }

    /// Starts it again.
    pub fn resume(&self) {
        self.resume_with("");
    }

    /// Starts it again, with other settings.
    pub fn resume_with(&self, settings: &str) {
        let options = format!("-p {} {settings}", self.port);
        self.control(&["-o", &options, "-w", "-t", "60", "start"]);
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn control(&self, arguments: &[&str]) {
        let log = self.directory.path().join("log");
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).arg("-l").arg(&log);
        let done = command.args(arguments).stdout(Stdio::null()).status();
        assert!(
            done.unwrap().success(),
            "pg_ctl {arguments:?}: {}",
            fs::read_to_string(log).unwrap_or_default()
        );
    }

    fn initialize(&self) {
        let password = self.directory.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let made = run(self
            .command("initdb")
            .arg("-D")
            .arg(self.data())
            .arg(format!("--username={USER}"))
            .arg(format!("--pwfile={}", password.display()))
            .args([
                "--auth=scram-sha-256",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ]));
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        self.make_certificates();
        let mut settings = File::options()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .unwrap();
        let directory = self.directory.path().display();
        writeln!(
            settings,
            "listen_addresses = '127.0.0.1'
             unix_socket_directories = '{directory}'
             max_connections = 400
             fsync = off
             ssl = on
             ssl_cert_file = '{directory}/server.crt'
             ssl_key_file = '{directory}/server.key'"
        )
        .unwrap();
    }

    /// An authority, and a certificate by it for the name `localhost`.
    fn make_certificates(&self) {
        let script = "
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                -subj /CN=authority -keyout authority.key -out authority.crt
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                -subj /CN=server -keyout server.key -out server.csr
            echo subjectAltName=DNS:localhost > names
            openssl x509 -req -in server.csr -CA authority.crt -CAkey authority.key \
                -CAcreateserial -days 2 -extfile names -out server.crt
            chmod 600 server.key";
        let mut shell = Command::new("sh");
        self.as_server_user(&mut shell);
        let made = run(shell
            .args(["-e", "-c", script])
            .current_dir(self.directory.path()));
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    /// Starts what stops the server when we are gone.
    fn keep(&mut self) {
        let script = "cat; \"$1\" -D \"$2/data\" -m immediate stop; rm -rf \"$2\"";
        let mut shell = Command::new("sh");
        self.as_server_user(&mut shell);
        let keeper = shell
            .args(["-c", script, "keeper"])
            .arg(self.programs.join("pg_ctl"))
            .arg(self.directory.path())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.keeper = Some(keeper.unwrap());
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.directory.path());
        self.as_server_user(&mut command);
        command
    }

    fn as_server_user(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Where PostgreSQL's programs are: Debian keeps them out of the search path.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(debian)
        .filter(|directory| directory.join("initdb").exists())
        .max();
    found.expect(
        "PostgreSQL is not installed: run scripts/setup (or name a server in \
         OPENDUCK_TEST_POSTGRES, for the tests that do not restart it)",
    )
}

/// PostgreSQL does not run as root: its own user's numbers, if we are.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == "postgres")
        .expect("PostgreSQL's user is missing: run scripts/setup");
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// The server that tests share.
fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

/// The address of the server that tests share.
pub fn shared_address() -> String {
    static GIVEN: OnceLock<Option<String>> = OnceLock::new();
    let given = GIVEN.get_or_init(|| std::env::var("OPENDUCK_TEST_POSTGRES").ok());
    match given {
        Some(url) => url.clone(),
        None => shared().address(),
    }
}

/// A store of its own on a server; gone when this is dropped.
pub struct Store {
    address: String,
    schema: String,
}

impl Store {
    /// A store on the shared server.
    pub fn new() -> Store {
        Store::at(shared_address())
    }

    /// A store on the server at an address.
    pub fn at(address: String) -> Store {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("test_{}_{number}", std::process::id());
        Store { address, schema }
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub fn url(&self) -> String {
        self.url_at(&self.address)
    }

    /// The same store behind another address.
    pub fn url_at(&self, address: &str) -> String {
        let joint = if address.contains('?') { '&' } else { '?' };
        format!("{address}{joint}schema={}", self.schema)
    }

    /// Runs statements beside the catalog, with the store's tables at hand.
    pub fn run(&self, sql: &str) {
        with_client(&self.address, async |client| {
            let script = format!("SET search_path = \"{}\"; {sql}", self.schema);
            client.batch_execute(&script).await.unwrap();
        });
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run(&format!(
                "DROP SCHEMA IF EXISTS \"{}\" CASCADE",
                self.schema
            ));
        }
    }
}

/// Does something with a plain connection.
pub fn with_client<T>(address: &str, work: impl AsyncFnOnce(&Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
        let driven = tokio::spawn(connection);
        let done = work(&client).await;
        drop(client);
        driven.await.unwrap().unwrap();
        done
    })
}

/// A file that goes with its directory.
pub fn file_with(directory: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    path
}
