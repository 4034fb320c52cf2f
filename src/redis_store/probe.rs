//! The look at the server: whether it answers in time, who else is there, what all have charged, and whether anything was lost.

use std::{sync::Arc, time::Duration};

use redis::Value;
use tokio::time::{Instant, timeout};

use super::{
    ask::tell,
    driver::Order,
    link::{CONNECT_TIMEOUT, Link, integers, reason_of},
    patience::{Awaited, awaited},
    registry,
    report::AwayReason,
    script::{Contents, SCRIPT},
    shared::{ScopeEntry, StoreShared},
};

/// The most scopes whose contents are read with one look: the last ones that were asked for.
const MIRRORED: usize = 64;

/// The bytes that are read of a key: all of ours, and little of one that is somebody else's.
const MOST_BYTES: u64 = 2_048;

/// The time within which a scope was asked for whose contents are read.
const IN_USE: Duration = Duration::from_secs(60);

/// The time after a loss for which new contents only learn: the others find it out with their own look.
const LOST: Duration = Duration::from_secs(2);

/// The rests of leases that are kept while the server is away.
const MOST_SWEPT: usize = 8_192;

/// The time for which a server must have run before those who use it are taken to have found it.
const FRESH: u64 = 5;

/// The looks at one server.
pub(super) struct Probe {
    shared: Arc<StoreShared>,
    /// The server's id, anew with each start.
    run_id: Option<Box<str>>,
    /// The time of the last look that found the server well.
    looked: Option<Instant>,
    /// True if the server may lack charges of all.
    is_lost: bool,
    /// True if the server has begun so late that others may still be away.
    is_fresh: bool,
    /// The rests of leases that are over, and the closings that the server may have lost.
    pub(super) orders: Vec<Order>,
}

impl Probe {
    pub(super) fn new(shared: Arc<StoreShared>) -> Self {
        Self { shared, run_id: None, looked: None, is_lost: false, is_fresh: false, orders: Vec::new() }
    }

    /// Looks once. It takes a second or two at most.
    pub(super) async fn look(&mut self) {
        if let Err(reason) = self.try_look().await {
            self.shared.failed(Instant::now(), reason);
        }
    }

    async fn try_look(&mut self) -> Result<(), AwayReason> {
        let shared = self.shared.clone();
        let entries = shared.entries();
        let in_use = self.sweep(&entries, Instant::now());
        let known = shared.server.lock().link.clone();
        let link = match known {
            Some(link) => link,
            None => self.connect(&entries).await?,
        };
        let mut commands = vec![registry::note(&shared.settings.prefix, &shared.settings.instance)];
        commands.extend(in_use.iter().map(|entry| {
            let mut command = redis::cmd("GETRANGE");
            command.arg(&*entry.key).arg(0).arg(MOST_BYTES);
            command
        }));
        let sent = Instant::now();
        let mut call = Box::pin(link.call_all(&commands));
        let time = shared.settings.call_timeout;
        let (replies, is_late) = match awaited(&mut call, sent + time, time / 2).await {
            Awaited::InTime(replies) => (replies, false),
            Awaited::Slow(replies) => (replies, true),
            Awaited::Never => {
                shared.failed(Instant::now(), AwayReason::TimedOut);
                let Ok(replies) = timeout(CONNECT_TIMEOUT, call).await else {
                    // A connection that does not answer at all may be dead. One that answers late is kept.
                    shared.server.lock().link = None;
                    return Ok(());
                };
                (replies, true)
            }
        };
        let mut replies = replies.map_err(|error| reason_of(&error))?.into_iter();
        let now = Instant::now();
        let (server_ms, is_noted, instances) = registered(replies.next().unwrap_or_default())?;
        shared.learn(server_ms, sent, now, &link);
        let (is_good, is_away, clock) = {
            let mut server = shared.server.lock();
            server.instances.seen(now, instances);
            (!is_late && server.health.is_good_enough(), !server.health.is_connected(), server.clock)
        };
        let was_here = self.looked.is_some_and(|at| now.saturating_duration_since(at) < registry::NOTED);
        if was_here && !is_noted {
            self.lose(now);
        }
        let is_all = is_away || self.is_lost;
        let mut missed = Vec::new();
        for (entry, reply) in in_use.iter().zip(replies) {
            let Value::BulkString(bytes) = reply else { continue };
            let mut state = entry.state.lock();
            let contents = Contents::decode(&bytes);
            if state.misses(now, contents.as_ref().map(|contents| contents.key)) {
                missed.push(entry.clone());
            }
            if let Some(contents) = contents {
                state.mirrored(sent, &contents, clock);
            }
            if let Some(closing) = Contents::closing(&bytes).filter(|_| !is_all) {
                state.mirrored_closing(sent, closing, clock);
            }
        }
        if is_late {
            // It tells what all have charged all the same.
            return Err(AwayReason::TimedOut);
        }
        let has_untold = |entry: &&Arc<ScopeEntry>| {
            let state = entry.state.lock();
            if is_all { state.has_charges() } else { state.ledger.has_untold() }
        };
        let mut untold: Vec<_> = entries.iter().filter(has_untold).cloned().collect();
        untold.retain(|entry| !missed.iter().any(|missed| Arc::ptr_eq(missed, entry)));
        untold.extend(missed);
        tell(&shared, &link, &untold).await?;
        if is_away && !is_good {
            // It knows all that was taken until now, so that nobody has to wait for this instance; what is taken meanwhile is
            // told with the return.
            return Ok(());
        }
        if is_all {
            let closed = entries.iter().filter_map(|entry| Some((entry, entry.state.lock().closed(now)?)));
            let orders = closed.map(|(entry, (look, ends))| Order::Close(entry.clone(), look, ends));
            self.orders.extend(orders);
        }
        self.is_lost = false;
        let others_away = self.looked.is_some() || self.is_fresh;
        self.looked = Some(now);
        if is_away {
            self.is_fresh = false;
            let change = shared.server.lock().health.returned(Instant::now(), others_away);
            shared.log(change);
        }
        if let Some(news) = &shared.settings.news {
            news.exchange(&link, &shared.settings, server_ms).await;
        }
        Ok(())
    }

    /// Notes that the server has lost its keys.
    fn lose(&mut self, now: Instant) {
        self.is_lost = true;
        self.shared.server.lock().learn_until = Some(now + LOST);
    }

    /// Ends leases that are over, and returns the scopes whose contents are to be read, the last used first.
    fn sweep(&mut self, entries: &[Arc<ScopeEntry>], now: Instant) -> Vec<Arc<ScopeEntry>> {
        let mut in_use = Vec::new();
        for entry in entries {
            let mut state = entry.state.lock();
            if let Some(rest) = state.sweep(now).filter(|_| self.orders.len() < MOST_SWEPT) {
                self.orders.push(Order::Correct(entry.clone(), rest));
            }
            if let Some(idle) = state.idle(now).filter(|idle| *idle < IN_USE) {
                in_use.push((idle, entry));
            }
        }
        if in_use.len() > MIRRORED {
            in_use.select_nth_unstable_by_key(MIRRORED, |(idle, _)| *idle);
            in_use.truncate(MIRRORED);
        }
        in_use.into_iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// Connects, and learns which server it is.
    async fn connect(&mut self, entries: &[Arc<ScopeEntry>]) -> Result<Link, AwayReason> {
        let shared = self.shared.clone();
        let link = Link::open(&shared.settings.address).await?;
        let mut commands = Vec::new();
        for (name, argument) in [("INFO", "server"), ("INFO", "memory")] {
            let mut command = redis::cmd(name);
            command.arg(argument);
            commands.push(command);
        }
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(SCRIPT);
        commands.push(load);
        // Any of them may be forbidden: nothing depends on them but what is known of the server.
        let replies = timeout(CONNECT_TIMEOUT, link.call_all(&commands)).await;
        let replies = replies.map_err(|_| AwayReason::TimedOut)?.map_err(|error| reason_of(&error))?;
        let text = |nth: usize| replies.get(nth).map(info_text).unwrap_or_default();
        let facts = ServerFacts::read(&text(0), &text(1));
        if !link.is_cluster() && facts.run_id.is_some() && facts.run_id != self.run_id {
            let now = Instant::now();
            self.is_fresh = facts.uptime < FRESH;
            if self.run_id.is_some() || self.is_fresh {
                self.lose(now);
            }
            entries.iter().for_each(|entry| entry.state.lock().is_reset = self.run_id.is_some());
            self.run_id = facts.run_id;
        }
        let mut server = shared.server.lock();
        if let Some(policy) = &facts.eviction
            && server.eviction != facts.eviction
        {
            tracing::warn!(
                address = %shared.settings.address,
                policy = &**policy,
                "the shared quota's server may evict keys when its memory is full: set maxmemory-policy to noeviction"
            );
        }
        (server.name, server.eviction) = (facts.name, facts.eviction);
        server.link = Some(link.clone());
        Ok(link)
    }
}

/// Reads the registry's reply.
fn registered(reply: Value) -> Result<(u64, bool, u32), AwayReason> {
    let reply = reply.extract_error().and_then(integers);
    match *reply.map_err(|error| reason_of(&error))? {
        [now, had, count] => {
            let number = |value| u64::try_from(value).map_err(|_| AwayReason::Error);
            Ok((number(now)?, had == 1, u32::try_from(count).unwrap_or(1)))
        }
        _ => Err(AwayReason::Error),
    }
}

/// Returns the text of an INFO, of the first node that said one.
fn info_text(reply: &Value) -> String {
    match reply {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Map(nodes) => nodes.iter().map(|(_, text)| info_text(text)).next().unwrap_or_default(),
        _ => String::new(),
    }
}

/// The facts that a server says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServerFacts {
    run_id: Option<Box<str>>,
    name: Option<Box<str>>,
    /// The seconds since its start.
    uptime: u64,
    /// The policy by which it may evict keys.
    eviction: Option<Box<str>>,
}

impl ServerFacts {
    fn read(server: &str, memory: &str) -> Self {
        fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
            let fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.filter(|(known, _)| *known == name).map(|(_, value)| value.trim()).next()
        }
        let version = |name: &str, field: Option<&str>| field.map(|version| format!("{name} {version}").into());
        // Valkey says the version of Redis that it replaces, too.
        let name = version("valkey", field(server, "valkey_version"))
            .or_else(|| version("redis", field(server, "redis_version")));
        let has_limit = field(memory, "maxmemory").is_some_and(|limit| limit != "0");
        let policy = field(memory, "maxmemory_policy").filter(|policy| has_limit && *policy != "noeviction");
        Self {
            run_id: field(server, "run_id").map(Into::into),
            name,
            uptime: field(server, "uptime_in_seconds").and_then(|time| time.parse().ok()).unwrap_or(u64::MAX),
            eviction: policy.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_says_of_itself() {
        let server = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.8\r\nrun_id:abc\r\nuptime_in_seconds:7\r\n";
        let facts = ServerFacts::read(server, "# Memory\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert_eq!(
            facts,
            ServerFacts {
                run_id: Some("abc".into()),
                name: Some("valkey 8.1.8".into()),
                uptime: 7,
                eviction: Some("allkeys-lru".into())
            }
        );
        let facts = ServerFacts::read("redis_version:6.2.14", "maxmemory:0\r\nmaxmemory_policy:allkeys-lru");
        assert_eq!((facts.name.as_deref(), facts.eviction), (Some("redis 6.2.14"), None));
        assert_eq!(ServerFacts::read("", "maxmemory:1\nmaxmemory_policy:noeviction").eviction, None);
    }
}
