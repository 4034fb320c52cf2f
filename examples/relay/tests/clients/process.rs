//! The scripts of clients, as processes.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

/// A time in which a client is imported, while others are, too.
const IMPORTED: Duration = Duration::from_secs(240);

/// A script of `clients/`, its interpreter, and its clients.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    interpreter: Interpreter,
    pub(crate) clients: &'static [&'static str],
    /// Set where it may not be missing.
    required: bool,
}

#[derive(Debug)]
enum Interpreter {
    Node,
    /// Python, in a virtual environment of this name.
    Python(&'static str),
}

/// A script that has imported its clients.
pub(crate) struct Ready {
    // Killed when dropped.
    _process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
}

impl Script {
    pub(crate) const fn node(name: &'static str, clients: &'static [&'static str]) -> Self {
        Self { name, interpreter: Interpreter::Node, clients, required: false }
    }

    pub(crate) const fn python(name: &'static str, venv: &'static str, clients: &'static [&'static str]) -> Self {
        Self { name, interpreter: Interpreter::Python(venv), clients, required: false }
    }

    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Starts the script, and waits until it is ready for cells. Returns `None`, and says so, if its client is not
    /// installed and may be missing.
    pub(crate) async fn start(&self) -> Option<Ready> {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
        let mut stderr = process.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut all = Vec::new();
            let _ = stderr.read_to_end(&mut all).await;
            String::from_utf8_lossy(&all).into_owned()
        });
        let stdin = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut ready = Ready { _process: process, stdin, lines, stderr };
        let said = timeout(IMPORTED, ready.said("ready")).await;
        if said.unwrap_or_else(|_| panic!("{} is not ready", self.name)).is_some() {
            return Some(ready);
        }
        let stderr = ready.stderr.await.unwrap();
        let missing = ["ModuleNotFoundError", "MODULE_NOT_FOUND"].iter().any(|word| stderr.contains(word));
        let all = env::var_os("TOWER_GEMINI_CLIENTS").is_some_and(|clients| clients == "all");
        assert!(missing && !self.required && !all, "{}: {stderr}", self.name);
        println!("skipped, because it is not installed: {}", self.clients.join(", "));
        None
    }

    fn command(&self) -> Command {
        let mut command = match self.interpreter {
            Interpreter::Python(venv) => {
                let variable = if venv == "venv" { "TOWER_GEMINI_PYTHON" } else { "TOWER_GEMINI_OLDER_PYTHON" };
                let found = installed(&format!("{venv}/bin/python"));
                let found = if found.exists() { found.into() } else { "python3".into() };
                Command::new(env::var_os(variable).unwrap_or(found))
            }
            Interpreter::Node => {
                let mut node = Command::new(env::var_os("TOWER_GEMINI_NODE").unwrap_or_else(|| "node".into()));
                if env::var_os("NODE_PATH").is_none() {
                    node.env("NODE_PATH", installed("node/node_modules"));
                }
                node
            }
        };
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(self.name));
        // Loopback is never behind a proxy, the only key is the script's own, no telemetry of the calls is sent, and
        // LiteLLM fetches no table of prices.
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env("LANGSMITH_TRACING", "false");
        command.env_remove("GEMINI_API_KEY").env_remove("GOOGLE_API_KEY").env_remove("OPENAI_API_KEY");
        command.env_remove("LANGCHAIN_TRACING_V2").env_remove("GOOGLE_GENAI_USE_VERTEXAI");
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("GENKIT_TELEMETRY_DISABLED", "true");
        command
    }
}

impl Ready {
    /// Has cells run. Returns the reports by the cells' keys, and standard error; a cell that has not ended within
    /// `time` has no report.
    pub(crate) async fn run(mut self, cells: &[Value], time: Duration) -> (HashMap<String, Value>, String) {
        self.stdin.write_all(format!("{}\n", Value::from(cells)).as_bytes()).await.unwrap();
        self.stdin.flush().await.unwrap();
        let mut reports = HashMap::new();
        let _ = timeout(time, async {
            while reports.len() < cells.len() {
                let Some(report) = self.said("cell ").await else { break };
                let report: Value = serde_json::from_str(&report).unwrap();
                reports.insert(report["key"].as_str().unwrap().to_owned(), report);
            }
        })
        .await;
        drop((self._process, self.stdin, self.lines));
        (reports, self.stderr.await.unwrap())
    }

    /// Reads up to a line that begins so, and returns the rest of it. Clients print lines of their own. `None`: the
    /// output has ended.
    async fn said(&mut self, begin: &str) -> Option<String> {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            if let Some(rest) = line.strip_prefix(begin) {
                return Some(rest.to_owned());
            }
        }
        None
    }
}

/// Returns the folder of `.ci/sdk-setup`: `target/sdk`, seen from a test in `target/debug/deps`.
fn installed(path: &str) -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().join("sdk").join(path)
}
