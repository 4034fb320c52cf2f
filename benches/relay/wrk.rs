//! wrk: as many calls as a server can answer over 64 connections.

use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::process::{self, Memory, Process};

/// The connections of wrk.
pub(crate) const CONNECTIONS: usize = 64;

/// The figures of one server under wrk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    pub(crate) calls_a_second: f64,
    /// The server's CPU time for a call, in microseconds; none if it cannot be read.
    pub(crate) cpu: Option<f64>,
    /// The server's memory under way.
    pub(crate) memory: Memory,
}

/// Floods a server for so many seconds.
pub(crate) fn flood(server: &Process, path: &str, script: &Path, seconds: u64) -> Result<Flood, String> {
    let before = server.cpu();
    let url = format!("http://{}{path}", server.address);
    let mut wrk = Command::new(process::find("wrk").ok_or("wrk is not installed")?);
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "--timeout", "30s", "-s"])
        .arg(script)
        .arg(&url);
    let running = wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| format!("wrk: {error}"))?;
    thread::sleep(Duration::from_millis(seconds * 800));
    let memory = server.memory();
    let output = running.wait_with_output().map_err(|error| format!("wrk: {error}"))?;
    let cpu = server.cpu().zip(before).map(|(after, before)| after - before);
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |after: &str| text.split(after).nth(1)?.split_whitespace().next()?.parse::<f64>().ok();
    let calls = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok());
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("{url}: {text}"));
    }
    match (number("Requests/sec:"), calls) {
        (Some(calls_a_second), Some(calls)) if calls > 0.0 => {
            Ok(Flood { calls_a_second, cpu: cpu.map(|cpu| cpu * 1e6 / calls), memory })
        }
        _ => Err(format!("wrk said nothing of {url}: {text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Writes the script that makes wrk send this body.
pub(crate) fn script(file: &Path, body: &str, headers: &[(&str, String)]) -> io::Result<()> {
    let mut text = format!(
        "wrk.method = \"POST\"\nwrk.body = [==[{body}]==]\nwrk.headers[\"Content-Type\"] = \"application/json\"\n"
    );
    for (name, value) in headers {
        text.push_str(&format!("wrk.headers[\"{name}\"] = [==[{value}]==]\n"));
    }
    fs::write(file, text)
}

/// Returns a free port of this machine.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}
