//! The relay as a process, for black-box tests.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// A time that is long enough for a loaded machine; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay, killed when dropped.
pub(crate) struct Relay {
    process: Child,
    address: SocketAddr,
    operators: SocketAddr,
    config: Config,
    /// Its log so far, if it is captured.
    log: watch::Receiver<String>,
    /// Readers of its standard output, and of standard error if that is captured.
    said: Vec<JoinHandle<Vec<u8>>>,
}

impl Relay {
    /// Starts a relay with these settings, on any port, and waits until it is ready.
    pub(crate) async fn start(settings: &str) -> Self {
        Self::run(settings, |command| command).await
    }

    /// Starts a relay that logs errors alone, so that no call waits for its line.
    pub(crate) async fn start_quiet(settings: &str) -> Self {
        Self::run(settings, |command| command.env("RUST_LOG", "error")).await
    }

    /// Starts a relay that logs at level `trace`, and captures its log for [`said`](Self::said).
    pub(crate) async fn start_talkative(settings: &str) -> Self {
        Self::run(settings, |command| command.env("RUST_LOG", "trace").stderr(Stdio::piped())).await
    }

    /// Starts a relay with these variables in its environment, and captures its log, at level `info`.
    pub(crate) async fn start_logging(settings: &str, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().copied();
        Self::run(settings, |command| command.env("RUST_LOG", "info").envs(variables).stderr(Stdio::piped())).await
    }

    /// Changes the settings, waits until the relay has taken or refused them, and returns what it logged of them.
    pub(crate) async fn reload(&self, settings: &str) -> String {
        self.reload_file(&listening(settings)).await
    }

    /// Changes the whole file, as [`reload`](Self::reload) does with the settings after the addresses.
    pub(crate) async fn reload_file(&self, file: &str) -> String {
        let before = self.log.borrow().len();
        std::fs::write(&self.config.0, file).unwrap();
        self.signal("-HUP").await;
        self.logged_after(before, "reloaded: they ").await
    }

    /// Writes the file anew, and tells the relay nothing of it.
    pub(crate) fn write(&self, file: &str) {
        std::fs::write(&self.config.0, file).unwrap();
    }

    /// Sends SIGUSR1, waits until the relay has lifted what was parked, and returns what it logged of that.
    pub(crate) async fn lift(&self) -> String {
        let before = self.log.borrow().len();
        self.signal("-USR1").await;
        self.logged_after(before, "lift").await
    }

    /// Waits until the relay has logged these words, and returns its log so far.
    pub(crate) async fn logged(&self, words: &str) -> String {
        self.logged_after(0, words).await
    }

    async fn logged_after(&self, start: usize, words: &str) -> String {
        let mut log = self.log.clone();
        let said = timeout(PATIENCE, log.wait_for(|log| log[start..].contains(words))).await;
        let said = said.unwrap_or_else(|_| panic!("{words:?} is not in {:?}", &*self.log.borrow())).unwrap();
        said[start..].to_owned()
    }

    async fn run(settings: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let config = Config::new(&listening(settings));
        let mut process = prepare(command(&config.0).stdout(Stdio::piped())).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut addresses = Vec::new();
        for before in ["listening on http://", "operators on http://"] {
            let mut line = String::new();
            timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the relay is not ready").unwrap();
            let address = line.strip_prefix(before).unwrap_or_else(|| panic!("the relay did not start: {line:?}"));
            addresses.push(address.strip_suffix('\n').unwrap().parse().unwrap());
        }
        let (address, operators) = (addresses[0], addresses[1]);
        let mut said = vec![tokio::spawn(to_end(stdout))];
        let (write, log) = watch::channel(String::new());
        said.extend(process.stderr.take().map(|stderr| tokio::spawn(follow(stderr, write))));
        Self { process, address, operators, config, log, said }
    }

    /// Ends the relay, and returns everything that it wrote, without its address.
    pub(crate) async fn said(mut self) -> String {
        self.terminate().await;
        self.ended().await;
        let mut all = Vec::new();
        for said in self.said.drain(..) {
            all.extend(timeout(PATIENCE, said).await.expect("its output does not end").unwrap());
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address of the pages for operators.
    pub(crate) fn operator_uri(&self) -> String {
        format!("http://{}", self.operators)
    }

    /// Returns the address at which a path is served: the operators' for their pages, else the callers'.
    pub(crate) fn uri_of(&self, path: &str) -> String {
        if ["/", "/status", "/metrics"].contains(&path) { self.operator_uri() } else { self.uri() }
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("the relay has ended already")
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        self.signal("-TERM").await;
    }

    async fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("the relay does not end").unwrap()
    }
}

/// Returns settings that listen on any ports.
pub(crate) fn listening(settings: &str) -> String {
    format!("listen = \"127.0.0.1:0\"\noperator_listen = \"127.0.0.1:0\"\n{settings}")
}

/// Reads an output line by line, for those who wait for one.
async fn follow(output: impl AsyncRead + Unpin, log: watch::Sender<String>) -> Vec<u8> {
    let (mut output, mut all, mut line) = (BufReader::new(output), Vec::new(), Vec::new());
    while output.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        log.send_modify(|log| log.push_str(&String::from_utf8_lossy(&line)));
        all.append(&mut line);
    }
    all
}

async fn to_end(mut output: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    // After an error, there is nothing more to read.
    let _ = output.read_to_end(&mut all).await;
    all
}

/// Starts a relay with settings that it must refuse. Returns its exit code and standard error, with `relay.toml` as the
/// file's name.
pub(crate) async fn refused(settings: &str) -> (Option<i32>, String) {
    let config = Config::new(settings);
    let output = command(&config.0).output();
    let Output { status, stdout, stderr } = timeout(PATIENCE, output).await.expect("it was not refused").unwrap();
    assert!(stdout.is_empty(), "{stdout:?}");
    (status.code(), String::from_utf8(stderr).unwrap().replace(&config.0.display().to_string(), "relay.toml"))
}

/// Starts a relay that ends by itself, with these variables in its environment. Returns its exit code and standard
/// error.
pub(crate) async fn ended_with(settings: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let config = Config::new(&listening(settings));
    let output = command(&config.0).envs(variables.iter().copied()).output();
    let Output { status, stderr, .. } = timeout(PATIENCE, output).await.expect("it does not end").unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// Runs `--check` on settings. Returns its exit code, standard output and standard error.
pub(crate) async fn checked(settings: &str) -> (Option<i32>, String, String) {
    let config = Config::new(settings);
    let output = command(&config.0).arg("--check").output();
    let Output { status, stdout, stderr } = timeout(PATIENCE, output).await.expect("it does not end").unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
    (status.code(), stdout, stderr)
}

/// Returns a command that runs the relay: of this build, or the one that `TOWER_GEMINI_RELAY` names, for comparisons.
fn command(config: &Path) -> Command {
    let relay = std::env::var_os("TOWER_GEMINI_RELAY").unwrap_or_else(|| env!("CARGO_BIN_EXE_relay").into());
    let mut command = Command::new(relay);
    command.arg("--config").arg(config).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    command
}

/// A settings file, removed when dropped.
struct Config(PathBuf);

impl Config {
    fn new(settings: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("relay-{process}-{number}.toml"));
        std::fs::write(&path, settings).unwrap();
        Self(path)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts a relay with wrong settings, and checks that its mistake at this place has these words.
pub(crate) async fn refused_at(settings: &str, place: &str, says: &[&str]) {
    let (code, said) = refused(settings).await;
    assert_eq!(code, Some(2), "{settings}: {said}");
    let expected = said.lines().find(|line| line.starts_with(&format!("relay.toml:{place}: ")));
    let expected = expected.unwrap_or_else(|| panic!("{settings}: not at {place}: {said}"));
    for words in says {
        assert!(expected.contains(words), "{settings}: no {words:?} in {expected}");
    }
}
