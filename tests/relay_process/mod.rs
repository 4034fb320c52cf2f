//! The relay example as a process, for black-box tests. `cargo test` builds it; `cargo test --test relay` takes what was
//! built before.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

/// Long enough for a loaded machine; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay, killed when dropped.
pub(crate) struct Relay {
    process: Child,
    address: SocketAddr,
    _config: Config,
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

    async fn run(settings: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let config = Config::new(&format!("listen = \"127.0.0.1:0\"\n{settings}"));
        let mut process = prepare(command(&config.0).stdout(Stdio::piped())).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the relay is not ready").unwrap();
        let address = line.strip_prefix("listening on http://").expect("the relay did not start");
        let address = address.strip_suffix('\n').unwrap().parse().unwrap();
        let mut said = vec![tokio::spawn(to_end(stdout))];
        said.extend(process.stderr.take().map(|stderr| tokio::spawn(to_end(stderr))));
        Self { process, address, _config: config, said }
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
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("the relay does not end").unwrap()
    }
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

fn command(config: &Path) -> Command {
    let mut command = Command::new(example("relay"));
    command.arg("--config").arg(config).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    command
}

/// Where cargo has put an example, seen from a test.
fn example(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: `cargo test` does it, or `cargo build --example {name}`", path.display());
    path
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
