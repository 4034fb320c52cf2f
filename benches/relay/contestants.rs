//! The servers that are compared: the upstream itself, nginx, the bare proxy, and the relay.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    process::{self, Memory, Process},
    shared::cargo,
    wrk::free_port,
};

/// A server that answers the same calls as the others.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) server: Process,
    /// The memory before the first call.
    pub(crate) idle: Memory,
}

impl Contestant {
    fn new(name: impl Into<String>, server: Process) -> Self {
        // By then a program has done the work of its start.
        std::thread::sleep(Duration::from_millis(700));
        Self { name: name.into(), idle: server.memory(), server }
    }
}

pub(crate) const DIRECT: &str = "direct";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const FLOOR: &str = "bare hyper proxy";
pub(crate) const RELAY: &str = "relay";
pub(crate) const BEFORE: &str = "relay, before";

/// Starts all of them before one upstream, in a folder for their settings.
pub(crate) fn start(folder: &Path, relay: &Path) -> Result<Vec<Contestant>, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let direct = Process::printing(Command::new(&this).arg("--serve-upstream"))?;
    let upstream = direct.address;
    let floor = Process::printing(Command::new(&this).args(["--serve-floor", &upstream.to_string()]))?;
    let mut all = vec![
        Contestant::new(DIRECT, direct),
        Contestant::new(NGINX, nginx(folder, upstream)?),
        Contestant::new(FLOOR, floor),
        Contestant::new(RELAY, start_relay(folder, relay, upstream)?),
    ];
    if let Some(before) = std::env::var_os("RELAY_BEFORE") {
        all.push(Contestant::new(BEFORE, start_relay(folder, Path::new(&before), upstream)?));
    }
    if let Some(peers) = std::env::var_os("RELAY_PEERS") {
        for (name, server) in peers_of(Path::new(&peers), upstream)? {
            all.push(Contestant::new(name, server));
        }
    }
    Ok(all)
}

/// Starts the relay as it is handed on: with a key, limits in three dimensions that nobody reaches, and a chain; its log goes
/// nowhere.
fn start_relay(folder: &Path, program: &Path, upstream: SocketAddr) -> Result<Process, String> {
    let settings = folder.join("relay.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\noperator_listen = false\nupstream = \"http://{upstream}\"\n\
         [[keys]]\nname = \"a\"\nkey = \"AIza-nobodys\"\nproject = \"p1\"\n\
         [limits.default]\nrpm = 1000000000\ntpm = 1000000000000\nrpd = 1000000000000\n\
         [fallback]\n\"gemini-2.5-flash\" = [\"gemini-2.5-flash-lite\"]\n"
    );
    write(&settings, &text)?;
    Process::printing(Command::new(program).arg("--config").arg(&settings).stderr(Stdio::null()))
}

/// Starts nginx as a proxy with as many workers as cores. Its connections to the upstream are kept, a stream is passed on as it
/// comes, and it writes no log of calls.
fn nginx(folder: &Path, upstream: SocketAddr) -> Result<Process, String> {
    let address = free_port().map_err(|error| error.to_string())?;
    let settings = folder.join("nginx.conf");
    let here = folder.display();
    let text = format!(
        "worker_processes auto;\ndaemon off;\npid {here}/nginx.pid;\nerror_log {here}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {here}/body;\n  proxy_temp_path {here}/proxy;\n  \
         fastcgi_temp_path {here}/f;\n  uwsgi_temp_path {here}/u;\n  scgi_temp_path {here}/s;\n  \
         keepalive_requests 100000000;\n  tcp_nodelay on;\n  \
         upstream api {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}\n  \
         server {{\n    listen {address} backlog=1024;\n    client_max_body_size 32m;\n    \
         proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n    proxy_set_header Host $host;\n    \
         location / {{ proxy_pass http://api; }}\n    \
         location ~ :streamGenerateContent$ {{ proxy_buffering off; proxy_pass http://api; }}\n  }}\n}}\n"
    );
    write(&settings, &text)?;
    let mut command = Command::new(process::find("nginx").ok_or("nginx is not installed")?);
    command.arg("-p").arg(folder).arg("-c").arg(&settings).stderr(Stdio::null());
    Process::listening(&mut command, address, Duration::from_secs(5))
}

/// Starts the programs that a file names, one a line: a name, a tab, and a command in which `{port}` and `{upstream}` are filled in.
fn peers_of(file: &Path, upstream: SocketAddr) -> Result<Vec<(String, Process)>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("RELAY_PEERS, {}: {error}", file.display()))?;
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines
        .map(|(name, command)| {
            let address = free_port().map_err(|error| error.to_string())?;
            let filled =
                command.replace("{port}", &address.port().to_string()).replace("{upstream}", &upstream.to_string());
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec {filled}")]).stderr(Stdio::null());
            // Python reads a lot before it listens.
            let server = Process::listening(&mut command, address, Duration::from_secs(180))?;
            Ok((name.to_owned(), server))
        })
        .collect()
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Returns the relay to measure: the one that `RELAY` names, or one that cargo builds now, in the profile of releases or, for a
/// test, of development.
pub(crate) fn relay(is_test: bool) -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("RELAY") {
        return Ok(named.into());
    }
    let mut build = cargo::command();
    build.args(["build", "--quiet", "--package", "relay", "--bin", "relay"]);
    if !is_test {
        build.arg("--release");
    }
    let built = build.status().map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        return Err("the relay does not build".into());
    }
    // This program is in `release/deps` of the folder that cargo builds in.
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = this.ancestors().nth(3).ok_or("a program outside of cargo's folder: name the relay in RELAY")?;
    Ok(target.join(if is_test { "debug" } else { "release" }).join("relay"))
}
