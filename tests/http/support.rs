//! Shared helpers: a folder with a server that can be stopped, killed and restarted, and its HTTP client.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hallpass::server::{
    self,
    auth::Auth,
    client_info::ClientInfo,
    config::Config,
    db::{Access, Db},
};
use hallpass_allowlist::MemberKind;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    runtime,
    sync::oneshot,
    time::{self, Instant},
};

pub const PASSWORD: &str = "correct horse battery";
pub const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";
/// The key of another service, or of the same service after a change of keys.
pub const OTHER_KEY: [u8; 32] = *b"zyxwvutsrqponmlkjihgfedcba987654";

/// A client on this machine.
pub fn caller() -> ClientInfo {
    ClientInfo { address: [127, 0, 0, 1].into(), user_agent: "test".into() }
}

/// A browser: it keeps its cookies.
pub fn browser() -> Client {
    Client::builder().cookie_store(true).build().unwrap()
}

/// The time that tests pass to functions that take the time as an argument.
pub const NOW: i64 = 1_000_000;

/// The server's `Auth` without the HTTP server; the caller passes the time.
pub async fn auth(home: &Home, now: i64) -> Auth {
    let config = Config::load(&home.path().join("Leptos.toml")).unwrap();
    home.wait_until_unlocked().await;
    let db = Db::open(&config, Access::Exclusive).await.unwrap();
    Auth::load(&config, MemberKind::Instance, db, now).await.unwrap()
}

/// A folder with a settings file, a database and a site folder of its own.
pub struct Home {
    folder: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self::with("")
    }

    /// Creates a home with further settings: lines of TOML, in tables that the file does not have yet.
    pub fn with(settings: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().display();
        fs::create_dir_all(folder.path().join("site/pkg")).unwrap();
        fs::write(folder.path().join("site/pkg/hallpass.js"), "// nothing\n").unwrap();
        let password = if settings.contains("[password]") {
            ""
        } else {
            "[password]\nmemory_kib = 64\niterations = 1\nworkers = 2\nqueue = 100000\n"
        };
        let throttle = if settings.contains("[throttle]") {
            ""
        } else {
            "[throttle]\nper_account = 1000000\nper_address = 1000000\nper_device = 1000000\nrefreshes_per_session = 1000000\n"
        };
        let token = if settings.contains("[token]") {
            String::new()
        } else {
            format!("[token]\nsigning_key = \"{}\"\n", BASE64.encode(KEY))
        };
        // On a slow machine no request of a test must run into the timeout.
        let server =
            if settings.contains("[server]") { "" } else { "[server]\nrequest_timeout_seconds = 300\n" };
        let mail = if settings.contains("[mail]") {
            String::new()
        } else {
            format!("[mail]\ndir = \"{path}/mail\"\n")
        };
        let account =
            if settings.contains("[account]") { "" } else { "[account]\nadmin_second_factor = false\n" };
        let text = format!(
            "[package.metadata.leptos]\noutput-name = \"hallpass\"\nsite-root = \"{path}/site\"\nsite-addr = \"127.0.0.1:0\"\n\
             [database]\nurl = \"sqlite://{path}/data/hallpass.db\"\n{server}{password}{throttle}{token}{mail}{account}{settings}"
        );
        fs::write(folder.path().join("Leptos.toml"), text).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn database(&self) -> PathBuf {
        self.path().join("data/hallpass.db")
    }

    /// Waits until no process or task serves the database. A task of a dropped `Auth` or server may still hold it.
    pub async fn wait_until_unlocked(&self) {
        let lock = self.database().with_extension("db.lock");
        let is_locked = || File::open(&lock).is_ok_and(|lock| lock.try_lock().is_err());
        let deadline = Instant::now() + Duration::from_mins(1);
        while is_locked() && Instant::now() < deadline {
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the server in this process, with a runtime of its own: while a test waits for the command line, the server
    /// must not stop in the middle of a transaction.
    pub async fn start(&self) -> Server {
        let config = Config::load(&self.path().join("Leptos.toml")).unwrap();
        self.wait_until_unlocked().await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let stopped = async { drop(stopped.await) };
                server::serve(config, listener, stopped).await.unwrap();
            });
        });
        // A connection that the server closes after an error, such as 413, must not be used for the next request.
        let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let server = Server { url, client, stop, running };
        server.wait_until_ready().await;
        server
    }

    /// The command that runs `hallpass` in a process of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.arg("--config").arg(self.path().join("Leptos.toml")).current_dir(self.path());
        command
    }

    /// Adds an administrator with the command line. No server may run in this home at that time.
    pub fn add_administrator(&self, email: &str) {
        let (added, text) = run_with_input(self.command().args(["user", "add", email]), PASSWORD);
        assert!(added, "{text}");
        let (output, text) = run(self.command().args(["user", "role", email, "admin"]));
        assert!(output.status.success(), "{text}");
    }

    /// Adds a client with the command line, and returns its id and its secret. A server may run.
    pub fn add_client(&self, name: &str) -> (String, String) {
        self.add_client_with(&[name])
    }

    /// The id and secret of a new client that `hallpass client add` makes with these arguments.
    pub fn add_client_with(&self, arguments: &[&str]) -> (String, String) {
        let (output, text) = run(self.command().args(["client", "add"]).args(arguments));
        assert!(output.status.success(), "{text}");
        let text = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (line("client_id="), line("client_secret="))
    }

    /// Starts the server as a process of its own, in a shell that has lowered its limits with `ulimit`.
    pub fn spawn_limited(&self, ulimit: &str) -> Process {
        let program = self.command();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{ulimit} && exec \"$0\" \"$@\"")]).arg(program.get_program());
        shell.args(program.get_args()).current_dir(self.path());
        Process::start(&mut shell)
    }

    /// Starts the server as a process of its own.
    pub fn spawn(&self) -> Process {
        Process::start(&mut self.command())
    }
}

/// A server in this process.
pub struct Server {
    pub url: String,
    pub client: Client,
    stop: oneshot::Sender<()>,
    running: thread::JoinHandle<()>,
}

impl Server {
    /// Stops the server and waits until it has ended.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::task::spawn_blocking(|| self.running.join().unwrap()).await.unwrap();
    }

    async fn wait_until_ready(&self) {
        while self.client.get(format!("{}/health/ready", self.url)).send().await.is_err() {
            assert!(!self.running.is_finished(), "the server did not start");
            tokio::task::yield_now().await;
        }
    }
}

/// A server in a process of its own. It is killed when dropped.
pub struct Process {
    pub url: String,
    pub client: Client,
    child: Child,
    log: Mutex<mpsc::Receiver<String>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        // The pipe must be read all the time: a full pipe would block the server.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut process = Self { url: String::new(), client: Client::new(), child, log: Mutex::new(log) };
        let line = process.wait_for_log("Hallpass is running at ");
        process.url = line.rsplit(' ').next().unwrap().to_owned();
        process
    }

    /// Waits for the next line of the log that contains `words`.
    pub fn wait_for_log(&self, words: &str) -> String {
        let log = self.log.lock().unwrap();
        log.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words:?} in the log"))
    }

    /// The part of the log that has not been read yet, up to the end of the process.
    pub fn rest_of_log(&mut self) -> String {
        self.child.wait().unwrap();
        self.log.lock().unwrap().iter().collect::<Vec<_>>().join("\n")
    }

    /// Sends the process a signal, for example `KILL` or `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Kills the process (`kill -9`) and waits until it has ended.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end. Returns the output, and the text of stdout and stderr.
pub fn run(command: &mut Command) -> (Output, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

/// Runs a command to its end with `input` on stdin. Returns whether it succeeded, and its output.
pub fn run_with_input(command: &mut Command, input: &str) -> (bool, String) {
    use std::io::Write;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().success(), text)
}

/// The token pair of a session, as a program without a cookie jar receives it.
#[derive(Clone, Debug)]
pub struct Pair {
    pub access: String,
    pub refresh: String,
    pub session: String,
}

impl Pair {
    pub fn of(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{key} in {answer}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), session: text("session_id") }
    }
}

/// The calls of the API, for any kind of server.
pub trait Api {
    fn at(&self) -> (&Client, &str);

    fn post(&self, path: &str) -> RequestBuilder {
        let (client, url) = self.at();
        client.post(format!("{url}{path}"))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        let (client, url) = self.at();
        client.get(format!("{url}{path}"))
    }

    async fn register(&self, email: &str) -> Pair {
        let body = json!({ "email": email, "password": PASSWORD, "delivery": "body" });
        let (status, answer) = answer(self.post("/api/auth/register").json(&body)).await;
        assert_eq!(status, 200, "{answer}");
        Pair::of(&answer)
    }

    async fn login(&self, email: &str) -> Pair {
        let (status, answer) = answer(self.try_login(email, PASSWORD)).await;
        assert_eq!(status, 200, "{answer}");
        Pair::of(&answer)
    }

    fn try_login(&self, email: &str, password: &str) -> RequestBuilder {
        self.post("/api/auth/login")
            .json(&json!({ "email": email, "password": password, "delivery": "body" }))
    }

    fn me(&self, access: &str) -> RequestBuilder {
        self.post("/api/account/me").bearer_auth(access)
    }

    fn refresh(&self, refresh: &str) -> RequestBuilder {
        self.post("/api/auth/refresh").json(&json!({ "refresh_token": refresh }))
    }

    fn logout(&self, access: &str) -> RequestBuilder {
        self.post("/api/auth/logout").bearer_auth(access)
    }

    /// A call with an access token.
    fn call(&self, path: &str, access: &str, body: Value) -> RequestBuilder {
        self.post(path).bearer_auth(access).json(&body)
    }

    async fn sessions(&self, access: &str) -> Vec<Value> {
        let (status, answer) = answer(self.call("/api/account/sessions", access, json!({}))).await;
        assert_eq!(status, 200, "{answer}");
        answer["sessions"].as_array().unwrap().clone()
    }

    /// The kinds of the account's events, the newest first.
    async fn events(&self, access: &str) -> Vec<Value> {
        let (status, answer) = answer(self.call("/api/account/events", access, json!({}))).await;
        assert_eq!(status, 200, "{answer}");
        answer["events"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect()
    }
}

impl Api for Server {
    fn at(&self) -> (&Client, &str) {
        (&self.client, &self.url)
    }
}

impl Api for Process {
    fn at(&self) -> (&Client, &str) {
        (&self.client, &self.url)
    }
}

/// Sends a request. Returns the status and the JSON of the response.
pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: not JSON: {text}"));
    (status, json)
}

pub async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// Checks that a refused token is answered as RFC 6750, section 3.1, requires.
pub fn assert_invalid_token(response: &Response, case: &str) {
    assert_eq!(response.status(), 401, "{case}");
    assert_eq!(response.headers()["www-authenticate"], "Bearer error=\"invalid_token\"", "{case}");
}

/// A JWT of any header and payload, signed with `KEY` (HMAC-SHA256).
pub fn sign(header: &[u8], payload: &[u8]) -> String {
    sign_with(&KEY, header, payload)
}

pub fn sign_with(key: &[u8], header: &[u8], payload: &[u8]) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag.as_ref()))
}

/// The decoded header and payload of a JWT.
pub fn parts(token: &str) -> (String, Value) {
    let mut parts = token.split('.').map(|part| BASE64.decode(part).unwrap());
    let header = String::from_utf8(parts.next().unwrap()).unwrap();
    (header, serde_json::from_slice(&parts.next().unwrap()).unwrap())
}

/// The first column of the rows that this statement selects.
pub async fn rows(home: &Home, select: &'static str) -> Vec<String> {
    use sqlx::Connection;
    let url = format!("sqlite://{}", home.database().display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query_scalar(select).fetch_all(&mut database).await.unwrap()
}
