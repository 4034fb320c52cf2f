//! The server's own clock: waits, times to live, deadlines, and a server of a Cluster.

use std::thread::sleep;

use super::{
    Asker, DayEnd, KeyId, RedisReply, RedisServer, Take, TakeReply, Tell, Verdict, charge, is_granted, ms, one,
};

fn day_end(asker: &mut Asker, hours: u64) -> DayEnd {
    DayEnd(asker.server_ms() / 1000 + hours * 3600)
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn each_wait_is_enough_and_not_half_a_second_too_long() {
    let server = RedisServer::start();
    let mut asker = Asker::new(&server, "k");
    // Four charges that fall out in the next seconds.
    let slot = asker.server_ms() / 500;
    let all = [119, 118, 117, 116].map(|ago| charge(slot - ago, 1, 10)).to_vec();
    asker.tell(&Tell { deadline_ms: u64::MAX, fresh: KeyId(7), all, ..Tell::default() });
    let question = Take { tokens: 10, limits: [Some(4), None, None], ..one() };
    for nth in 0..4 {
        let TakeReply { now_ms, verdict: Verdict::Full { wait, .. }, .. } = asker.take(&question) else {
            panic!("charge {nth} was granted at once")
        };
        // The charge was made in its slot, so that it leaves the upstream's minute with the slack half a second before at most.
        let left_at = (slot - 119 + nth) * 500 + 60_250;
        let until = now_ms + u64::try_from(wait.as_millis()).unwrap();
        assert!((left_at..=left_at + 500).contains(&until), "{until} for {left_at}");
        sleep(wait.saturating_sub(ms(60)));
        let reply = asker.take(&question);
        assert!(reply.now_ms >= until || !is_granted(&reply), "too early: {reply:?}");
        if !is_granted(&reply) {
            sleep(ms(until.saturating_sub(reply.now_ms)));
            while asker.server_ms() < until {}
            let reply = asker.take(&question);
            assert!(is_granted(&reply), "the wait was not enough: {reply:?}");
        }
    }
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn each_key_ends_after_its_charges_its_day_and_its_closing() {
    let server = RedisServer::start();
    let mut asker = Asker::new(&server, "minute");
    let tomorrow = day_end(&mut asker, 10);
    let question = Take { day_end: tomorrow, limits: [None; 3], ..one() };
    asker.take(&question);
    assert!((61_500..=62_000).contains(&asker.ttl()), "{}", asker.ttl());
    sleep(ms(600));
    let before = asker.ttl();
    asker.take(&Take { limits: [Some(0), None, None], ..question });
    assert!(asker.ttl() > before + 400, "a refusal in a new slot prolongs it");

    asker.key = "day".to_owned();
    asker.take(&question);
    asker.take(&Take { limits: [None, None, Some(9)], ..question });
    let hours = i64::try_from(tomorrow.0 * 1000 - asker.server_ms()).unwrap() + 60_000;
    assert!((hours - 1000..=hours).contains(&asker.ttl()), "{} of {hours}", asker.ttl());
    sleep(ms(600));
    asker.take(&question);
    assert!(asker.ttl() > hours - 2000, "who counts no days does not shorten it");

    asker.key = "closed".to_owned();
    asker.close(ms(1000), ms(600_000));
    assert!((659_000..=660_000).contains(&asker.ttl()));
    asker.take(&question);
    assert!((659_000..=660_000).contains(&asker.ttl()));

    asker.key = "past".to_owned();
    asker.take(&Take { day_end: DayEnd(tomorrow.0 - 20 * 3600), limits: [None, None, Some(9)], ..one() });
    assert!((61_500..=62_000).contains(&asker.ttl()));
    asker.close(ms(0), ms(0));
    assert!((61_500..=62_000).contains(&asker.ttl()));

    asker.key = "told".to_owned();
    asker.tell(&Tell { deadline_ms: u64::MAX, fresh: KeyId(7), day_end: tomorrow, day_all: 3, ..Tell::default() });
    assert!(asker.ttl() > hours - 3000);

    let keys = server.command(&["KEYS", "*"]);
    let RedisReply::Array(keys) = keys else { panic!("{keys:?}") };
    assert_eq!(keys.len(), 5, "the script makes no other key");
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_stopped_server_charges_nothing_of_what_it_finds_when_it_goes_on() {
    let server = RedisServer::start();
    let mut asker = Asker::new(&server, "k");
    let mut other = Asker::new(&server, "k");
    asker.take(&one());
    for nth in 0..5 {
        let now = asker.server_ms();
        server.pause();
        asker.send(&Take { deadline_ms: now + 20, ..one() }.encode());
        let told =
            Tell { deadline_ms: now + 20, known: KeyId(7), untold: vec![charge(now / 500, 1, 1)], ..Tell::default() };
        asker.send(&told.encode());
        sleep(ms(60));
        server.resume();
        let reply = TakeReply::decode(&asker.receive()).unwrap();
        assert_eq!(reply.verdict, Verdict::Late, "time {nth}");
        asker.receive();
        let contents = other.contents();
        assert_eq!((contents.charges.len(), contents.today), (1, 1), "time {nth}");
        assert_eq!(contents.charges[0].requests, 1);
    }
    // One that is in time is charged.
    let deadline_ms = asker.server_ms() + 5000;
    assert!(is_granted(&asker.take(&Take { deadline_ms, ..one() })));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_server_without_memory_refuses_before_anything_is_written() {
    let server = RedisServer::start();
    let mut asker = Asker::new(&server, "k");
    let limits = [None; 3];
    asker.take(&Take { limits, ..one() });
    let before = asker.bytes();
    server.limit_memory(Some(0));
    sleep(ms(600));
    asker.send(&Take { limits, ..one() }.encode());
    let reply = asker.connection.receive().unwrap();
    assert!(matches!(&reply, RedisReply::Error(error) if error.contains("OOM")), "{reply:?}");
    assert_eq!(asker.bytes(), before);
    server.limit_memory(None);
    assert_eq!(asker.take(&Take { limits, ..one() }).used[0], 2);
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_server_of_a_cluster_runs_the_script_on_one_key() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    let command: Vec<&str> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
    server.command(&command);
    for _ in 0..100 {
        if server.command(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok") {
            break;
        }
        sleep(ms(100));
    }
    let mut asker = Asker::new(&server, "tower-gemini:p1:gemini-2.5-flash");
    for used in 1..=5 {
        assert_eq!(asker.take(&one()).used[0], used);
    }
    assert!(!is_granted(&asker.take(&one())));
}
