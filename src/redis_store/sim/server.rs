//! A plain server, and connections to it in virtual time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Arg, Cmd, RedisError, RedisResult, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};

use super::super::script::{
    Correct, DayEnd, KeyId, SCRIPT, Slot, SlotCharge, Take, TakeReply, Tell, Verdict, tests::model::PlainContents,
};
use crate::quota::{Closing, Dimension};

/// The server's clock at the beginning.
const BEGIN_MS: u64 = 1_790_000_000_123;

/// An event that befalls the server or the network.
#[derive(Clone, Debug)]
pub(super) enum SimFault {
    None,
    Stop(Duration),
    /// `age`: the age of the data that it has when it is back; `None`: it has none.
    Kill {
        down: Duration,
        age: Option<Duration>,
    },
    Flush,
    Evict,
    Slow(Duration, Duration),
    /// It is stopped every 300 ms for 300 ms, that many times.
    Flap(u32),
    Cut(Vec<usize>, Duration),
    Promote {
        age: Duration,
        clock: i64,
    },
    Step(i64),
}

pub(in super::super) struct SimServer {
    state: Mutex<SimState>,
    begun: Instant,
}

struct SimState {
    data: SimData,
    /// The data of the last seconds, each tenth of one.
    past: Vec<(Instant, SimData)>,
    offset_ms: i64,
    is_up: bool,
    up_since: Instant,
    run: u32,
    stopped_until: Instant,
    slow: Duration,
    cut_until: Vec<Instant>,
}

#[derive(Clone, Default)]
struct SimData {
    scopes: HashMap<Vec<u8>, PlainContents>,
    instances: HashMap<Vec<u8>, u64>,
}

/// The address of a plain server, as one instance sees it.
#[derive(Clone)]
pub(in super::super) struct SimAddress {
    pub(super) server: Arc<SimServer>,
    pub(super) instance: usize,
}

#[derive(Clone)]
pub(in super::super) struct SimLink {
    requests: mpsc::UnboundedSender<SimRequest>,
}

struct SimRequest {
    commands: Vec<Cmd>,
    arrives: Instant,
    reply: oneshot::Sender<Vec<Value>>,
}

impl SimServer {
    pub(super) fn new(instances: usize) -> Arc<Self> {
        let now = Instant::now();
        let state = SimState {
            data: SimData::default(),
            past: Vec::new(),
            offset_ms: 0,
            is_up: true,
            up_since: now - Duration::from_secs(10),
            run: 1,
            stopped_until: now,
            slow: Duration::ZERO,
            cut_until: vec![now; instances],
        };
        let server = Arc::new(Self { state: Mutex::new(state), begun: now });
        let weak = Arc::downgrade(&server);
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(100)).await;
                let Some(server) = weak.upgrade() else { return };
                let mut state = server.state.lock();
                let now = Instant::now();
                if state.is_up && state.stopped_until <= now {
                    let data = state.data.clone();
                    state.past.push((now, data));
                    if state.past.len() > 100 {
                        state.past.remove(0);
                    }
                }
            }
        });
        server
    }

    fn now_ms(&self, state: &SimState) -> u64 {
        (BEGIN_MS + self.begun.elapsed().as_millis() as u64).saturating_add_signed(state.offset_ms)
    }

    pub(super) async fn suffer(self: &Arc<Self>, fault: SimFault) {
        let now = Instant::now();
        let old = |state: &SimState, age: Duration| {
            let past = state.past.iter().rev().find(|(at, _)| *at + age <= now);
            past.map(|(_, data)| data.clone()).unwrap_or_default()
        };
        match fault {
            SimFault::None => {}
            SimFault::Stop(time) => self.state.lock().stopped_until = now + time,
            SimFault::Kill { down, age } => {
                let data = {
                    let mut state = self.state.lock();
                    (state.is_up, state.run, state.stopped_until) = (false, state.run + 1, now);
                    age.map(|age| old(&state, age)).unwrap_or_default()
                };
                sleep(down).await;
                let mut state = self.state.lock();
                (state.is_up, state.data, state.up_since) = (true, data, Instant::now());
                state.past.clear();
            }
            SimFault::Evict => self.state.lock().data.scopes.clear(),
            SimFault::Flush => self.state.lock().data = SimData::default(),
            SimFault::Slow(by, time) => {
                self.state.lock().slow = by;
                let server = self.clone();
                tokio::spawn(async move {
                    sleep(time).await;
                    server.state.lock().slow = Duration::ZERO;
                });
            }
            SimFault::Flap(times) => {
                for _ in 0..times {
                    self.state.lock().stopped_until = Instant::now() + Duration::from_millis(300);
                    sleep(Duration::from_millis(600)).await;
                }
            }
            SimFault::Cut(instances, time) => {
                let mut state = self.state.lock();
                for nth in instances {
                    state.cut_until[nth] = now + time;
                }
            }
            SimFault::Promote { age, clock } => {
                let mut state = self.state.lock();
                state.data = old(&state, age);
                state.run += 1;
                state.offset_ms += clock;
            }
            SimFault::Step(ms) => self.state.lock().offset_ms += ms,
        }
    }
}

impl SimAddress {
    fn way(&self) -> Duration {
        Duration::from_micros(fastrand::u64(50..1_500)) + self.server.state.lock().slow
    }

    async fn passable(&self) {
        loop {
            let until = self.server.state.lock().cut_until[self.instance];
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    pub(in super::super) async fn open(&self) -> RedisResult<SimLink> {
        sleep(self.way() * 2).await;
        self.passable().await;
        let run = {
            let state = self.server.state.lock();
            if !state.is_up {
                return Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
            }
            state.run
        };
        let (requests, waiting) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().serve(run, waiting));
        Ok(SimLink { requests })
    }

    /// Serves one connection.
    async fn serve(self, run: u32, mut requests: mpsc::UnboundedReceiver<SimRequest>) {
        let mut replied = Instant::now();
        while let Some(SimRequest { commands, arrives, reply }) = requests.recv().await {
            sleep_until(arrives + self.way()).await;
            self.passable().await;
            let replies = loop {
                let until = {
                    let mut state = self.server.state.lock();
                    if !state.is_up || state.run != run {
                        return;
                    }
                    if state.stopped_until <= Instant::now() {
                        let now = self.server.now_ms(&state);
                        let up = state.up_since.elapsed();
                        break commands.iter().map(|command| state.data.run(command, now, run, up)).collect();
                    }
                    state.stopped_until
                };
                sleep_until(until).await;
            };
            replied = replied.max(Instant::now() + self.way());
            let (at, address) = (replied, self.clone());
            tokio::spawn(async move {
                sleep_until(at).await;
                address.passable().await;
                let _ = reply.send(replies);
            });
        }
    }
}

impl SimLink {
    pub(in super::super) async fn call_all(&self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let (reply, replies) = oneshot::channel();
        let request = SimRequest { commands: commands.to_vec(), arrives: Instant::now(), reply };
        let gone = || RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        self.requests.send(request).map_err(|_| gone())?;
        replies.await.map_err(|_| gone())
    }
}

/// The numbers of an argument.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn int(&mut self) -> u64 {
        let (first, rest) = self.0.split_first_chunk::<4>().unwrap();
        self.0 = rest;
        u32::from_le_bytes(*first).into()
    }

    fn long(&mut self) -> u64 {
        let (first, rest) = self.0.split_first_chunk::<8>().unwrap();
        self.0 = rest;
        u64::from_le_bytes(*first)
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        *first
    }

    fn charges(&mut self, count: u64) -> Vec<SlotCharge> {
        (0..count).map(|_| SlotCharge { slot: Slot(self.long()), requests: self.int(), tokens: self.int() }).collect()
    }
}

impl SimData {
    fn run(&mut self, command: &Cmd, now: u64, run: u32, up: Duration) -> Value {
        let arguments: Vec<&[u8]> = command
            .args_iter()
            .map(|argument| if let Arg::Simple(bytes) = argument { bytes } else { unreachable!() })
            .collect();
        match arguments[..] {
            [b"EVALSHA", _, b"1", key, argument] => self.script(key, argument, now),
            [b"EVAL", text, b"1", key, argument] if text == SCRIPT.as_bytes() => self.script(key, argument, now),
            [b"EVAL", _, b"1", _, instance, ..] => {
                let had = self.instances.contains_key(instance);
                self.instances.retain(|_, at| *at + 3_000 > now && *at < now + 3_000);
                self.instances.insert(instance.to_vec(), now);
                ints(&[now as i64, had.into(), self.instances.len() as i64])
            }
            [b"GETRANGE", key, ..] => {
                Value::BulkString(self.scopes.get(key).map(PlainContents::bytes).unwrap_or_default())
            }
            [b"INFO", b"server"] => {
                Value::BulkString(format!("run_id:{run}\r\nuptime_in_seconds:{}\r\n", up.as_secs()).into())
            }
            [b"INFO", ..] => Value::BulkString(Vec::new()),
            [b"SCRIPT", ..] => Value::Okay,
            [b"ZREM", _, instance] => {
                self.instances.remove(instance);
                Value::Int(1)
            }
            _ => panic!("an unknown command"),
        }
    }

    fn script(&mut self, key: &[u8], argument: &[u8], now: u64) -> Value {
        let contents = self.scopes.entry(key.to_vec()).or_default();
        if contents.is_over(now) {
            *contents = PlainContents::default();
        }
        let mut read = Reader(argument);
        let op = read.byte();
        let deadline_ms = read.long();
        let [known, fresh] = [(); 2].map(|()| KeyId(read.int() as u32));
        let day_end = DayEnd(read.long());
        let learn = Duration::from_millis(read.int());
        match op {
            1 => {
                let [requests, tokens, wish_requests, wish_tokens] = [(); 4].map(|()| read.int());
                let limits = [(); 3].map(|()| Some(read.long()).filter(|limit| *limit < 1 << 53));
                let take = Take {
                    known,
                    fresh,
                    deadline_ms,
                    requests,
                    tokens,
                    wish_requests,
                    wish_tokens,
                    limits,
                    day_end,
                    learn,
                };
                taken(&contents.take(now, &take))
            }
            2 => {
                let slot = Slot(read.long());
                let [requests_back, tokens_before, tokens_after] = [(); 3].map(|()| read.int());
                contents
                    .correct(now, &Correct { key: known, slot, day_end, requests_back, tokens_before, tokens_after });
                ints(&[0, now as i64, contents.key.0.into()])
            }
            3 => {
                let reset = read.byte() == 1;
                let [day_all, day_untold] = [(); 2].map(|()| read.long());
                let [all, untold] = [(); 2].map(|()| read.int());
                let [all, untold] = [all, untold].map(|count| read.charges(count));
                let tell = Tell { deadline_ms, known, fresh, reset, all, untold, day_end, day_all, day_untold, learn };
                let code = if contents.tell(now, &tell) { 0 } else { 5 };
                ints(&[code, now as i64, contents.key.0.into()])
            }
            4 => {
                let [look, ends] = [(); 2].map(|()| Duration::from_millis(read.long()));
                contents.close(now, Closing { look, ends });
                ints(&[0, now as i64, contents.key.0.into()])
            }
            _ => {
                contents.open(now);
                ints(&[0, now as i64, contents.key.0.into()])
            }
        }
    }
}

fn taken(reply: &TakeReply) -> Value {
    let ms = |time: Duration| time.as_millis() as i64;
    let [requests, tokens, today] = reply.used.map(|used| used as i64);
    let (code, rest) = match reply.verdict {
        Verdict::Lost => return ints(&[4, reply.now_ms as i64, reply.key.0.into()]),
        Verdict::Late => return ints(&[5, reply.now_ms as i64, 0]),
        Verdict::Granted { slot, lease_requests, lease_tokens, is_look } => {
            (0, vec![slot.0 as i64, lease_requests as i64, lease_tokens as i64, is_look.into()])
        }
        Verdict::Full { dimension, wait } => {
            let code = match dimension {
                Dimension::RequestsPerMinute => 0,
                Dimension::InputTokensPerMinute => 1,
                _ => 2,
            };
            (1, vec![code, ms(wait)])
        }
        Verdict::Closed { look, ends } => (2, vec![ms(look), ms(ends)]),
        Verdict::Learning { wait } => (3, vec![ms(wait)]),
    };
    let mut all = vec![code, reply.now_ms as i64, reply.key.0.into(), requests, tokens, today];
    all.extend(rest);
    ints(&all)
}

fn ints(values: &[i64]) -> Value {
    Value::Array(values.iter().copied().map(Value::Int).collect())
}
