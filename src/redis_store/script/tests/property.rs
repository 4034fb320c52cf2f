//! Four clients ask in any order, and each reply and all that is kept are what the plain account says.

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;

use super::{
    Asker, BEGIN, Closing, Contents, Correct, DAY_END, DayEnd, Dimension, KeyId, RedisServer, Slot, Take, TakeReply,
    Tell, Verdict, charge, is_granted, model::PlainContents, ms,
};

/// The number of steps in each of the two runs.
const STEPS: u32 = 10_000;

/// A client, and what it knows.
struct Client {
    asker: Asker,
    known: KeyId,
    granted: VecDeque<Granted>,
    /// The difference between its clock and the server's, in milliseconds.
    clock_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    number: usize,
    key: KeyId,
    slot: Slot,
    day_end: DayEnd,
    requests: u64,
    tokens: u64,
}

/// A charge at its own time: it is in the upstream's minute from then on.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: usize,
    at: u64,
    requests: u64,
    tokens: u64,
}

struct Run {
    rng: Rng,
    now: u64,
    clock_goes_back: bool,
    clients: Vec<Client>,
    plain: PlainContents,
    sent: Vec<Sent>,
    granted: usize,
    verdicts: [u32; 6],
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn four_clients_in_any_order_are_counted_exactly_and_no_minute_is_over() {
    run(1, false);
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn four_clients_are_counted_exactly_by_a_clock_that_goes_back() {
    run(2, true);
}

fn run(seed: u64, clock_goes_back: bool) {
    let seed = std::env::var("TOWER_GEMINI_SEED").map_or(seed, |seed| seed.parse().expect("a number"));
    let server = RedisServer::start();
    let client = |clock_ms| Client {
        asker: Asker::with_clock(&server, "k", BEGIN),
        known: KeyId(0),
        granted: VecDeque::new(),
        clock_ms,
    };
    let mut run = Run {
        rng: Rng::with_seed(seed),
        now: BEGIN,
        clock_goes_back,
        clients: [0, 40, -60, 1500].map(client).into(),
        plain: PlainContents::default(),
        sent: Vec::new(),
        granted: 0,
        verdicts: [0; 6],
    };
    for step in 0..STEPS {
        run.pass_time();
        let nth = run.rng.usize(..4);
        run.clients[nth].asker.now_ms = Some(run.now);
        let what = match run.rng.u32(..1000) {
            0..700 => run.take(nth),
            700..900 => run.correct(nth),
            900..950 => run.tell(nth),
            950..962 => run.close(nth),
            962..975 => run.open(nth),
            975..978 => run.lose(nth),
            _ => run.take_at_once(),
        };
        let context = format!("seed {seed}, step {step}, at {}: {what}", run.now);
        run.compare(&context);
    }
    println!("seed {seed}: granted, full, closed, learning, lost, late: {:?}", run.verdicts);
    assert!(run.verdicts.iter().all(|&count| count > 10), "each verdict was seen: {:?}", run.verdicts);
}

impl Run {
    fn pass_time(&mut self) {
        self.now += match self.rng.u32(..1000) {
            0..800 => self.rng.u64(..60),
            800..970 => self.rng.u64(..1500),
            970..998 => self.rng.u64(..70_000),
            _ => self.rng.u64(..90_000_000),
        };
        if self.clock_goes_back && self.rng.u32(..100) == 0 {
            let back = [500, 1000, 1500, 3_600_000];
            self.now -= back[self.rng.usize(..4)];
        }
    }

    fn day_end(&mut self, nth: usize) -> DayEnd {
        let now = self.now.saturating_add_signed(self.clients[nth].clock_ms);
        let days = now.saturating_sub(DAY_END * 1000) / 86_400_000 + u64::from(now >= DAY_END * 1000);
        // A clock is a day ahead, or two.
        let days = days + if self.rng.u32(..500) == 0 { self.rng.u64(1..3) } else { 0 };
        DayEnd(DAY_END + days * 86_400)
    }

    fn question(&mut self, nth: usize) -> Take {
        let day_end = self.day_end(nth);
        let (rng, now) = (&mut self.rng, self.now);
        let known = match rng.u32(..100) {
            0..5 => KeyId(rng.u32(1..)),
            5..30 => KeyId(0),
            _ => self.clients[nth].known,
        };
        let any = |rng: &mut Rng, limits: &[Option<u64>]| limits[rng.usize(..limits.len())];
        let limits = [
            any(rng, &[None, Some(5), Some(60), Some(60), Some(600), Some(6000), Some(0)]),
            any(rng, &[None, Some(100), Some(20_000), Some(20_000), Some(2_000_000), Some(0)]),
            any(rng, &[None, None, Some(50), Some(2000), Some(u64::MAX)]),
        ];
        let huge = self.clock_goes_back && rng.u32(..1000) == 0;
        Take {
            known,
            fresh: KeyId(rng.u32(1..)),
            deadline_ms: if rng.u32(..30) == 0 { now - rng.u64(..30) } else { now + 1 + rng.u64(..30) },
            requests: if rng.u32(..10) == 0 { rng.u64(..60) } else { rng.u64(..3) },
            tokens: if huge { u64::MAX >> rng.u32(..40) } else { rng.u64(..500) },
            wish_requests: if rng.u32(..5) == 0 { rng.u64(..100) } else { 0 },
            wish_tokens: if rng.u32(..5) == 0 { rng.u64(..10_000) } else { 0 },
            limits,
            day_end,
            learn: if rng.bool() { Duration::ZERO } else { ms(1000) },
        }
    }

    fn take(&mut self, nth: usize) -> String {
        let question = self.question(nth);
        let reply = self.clients[nth].asker.take(&question);
        self.check_take(nth, &question, &reply);
        format!("{question:?}")
    }

    /// All clients ask at once, and the server chooses the order.
    fn take_at_once(&mut self) -> String {
        let questions: Vec<_> = (0..4).map(|nth| Take { deadline_ms: u64::MAX, ..self.question(nth) }).collect();
        for (client, question) in self.clients.iter_mut().zip(&questions) {
            client.asker.now_ms = Some(self.now);
            client.asker.send(&question.encode());
        }
        let replies: Vec<_> = self
            .clients
            .iter_mut()
            .map(|client| TakeReply::decode(&client.asker.receive()).expect("a reply"))
            .collect();
        let order = orders()
            .into_iter()
            .find(|order| {
                let mut plain = self.plain.clone();
                order.iter().all(|&nth| plain.take(self.now, &questions[nth]) == replies[nth])
            })
            .unwrap_or_else(|| panic!("no order of {questions:?} gives {replies:?}"));
        for nth in order {
            self.check_take(nth, &questions[nth], &replies[nth]);
        }
        format!("{questions:?}")
    }

    fn check_take(&mut self, nth: usize, question: &Take, reply: &TakeReply) {
        let (before, now) = (self.plain.clone(), self.now);
        let expected = self.plain.take(now, question);
        assert_eq!(*reply, expected, "to {question:?} at {now}, with {before:?}");
        let known = match reply.verdict {
            Verdict::Late => self.clients[nth].known,
            Verdict::Lost => self.clients[nth].known,
            _ => reply.key,
        };
        self.clients[nth].known = known;
        let verdict = match reply.verdict {
            Verdict::Granted { .. } => 0,
            Verdict::Full { .. } => 1,
            Verdict::Closed { .. } => 2,
            Verdict::Learning { .. } => 3,
            Verdict::Lost => 4,
            Verdict::Late => 5,
        };
        self.verdicts[verdict] += 1;
        match reply.verdict {
            Verdict::Granted { slot, lease_requests, lease_tokens, .. } => {
                let requests = question.requests + lease_requests;
                let tokens = question.tokens.min(u32::MAX.into()) + lease_tokens;
                self.granted += 1;
                let number = self.granted;
                self.sent.push(Sent { number, at: now, requests, tokens });
                let granted = Granted { number, key: reply.key, slot, day_end: question.day_end, requests, tokens };
                self.clients[nth].granted.push_back(granted);
                if self.clients[nth].granted.len() > 300 {
                    self.clients[nth].granted.pop_front();
                }
                self.check_minute(question);
            }
            Verdict::Full { dimension, wait } => self.check_wait(question, dimension, wait),
            _ => {}
        }
    }

    /// Checks that all sent in the 60 s before now is within the limits; a network's delay of 250 ms changes nothing.
    fn check_minute(&mut self, question: &Take) {
        if self.clock_goes_back {
            return;
        }
        self.sent.retain(|sent| sent.at + 60_250 > self.now);
        let [requests, tokens] =
            [|sent: &Sent| sent.requests, |sent: &Sent| sent.tokens].map(|of| self.sent.iter().map(of).sum::<u64>());
        assert!(question.limits[0].is_none_or(|limit| requests <= limit), "{requests} requests, {question:?}");
        assert!(question.limits[1].is_none_or(|limit| tokens <= limit), "{tokens} tokens, {question:?}");
    }

    /// The wait is enough, and no millisecond too long.
    fn check_wait(&self, question: &Take, dimension: Dimension, wait: Duration) {
        let fits_ever = question.limits[0].is_none_or(|limit| question.requests <= limit)
            && question.limits[1].is_none_or(|limit| question.tokens <= limit)
            && question.limits[2].is_none_or(|limit| question.requests <= limit);
        if dimension == Dimension::RequestsPerDay || !fits_ever {
            return;
        }
        let again = |now| {
            let reply = self.plain.clone().take(now, &Take { deadline_ms: u64::MAX, ..*question });
            matches!(reply.verdict, Verdict::Full { dimension, .. } if dimension != Dimension::RequestsPerDay)
        };
        let until = self.now + u64::try_from(wait.as_millis()).unwrap();
        assert!(!again(until), "{wait:?} is not enough for {question:?}");
        assert!(again(until - 1), "{wait:?} is too long for {question:?}");
    }

    fn correct(&mut self, nth: usize) -> String {
        let Some(&granted) = self.rng.choice(&self.clients[nth].granted) else {
            return "nothing to correct".to_owned();
        };
        let rng = &mut self.rng;
        let requests_back = if rng.bool() { granted.requests } else { rng.u64(..=granted.requests) };
        let tokens_after = match rng.u32(..4) {
            0 => 0,
            1 => granted.tokens.saturating_add(rng.u64(..100)),
            _ => rng.u64(..=granted.tokens),
        };
        let correct = Correct {
            key: if rng.u32(..20) == 0 { KeyId(rng.u32(..)) } else { granted.key },
            slot: granted.slot,
            day_end: granted.day_end,
            requests_back,
            tokens_before: granted.tokens,
            tokens_after,
        };
        // Each charge is corrected once: what is left of it is not known to the contents.
        self.clients[nth].granted.retain(|other| other.number != granted.number);
        self.clients[nth].asker.correct(&correct);
        if correct.key == self.plain.key {
            for sent in self.sent.iter_mut().filter(|sent| sent.number == granted.number) {
                (sent.requests, sent.tokens) = (sent.requests - requests_back, tokens_after);
            }
        }
        self.plain.correct(self.now, &correct);
        format!("{correct:?}")
    }

    fn tell(&mut self, nth: usize) -> String {
        let day_end = self.day_end(nth);
        let now_slot = self.now / 500;
        let rng = &mut self.rng;
        let mut charges = |most| {
            (0..rng.usize(..most))
                .map(|_| charge(now_slot + 3 - rng.u64(..140), rng.u64(..4), rng.u64(..300)))
                .collect()
        };
        let (all, untold) = (charges(40), charges(5));
        let tell = Tell {
            deadline_ms: if rng.u32(..10) == 0 { self.now } else { u64::MAX },
            known: if rng.u32(..3) == 0 { KeyId(rng.u32(..)) } else { self.clients[nth].known },
            fresh: KeyId(rng.u32(1..)),
            reset: rng.u32(..10) == 0,
            all,
            untold,
            day_end,
            day_all: rng.u64(..40),
            day_untold: rng.u64(..5),
            learn: ms(rng.u64(..2) * 700),
        };
        let reply = self.clients[nth].asker.tell(&tell);
        let before = self.plain.key;
        assert_eq!(reply.is_told, self.plain.tell(self.now, &tell));
        if reply.is_told {
            assert_eq!(reply.key, self.plain.key);
            self.clients[nth].known = reply.key;
            if before != reply.key {
                self.sent.clear();
            }
        }
        assert_eq!(reply.now_ms, self.now);
        format!("{tell:?}")
    }

    fn close(&mut self, nth: usize) -> String {
        let look = self.rng.u64(..3000);
        let closing = Closing { look: ms(look), ends: ms(look + self.rng.u64(..8000)) };
        self.clients[nth].asker.close(closing.look, closing.ends);
        self.plain.close(self.now, closing);
        format!("{closing:?}")
    }

    fn open(&mut self, nth: usize) -> String {
        self.clients[nth].asker.open();
        self.plain.open(self.now);
        "open".to_owned()
    }

    /// The key is deleted, or somebody else writes to it.
    fn lose(&mut self, nth: usize) -> String {
        let connection = &mut self.clients[nth].asker.connection;
        connection.command(&["DEL", "k"]);
        match self.rng.u32(..5) {
            0 => drop(connection.command(&["SET", "k", "x"])),
            1 => drop(connection.command(&["SET", "k", &"x".repeat(2000)])),
            2 => drop(connection.command(&["RPUSH", "k", "x"])),
            _ => {}
        }
        self.plain = PlainContents::default();
        self.sent.clear();
        "lose".to_owned()
    }

    fn compare(&mut self, context: &str) {
        let asker = &mut self.clients[0].asker;
        if self.plain.key == KeyId(0) {
            return;
        }
        let bytes = asker.bytes();
        let contents = Contents::decode(&bytes).expect(context);
        let plain = &self.plain;
        assert_eq!(contents.key, plain.key, "{context}");
        assert_eq!(contents.charges, plain.charges(), "{context}");
        assert_eq!((contents.day_end.0, contents.today), (plain.day_end, plain.today), "{context}");
        let sum = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((sum(24), sum(32)), plain.sums(), "{context}");
        assert!(asker.ttl() > 0, "{context}");
        assert!(bytes.len() <= 112 + 122 * 8, "{context}");
    }
}

/// Returns all orders of four.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for first in 0..4 {
        for second in (0..4).filter(|&nth| nth != first) {
            for third in (0..4).filter(|&nth| nth != first && nth != second) {
                orders.push([first, second, third, 6 - first - second - third]);
            }
        }
    }
    orders
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn four_clients_at_once_are_granted_exactly_the_limit() {
    let server = RedisServer::start();
    for (requests, wish) in [(1, 0), (1, 7), (3, 0)] {
        let key = format!("{requests} {wish}");
        let granted: u64 = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut asker = Asker::new(&server, &key);
                        let question =
                            Take { requests, wish_requests: wish, limits: [Some(600), None, None], ..super::one() };
                        let replies = (0..1000).map(|_| asker.take(&question));
                        replies
                            .filter(is_granted)
                            .map(|reply| match reply.verdict {
                                Verdict::Granted { lease_requests, .. } => requests + lease_requests,
                                _ => 0,
                            })
                            .sum::<u64>()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(granted, 600, "{key}");
        let contents = Asker::new(&server, &key).contents();
        assert_eq!((contents.today, contents.charges.iter().map(|charge| charge.requests).sum::<u64>()), (600, 600));
    }
}
