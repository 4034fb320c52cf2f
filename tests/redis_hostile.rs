//! A store on a server that answers wrongly, late, or not at all. It needs no real server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tower_gemini::{
    quota::{Answer, Correction, Limits, Question, QuotaStore, Reply, Scope},
    redis_store::{RedisStore, StoreState},
};

const MS: Duration = Duration::from_millis(1);

/// The longest time of an answer: 20 ms, half as long again, and what a machine that does other things needs besides.
const LONGEST: Duration = Duration::from_millis(30 + 60);

/// The reply to a question.
#[derive(Clone, Debug)]
enum Bad {
    Never,
    Says(&'static [u8]),
    ThenCloses(&'static [u8]),
    After(u64, &'static [u8]),
    /// Bytes without end.
    Endless,
}

/// A server that answers looks well, and questions badly.
struct BadServer {
    address: SocketAddr,
    bad: Arc<Mutex<Bad>>,
    asked: Arc<AtomicU64>,
}

impl BadServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (bad, asked) = (Arc::new(Mutex::new(Bad::Never)), Arc::new(AtomicU64::new(0)));
        let server = Self { address, bad: bad.clone(), asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, bad.clone(), asked.clone()));
            }
        });
        server
    }
}

/// Reads a command, which is an array of strings.
fn command(bytes: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    fn line(bytes: &[u8], at: &mut usize) -> Option<usize> {
        let end = *at + bytes.get(*at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&bytes[*at + 1..end]).unwrap().parse().unwrap();
        *at = end + 2;
        Some(number)
    }
    let mut at = 0;
    let count = line(bytes, &mut at)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let length = line(bytes, &mut at)?;
        parts.push(bytes.get(at..at + length)?.to_vec());
        at += length + 2;
    }
    if at > bytes.len() {
        return None;
    }
    bytes.drain(..at);
    Some(parts)
}

async fn serve(mut stream: TcpStream, bad: Arc<Mutex<Bad>>, asked: Arc<AtomicU64>) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let Some(parts) = command(&mut bytes) else {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            continue;
        };
        let is_registry = parts[0] == b"EVAL" && parts[3].ends_with(b":instances");
        let reply: Vec<u8> = match &*parts[0] {
            b"EVAL" if is_registry => {
                let now = tower_gemini::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
                format!("*3\r\n:{now}\r\n:1\r\n:1\r\n").into()
            }
            b"EVALSHA" | b"EVAL" => {
                asked.fetch_add(1, Ordering::Relaxed);
                let bad = bad.lock().clone();
                match bad {
                    Bad::Never => continue,
                    Bad::Says(reply) => reply.into(),
                    Bad::ThenCloses(reply) => {
                        stream.write_all(reply).await.ok()?;
                        return None;
                    }
                    Bad::After(ms, reply) => {
                        sleep(Duration::from_millis(ms)).await;
                        reply.into()
                    }
                    Bad::Endless => {
                        stream.write_all(b"$1000000000\r\n").await.ok()?;
                        loop {
                            stream.write_all(&[b'x'; 4096]).await.ok()?;
                            sleep(MS).await;
                        }
                    }
                }
            }
            b"GETRANGE" | b"INFO" => b"$0\r\n\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        };
        stream.write_all(&reply).await.ok()?;
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        sleep(5 * MS).await;
    }
}

const ALL_BAD: &[Bad] = &[
    Bad::Never,
    Bad::Endless,
    Bad::Says(b"garbage\r\n"),
    Bad::Says(b"\0\xff\xfe\r\n\r\n"),
    Bad::Says(b"$-1\r\n"),
    Bad::Says(b"+OK\r\n"),
    Bad::Says(b":7\r\n"),
    Bad::Says(b"*0\r\n"),
    Bad::Says(b"*1\r\n:0\r\n"),
    Bad::Says(b"*3\r\n:4\r\n:-1\r\n:-1\r\n"),
    Bad::Says(b"*3\r\n:5\r\n:9223372036854775807\r\n:0\r\n"),
    Bad::Says(b"*7\r\n:3\r\n:9223372036854775807\r\n:1\r\n:9223372036854775807\r\n:9223372036854775807\r\n:9223372036854775807\r\n:9223372036854775807\r\n"),
    Bad::Says(b"*8\r\n:2\r\n:1790000000000\r\n:1\r\n:0\r\n:0\r\n:0\r\n:9223372036854775807\r\n:9223372036854775807\r\n"),
    Bad::Says(b"*10\r\n:0\r\n:1790000000000\r\n:1\r\n:9223372036854775807\r\n:9223372036854775807\r\n:9223372036854775807\r\n:9223372036854775807\r\n:9223372036854775807\r\n:9223372036854775807\r\n:0\r\n"),
    Bad::Says(b"-LOADING Redis is loading the dataset in memory\r\n"),
    Bad::Says(b"-BUSY Redis is busy running a script.\r\n"),
    Bad::Says(b"-MOVED 3999 127.0.0.1:1\r\n"),
    Bad::Says(b"-READONLY You can't write against a read only replica.\r\n"),
    Bad::Says(b"-NOAUTH Authentication required.\r\n"),
    Bad::Says(b"-NOPERM this user has no permissions\r\n"),
    Bad::Says(b"-NOSCRIPT No matching script.\r\n"),
    Bad::ThenCloses(b""),
    Bad::ThenCloses(b"*8\r\n:0\r\n:17"),
    Bad::After(19, b"-OOM command not allowed\r\n"),
    Bad::After(28, b"$-1\r\n"),
    Bad::After(300, b"*0\r\n"),
];

#[tokio::test]
async fn a_server_that_answers_badly_delays_no_call_and_fails_none() {
    let server = BadServer::start().await;
    for bad in ALL_BAD {
        *server.bad.lock() = bad.clone();
        let store = RedisStore::builder(format!("redis://{}", server.address)).unwrap().connect();
        let scope = Scope::new("p", "m");
        let (mut slowest, mut asked) = (Duration::ZERO, 0);
        let before = server.asked.load(Ordering::Relaxed);
        until("connected", || store.report().state == StoreState::Connected).await;
        let begun = Instant::now();
        while begun.elapsed() < 700 * MS {
            let question = Question::new(1, 10).limits(Limits::new().requests_per_minute(6_000));
            let at = Instant::now();
            let answer = match store.take(&scope, question) {
                Reply::Now(answer) => answer,
                Reply::Later(answer) => answer.await,
                _ => panic!(),
            };
            slowest = slowest.max(at.elapsed());
            asked += 1;
            if let Answer::Granted(grant) = answer {
                store.correct(&scope, grant.charge, Correction::refund(1, 10));
            }
            sleep(5 * MS).await;
        }
        println!("{bad:?}: {asked} in {slowest:?} at most, {:?}", store.report().state);
        assert!(slowest < LONGEST, "{bad:?}: an answer took {slowest:?}");
        assert!(server.asked.load(Ordering::Relaxed) > before, "{bad:?} was never said");
        // The task lives: it comes to the state that a look finds.
        let _ = store.report();
        drop(store);
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_while_the_server_is_away_and_orders_wait() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let store = RedisStore::builder("unix:///nowhere/redis.sock").unwrap().connect();
    sleep(3 * 1_000 * MS).await;
    store.close(&Scope::new("p", "m"), tower_gemini::quota::Closing::of(60 * 1_000 * MS));
    assert!(alive() > 0);
    drop(store);
    sleep(10 * 1_000 * MS).await;
    assert_eq!(alive(), 0, "the task looks at a server that nobody needs");
}
