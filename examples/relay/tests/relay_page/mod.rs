//! A page in headless Chromium, driven over its debugging pipe.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::relay_process::PATIENCE;

/// An open page, and the browser that has it.
pub(crate) struct Page {
    browser: Child,
    commands: File,
    answers: BufReader<File>,
    session: Option<String>,
    number: u64,
    folder: PathBuf,
}

impl Page {
    pub(crate) async fn open(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let pipes = ["commands", "answers"].map(|name| folder.join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().await.unwrap().success());
        let chromium = env::var("TOWER_GEMINI_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        // The pipes are the descriptors 3 and 4, which only a shell can hand on.
        let browser = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<\"$COMMANDS\" 4>\"$ANSWERS\"", "sh", &chromium])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--lang=en"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-pipe", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .env("COMMANDS", &pipes[0])
            .env("ANSWERS", &pipes[1])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // A pipe opens when its other end does.
        let open = async {
            let commands = File::options().write(true).open(&pipes[0]).await.unwrap();
            (commands, BufReader::new(File::open(&pipes[1]).await.unwrap()))
        };
        let (commands, answers) = timeout(PATIENCE, open).await.expect("the browser does not start");
        let mut page = Self { browser, commands, answers, session: None, number: 0, folder };
        let target = page.ask("Target.createTarget", json!({ "url": url })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = page.ask("Target.attachToTarget", attach).await;
        page.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        page
    }

    /// Sends a command, and returns its result.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        let mut command = command.to_string().into_bytes();
        command.push(0);
        let asked = async {
            self.commands.write_all(&command).await.unwrap();
            self.commands.flush().await.unwrap();
            loop {
                let mut answer = Vec::new();
                self.answers.read_until(0, &mut answer).await.unwrap();
                assert_eq!(answer.pop(), Some(0), "the browser has ended");
                let mut answer: Value = serde_json::from_slice(&answer).unwrap();
                if answer["id"] == self.number {
                    assert!(answer["error"].is_null(), "{method}: {answer}");
                    return answer["result"].take();
                }
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{method} is not answered"))
    }

    /// Returns the value of an expression in the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.ask("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true. While the page loads, it may fail.
    pub(crate) async fn until(&mut self, expression: &str) {
        for _ in 0..300 {
            if self
                .value(&format!("(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"))
                .await
                == true
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("never {expression}: {}", self.value("document.body.innerText").await);
    }

    /// Sets the width of the window and the color scheme.
    pub(crate) async fn looks(&mut self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.ask("Emulation.setDeviceMetricsOverride", metrics).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", media).await;
    }

    /// Writes a picture of the whole page into the folder that `TOWER_GEMINI_PICTURES` names, if it names one.
    pub(crate) async fn picture(&mut self, name: &str) {
        let Some(folder) = env::var_os("TOWER_GEMINI_PICTURES") else { return };
        let picture = self.ask("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        fs::write(Path::new(&folder).join(name), picture).unwrap();
    }

    pub(crate) async fn close(mut self) {
        self.session = None;
        self.ask("Browser.close", json!({})).await;
        if timeout(PATIENCE, self.browser.wait()).await.is_err() {
            self.browser.kill().await.unwrap();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
