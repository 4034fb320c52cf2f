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
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Long enough for a loaded machine; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay, killed when dropped.
pub(crate) struct Relay {
    process: Child,
    address: SocketAddr,
    _config: Config,
    _stdout: BufReader<ChildStdout>,
}

impl Relay {
    /// Starts it with these settings, on any port, and waits until it is ready.
    pub(crate) async fn start(settings: &str) -> Self {
        let config = Config::new(&format!("listen = \"127.0.0.1:0\"\n{settings}"));
        let mut process = command(&config.0).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the relay is not ready").unwrap();
        let address = line.strip_prefix("listening on http://").expect("the relay did not start");
        let address = address.strip_suffix('\n').unwrap().parse().unwrap();
        Self { process, address, _config: config, _stdout: stdout }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        let id = self.process.id().expect("the relay has ended already").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("the relay does not end").unwrap()
    }
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
