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

/// Long enough for a loaded machine; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay, killed when dropped.
pub(crate) struct Relay {
    process: Child,
    address: SocketAddr,
    config: Config,
    /// What it has logged so far, if that is listened to.
    log: watch::Receiver<String>,
    /// What it writes on standard output, and on standard error if that is listened to.
    said: Vec<JoinHandle<Vec<u8>>>,
}

impl Relay {
    /// Starts it with these settings, on any port, and waits until it is ready.
    pub(crate) async fn start(settings: &str) -> Self {
        Self::run(settings, |command| command).await
    }

    /// The same, with everything logged that can be, and kept for [`said`](Self::said).
    pub(crate) async fn start_talkative(settings: &str) -> Self {
        Self::run(settings, |command| command.env("RUST_LOG", "trace").stderr(Stdio::piped())).await
    }

    /// The same, with what is logged for everybody, and with these variables in its environment.
    pub(crate) async fn start_logging(settings: &str, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().copied();
        Self::run(settings, |command| command.env("RUST_LOG", "info").envs(variables).stderr(Stdio::piped())).await
    }

    /// Gives it other settings, and waits until it has taken or refused them. What it said of them.
    pub(crate) async fn reload(&self, settings: &str) -> String {
        self.reload_file(&listening(settings)).await
    }

    /// The same with another file as a whole.
    pub(crate) async fn reload_file(&self, file: &str) -> String {
        let before = self.log.borrow().len();
        std::fs::write(&self.config.0, file).unwrap();
        self.signal("-HUP").await;
        self.logged_after(before, "reloaded: they ").await
    }

    /// Waits until it has logged these words. All that it has logged by then.
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
        let mut line = String::new();
        timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the relay is not ready").unwrap();
        let address = line.strip_prefix("listening on http://").expect("the relay did not start");
        let address = address.strip_suffix('\n').unwrap().parse().unwrap();
        let mut said = vec![tokio::spawn(to_end(stdout))];
        let (write, log) = watch::channel(String::new());
        said.extend(process.stderr.take().map(|stderr| tokio::spawn(follow(stderr, write))));
        Self { process, address, config, log, said }
    }

    /// Ends it. Everything that it wrote, but for its address.
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

    /// The process's.
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

/// Settings for any port.
fn listening(settings: &str) -> String {
    format!("listen = \"127.0.0.1:0\"\n{settings}")
}

/// Line by line, for those who wait for one.
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
    // What was read before an error is all there is.
    let _ = output.read_to_end(&mut all).await;
    all
}

/// What the relay says of settings that it should refuse: exit code and standard error, with `relay.toml` as their name.
pub(crate) async fn refused(settings: &str) -> (Option<i32>, String) {
    let config = Config::new(settings);
    let output = command(&config.0).output();
    let Output { status, stdout, stderr } = timeout(PATIENCE, output).await.expect("it was not refused").unwrap();
    assert!(stdout.is_empty(), "{stdout:?}");
    (status.code(), String::from_utf8(stderr).unwrap().replace(&config.0.display().to_string(), "relay.toml"))
}

/// How it ends by itself with these variables in its environment: exit code and standard error.
pub(crate) async fn ended_with(settings: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let config = Config::new(&listening(settings));
    let output = command(&config.0).envs(variables.iter().copied()).output();
    let Output { status, stderr, .. } = timeout(PATIENCE, output).await.expect("it does not end").unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// What `--check` says of settings: exit code, standard output and standard error.
pub(crate) async fn checked(settings: &str) -> (Option<i32>, String, String) {
    let config = Config::new(settings);
    let output = command(&config.0).arg("--check").output();
    let Output { status, stdout, stderr } = timeout(PATIENCE, output).await.expect("it does not end").unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
    (status.code(), stdout, stderr)
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.arg("--config").arg(config).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    command
}

/// A settings file, gone when dropped.
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

/// Starts it with wrong settings, and looks for these words in what it says of this place in them.
pub(crate) async fn refused_at(settings: &str, place: &str, says: &[&str]) {
    let (code, said) = refused(settings).await;
    assert_eq!(code, Some(2), "{settings}: {said}");
    let expected = said.lines().find(|line| line.starts_with(&format!("relay.toml:{place}: ")));
    let expected = expected.unwrap_or_else(|| panic!("{settings}: not at {place}: {said}"));
    for words in says {
        assert!(expected.contains(words), "{settings}: no {words:?} in {expected}");
    }
}
