//! A server of Redis or Valkey for one test, on a free port of the loopback, and a connection that blocks.
//!
//! `TOWER_GEMINI_REDIS_SERVER` names the program; without it, `redis-server` is looked for in `PATH`. The server keeps nothing on
//! disk, and dies with its value, or with the test's process.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::Duration,
};

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: u16,
    settings: Vec<String>,
    dir: PathBuf,
    process: Option<Process>,
}

/// A server's process, and another that kills it when the pipe between this process and that one breaks.
#[derive(Debug)]
struct Process {
    server: Child,
    guard: Child,
}

impl RedisServer {
    /// Starts a server.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, for example `["--maxmemory", "2mb", "--maxmemory-policy", "noeviction"]`.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tower-gemini-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder for the server");
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self { port: 0, settings, dir, process: None };
        // Another process may take the port before the server does.
        for _ in 0..5 {
            server.port = free_port();
            if server.spawn() {
                return server;
            }
        }
        panic!("{} does not start: {}", program(), server.log());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The id of the server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").server.id()
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> RedisConnection {
        RedisConnection::open(self.address()).expect("the server accepts a connection")
    }

    /// Sends one command over a connection of its own. An error of the server's is a panic.
    pub(crate) fn command(&self, arguments: &[&str]) -> RedisReply {
        self.connect().command(arguments)
    }

    /// Deletes all keys, and the scripts.
    pub(crate) fn flush(&self) {
        self.command(&["FLUSHALL"]);
        self.command(&["SCRIPT", "FLUSH"]);
    }

    /// Stops the process without ending it (SIGSTOP): connections stay, and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets the process continue (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills the process (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the process, and starts an empty one on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        for _ in 0..50 {
            if self.spawn() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("{} does not start again on port {}: {}", program(), self.port, self.log());
    }

    /// Restarts with other settings; see [`start_with`](Self::start_with).
    pub(crate) fn restart_with(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        self.restart();
    }

    /// Limits the memory to what is used now and so many bytes more, or to nothing at all for 0; `None`: no limit. Keys are
    /// never evicted for it.
    pub(crate) fn limit_memory(&self, more: Option<u64>) {
        let mut connection = self.connect();
        let limit = match more {
            None => 0,
            Some(0) => 1,
            Some(more) => {
                let info = connection.command(&["INFO", "memory"]).text();
                let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
                used.trim().parse::<u64>().expect("a number") + more
            }
        };
        connection.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status();
        assert!(status.expect("sh").success(), "the server cannot be signalled");
    }

    /// Starts the process, and returns whether it answers.
    fn spawn(&mut self) -> bool {
        let log = fs::File::create(self.dir.join("log")).expect("a log");
        let mut server = Command::new(program());
        server.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        server.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&self.dir).args(&self.settings);
        server.stdin(Stdio::null()).stderr(log.try_clone().expect("a log")).stdout(log);
        let server = server.spawn().unwrap_or_else(|error| {
            panic!(
                "{} does not start: {error}; install redis-server, or name one in TOWER_GEMINI_REDIS_SERVER",
                program()
            )
        });
        let mut guard = Command::new("sh");
        guard.arg("-c").arg(format!("read _; kill -9 {}", server.id()));
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process { server, guard: guard.spawn().expect("sh") };
        for _ in 0..500 {
            if process.server.try_wait().expect("the server's state").is_some() {
                return false;
            }
            if self.answers(process.server.id()) {
                self.process = Some(process);
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        false
    }

    /// Returns whether the server with that process answers, and not another one on the same port.
    fn answers(&self, pid: u32) -> bool {
        let Ok(mut connection) = RedisConnection::open(self.address()) else { return false };
        let Ok(RedisReply::Bulk(info)) = connection.try_command(&["INFO", "server"]) else { return false };
        String::from_utf8_lossy(&info).lines().any(|line| line.trim() == format!("process_id:{pid}"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: the server's id may be another process's once its end was waited for.
        for child in [&mut self.guard, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program() -> String {
    std::env::var("TOWER_GEMINI_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A connection that blocks, and waits for 30 s at most.
#[derive(Debug)]
pub(crate) struct RedisConnection {
    stream: BufReader<TcpStream>,
}

/// A reply of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedisReply {
    Nil,
    Int(i64),
    Simple(String),
    Error(String),
    Bulk(Vec<u8>),
    Array(Vec<RedisReply>),
}

impl RedisConnection {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command, and reads its reply. An error is a panic.
    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> RedisReply {
        match self.try_command(arguments).expect("the server answers") {
            RedisReply::Error(error) => panic!("the server refuses: {error}"),
            reply => reply,
        }
    }

    /// Sends a command, and reads its reply.
    pub(crate) fn try_command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> std::io::Result<RedisReply> {
        self.send(arguments)?;
        self.receive()
    }

    /// Sends a command, whose reply is received later.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(&encode(arguments))
    }

    /// Sends bytes as they are: several commands in one piece.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Receives the reply to the oldest command that has none yet.
    pub(crate) fn receive(&mut self) -> std::io::Result<RedisReply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        let (kind, rest) = line.split_at_checked(1).ok_or(ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(|_| ErrorKind::InvalidData);
        Ok(match kind {
            "+" => RedisReply::Simple(rest.to_owned()),
            "-" => RedisReply::Error(rest.to_owned()),
            ":" => RedisReply::Int(number()?),
            "$" | "*" if number()? < 0 => RedisReply::Nil,
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                RedisReply::Bulk(bytes)
            }
            "*" => RedisReply::Array((0..number()?).map(|_| self.receive()).collect::<Result<_, _>>()?),
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }
}

impl RedisReply {
    /// Returns the number, or panics.
    pub(crate) fn int(&self) -> i64 {
        let Self::Int(number) = self else { panic!("no number: {self:?}") };
        *number
    }

    /// Returns the numbers of an array, or panics.
    pub(crate) fn ints(&self) -> Vec<i64> {
        let Self::Array(items) = self else { panic!("no array: {self:?}") };
        items.iter().map(Self::int).collect()
    }

    /// Returns the bytes of a string, or panics.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bulk(bytes) => bytes,
            Self::Simple(text) => text.as_bytes(),
            _ => panic!("no string: {self:?}"),
        }
    }

    /// Returns the text of a string, or panics.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// Encodes a command as the protocol has it.
pub(crate) fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_server_restarts_empty_and_a_pause_delays_its_answers() {
    let mut server = RedisServer::start();
    let mut connection = server.connect();
    connection.command(&["SET", "key", "value"]);
    assert_eq!(connection.command(&["GET", "key"]).text(), "value");

    server.pause();
    connection.send(&["GET", "key"]).unwrap();
    connection.stream.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = connection.receive().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    server.resume();
    connection.stream.get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(connection.receive().unwrap().text(), "value");

    server.limit_memory(Some(0));
    let reply = connection.try_command(&["SET", "more", &"x".repeat(1 << 16)]).unwrap();
    assert!(matches!(&reply, RedisReply::Error(error) if error.starts_with("OOM")), "{reply:?}");
    server.limit_memory(None);
    connection.command(&["SET", "more", "x"]);

    server.restart();
    assert!(connection.try_command(&["GET", "key"]).is_err(), "the old connection is gone");
    assert_eq!(server.command(&["GET", "key"]), RedisReply::Nil);
}
