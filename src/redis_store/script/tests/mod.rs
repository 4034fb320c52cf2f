//! The script on a real server, beside a plain account of what it should do.

pub(in super::super) mod model;
mod property;
mod rules;
mod server_time;
mod wire;

#[path = "../../../../tests/support/redis_server.rs"]
mod redis_server;

use std::time::Duration;

use self::redis_server::{RedisConnection, RedisReply, RedisServer};
use super::{
    Contents, Correct, DayEnd, KeyId, SCRIPT, Slot, SlotCharge, Take, TakeReply, Tell, TellReply, Verdict,
    encode_close, encode_open,
};
use crate::quota::{Closing, Dimension};

const MINUTE: Option<u64> = Some(5);

/// A connection that asks about one key.
struct Asker {
    connection: RedisConnection,
    hash: String,
    key: String,
    /// The time for the script, if it is not the server's.
    now_ms: Option<u64>,
}

impl Asker {
    /// Connects with the server's own clock.
    fn new(server: &RedisServer, key: &str) -> Self {
        Self::load(server, key, SCRIPT, None)
    }

    /// Connects with a clock that the test sets. The script's one line that reads the clock is replaced for it.
    fn with_clock(server: &RedisServer, key: &str, now_ms: u64) -> Self {
        let line = "local time = redis.call('TIME')\n";
        assert_eq!(SCRIPT.matches(line).count(), 1, "the script reads the clock in one line");
        assert_eq!(SCRIPT.matches("TIME'").count(), 1, "the script reads no other clock");
        let script = SCRIPT.replace(line, "local time = { ARGV[2], ARGV[3] }\n");
        Self::load(server, key, &script, Some(now_ms))
    }

    fn load(server: &RedisServer, key: &str, script: &str, now_ms: Option<u64>) -> Self {
        let mut connection = server.connect();
        let hash = connection.command(&["SCRIPT", "LOAD", script]).text();
        Self { connection, hash, key: key.to_owned(), now_ms }
    }

    fn send(&mut self, argument: &[u8]) {
        let (seconds, micros) = self.now_ms.map_or((0, 0), |now| (now / 1000, now % 1000 * 1000 + 999));
        let (seconds, micros) = (seconds.to_string(), micros.to_string());
        let (hash, key) = (self.hash.as_bytes(), self.key.as_bytes());
        let arguments = [b"EVALSHA", hash, b"1", key, argument, seconds.as_bytes(), micros.as_bytes()];
        self.connection.send(&arguments).unwrap();
    }

    fn receive(&mut self) -> Vec<i64> {
        match self.connection.receive().unwrap() {
            RedisReply::Error(error) => panic!("the script fails: {error}"),
            reply => reply.ints(),
        }
    }

    fn ask(&mut self, argument: &[u8]) -> Vec<i64> {
        self.send(argument);
        self.receive()
    }

    fn take(&mut self, take: &Take) -> TakeReply {
        let reply = self.ask(&take.encode());
        TakeReply::decode(&reply).unwrap_or_else(|| panic!("{reply:?} to {take:?}"))
    }

    fn tell(&mut self, tell: &Tell) -> TellReply {
        let reply = self.ask(&tell.encode());
        TellReply::decode(&reply).unwrap_or_else(|| panic!("{reply:?} to {tell:?}"))
    }

    fn correct(&mut self, correct: &Correct) {
        self.ask(&correct.encode());
    }

    fn close(&mut self, look: Duration, ends: Duration) {
        self.ask(&encode_close(Closing { look, ends }));
    }

    fn open(&mut self) {
        self.ask(&encode_open());
    }

    /// Returns the key's bytes.
    fn bytes(&mut self) -> Vec<u8> {
        match self.connection.command(&["GET", &self.key]) {
            RedisReply::Nil => Vec::new(),
            reply => reply.bytes().to_vec(),
        }
    }

    fn contents(&mut self) -> Contents {
        Contents::decode(&self.bytes()).expect("contents")
    }

    /// Returns the key's time to live in milliseconds: -1 if it lives forever, -2 if there is none.
    fn ttl(&mut self) -> i64 {
        self.connection.command(&["PTTL", &self.key]).int()
    }

    /// Returns the server's time in milliseconds.
    fn server_ms(&mut self) -> u64 {
        let RedisReply::Array(time) = self.connection.command(&["TIME"]) else { panic!("no time") };
        let [seconds, micros] = [0, 1].map(|nth| time[nth].text().parse::<u64>().unwrap());
        seconds * 1000 + micros / 1000
    }
}

/// A question for one request and no tokens.
fn one() -> Take {
    Take {
        known: KeyId(0),
        fresh: KeyId(7),
        deadline_ms: u64::MAX,
        requests: 1,
        tokens: 0,
        wish_requests: 0,
        wish_tokens: 0,
        limits: [MINUTE, None, None],
        day_end: DayEnd(DAY_END),
        learn: Duration::ZERO,
    }
}

/// The time at which a clock of the tests begins, at the start of a slot.
const BEGIN: u64 = 1_790_000_000_000;

/// The end of that time's day.
const DAY_END: u64 = 1_790_040_000;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn is_granted(reply: &TakeReply) -> bool {
    matches!(reply.verdict, Verdict::Granted { .. })
}

fn charge(slot: u64, requests: u64, tokens: u64) -> SlotCharge {
    SlotCharge { slot: Slot(slot), requests, tokens }
}
