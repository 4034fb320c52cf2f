//! The rules one by one, by a clock that the test sets.

use super::{
    Asker, BEGIN, Correct, DAY_END, DayEnd, Dimension, Duration, KeyId, RedisServer, Slot, SlotCharge, Take, TakeReply,
    Tell, Verdict, charge, is_granted, ms, one,
};

const SLOT: u64 = BEGIN / 500;

/// Returns a server and a client at [`BEGIN`].
fn server() -> (RedisServer, Asker) {
    let server = RedisServer::start();
    let asker = Asker::with_clock(&server, "k", BEGIN);
    (server, asker)
}

impl Asker {
    fn at(&mut self, after: u64) -> &mut Self {
        self.now_ms = Some(BEGIN + after);
        self
    }
}

fn full(dimension: Dimension, wait: u64) -> Verdict {
    Verdict::Full { dimension, wait: ms(wait) }
}

fn granted(slot: u64, lease_requests: u64, lease_tokens: u64) -> Verdict {
    Verdict::Granted { slot: Slot(SLOT + slot), lease_requests, lease_tokens, is_look: false }
}

fn tell() -> Tell {
    Tell { deadline_ms: u64::MAX, fresh: KeyId(9), day_end: DayEnd(DAY_END), learn: ms(1000), ..Tell::default() }
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_charge_counts_until_its_slot_has_ended_for_a_minute_and_the_slack() {
    let (_server, mut asker) = server();
    let limits = [Some(3), Some(1000), None];
    let question = Take { tokens: 100, limits, ..one() };
    let reply = asker.at(0).take(&question);
    assert_eq!(reply, TakeReply { now_ms: BEGIN, key: KeyId(7), used: [1, 100, 1], verdict: granted(0, 0, 0) });
    assert!(is_granted(&asker.at(499).take(&question)));
    assert!(is_granted(&asker.at(30_000).take(&question)));
    assert_eq!(asker.at(30_001).take(&question).verdict, full(Dimension::RequestsPerMinute, 30_749));
    // 700 tokens wait for the two oldest, and 950 for all of them.
    let tokens = |tokens| Take { requests: 0, tokens, ..question };
    assert_eq!(asker.take(&tokens(900)).verdict, full(Dimension::InputTokensPerMinute, 30_749));
    assert_eq!(asker.take(&tokens(950)).verdict, full(Dimension::InputTokensPerMinute, 60_749));
    // Of two dimensions, the one in which it fits last is told.
    assert_eq!(asker.take(&Take { tokens: 950, ..question }).verdict, full(Dimension::InputTokensPerMinute, 60_749));
    assert_eq!(asker.at(60_749).take(&question).verdict, full(Dimension::RequestsPerMinute, 1));
    assert_eq!(asker.at(60_750).take(&question).used, [2, 200, 4]);
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_limit_of_zero_and_an_amount_over_its_limit_wait_for_all_charges() {
    let (_server, mut asker) = server();
    let none = Take { limits: [Some(0), None, None], ..one() };
    assert_eq!(asker.at(100).take(&none).verdict, full(Dimension::RequestsPerMinute, 60_650));
    assert!(is_granted(&asker.take(&Take { requests: 0, ..none })), "nothing fits under a limit of nothing");
    let day = Take { limits: [None, None, Some(0)], ..one() };
    let rest = DAY_END * 1000 - BEGIN - 100;
    assert_eq!(asker.take(&day).verdict, full(Dimension::RequestsPerDay, rest));
    let over = Take { tokens: 11, limits: [None, Some(10), None], ..one() };
    assert_eq!(asker.at(700).take(&over).verdict, full(Dimension::InputTokensPerMinute, 60_550));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn the_largest_amounts_are_clamped() {
    let (_server, mut asker) = server();
    let huge = Take {
        requests: u64::MAX,
        tokens: u64::MAX,
        wish_requests: u64::MAX,
        wish_tokens: u64::MAX,
        limits: [Some(u64::MAX), None, Some(u64::MAX)],
        ..one()
    };
    let most = u64::from(u32::MAX);
    assert_eq!(asker.at(0).take(&huge).used, [most, most, 2 * most]);
    assert_eq!(asker.take(&huge).used, [most, most, 4 * most]);
    for slot in 1..=121 {
        let used = asker.at(slot * 500).take(&huge).used;
        assert_eq!(used[..2], [(slot + 1) * most; 2]);
    }
    assert_eq!(asker.at(60_750).take(&huge).used[..2], [121 * most; 2], "one fell out, and another was full");
    let reply = asker.at(60_800).take(&one());
    assert_eq!(reply.verdict, full(Dimension::RequestsPerMinute, 60_450));
    let back = Correct {
        key: KeyId(7),
        slot: Slot(SLOT + 5),
        day_end: DayEnd(DAY_END),
        requests_back: u64::MAX,
        tokens_before: 5,
        tokens_after: u64::MAX,
    };
    asker.correct(&back);
    let contents = asker.contents();
    assert_eq!(contents.charges.iter().find(|charge| charge.slot.0 == SLOT + 5), Some(&charge(SLOT + 5, 0, most)));
    asker.close(Duration::MAX, Duration::MAX);
    let Verdict::Closed { look, ends } = asker.take(&one()).verdict else { panic!("it is closed") };
    assert!(look == ends && ends > Duration::from_secs(86_400 * 365 * 30));
    assert!(asker.ttl() > 0);
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_wish_is_granted_as_far_as_it_fits_in_all_dimensions() {
    let (_server, mut asker) = server();
    let question =
        Take { tokens: 10, wish_requests: 50, wish_tokens: 500, limits: [Some(100), Some(700), None], ..one() };
    let reply = asker.at(0).take(&question);
    assert_eq!((reply.used, reply.verdict), ([51, 510, 51], granted(0, 50, 500)));
    let reply = asker.take(&question);
    assert_eq!((reply.used, reply.verdict), ([100, 700, 100], granted(0, 48, 180)));
    assert_eq!(asker.take(&question).verdict, full(Dimension::RequestsPerMinute, 60_750));
    let day = Take { limits: [None, None, Some(103)], ..question };
    let reply = asker.take(&day);
    assert_eq!((reply.used, reply.verdict), ([103, 1210, 103], granted(0, 2, 500)));
    // The unused rest comes back.
    let back = Correct {
        key: KeyId(7),
        slot: Slot(SLOT),
        day_end: DayEnd(DAY_END),
        requests_back: 40,
        tokens_before: 500,
        tokens_after: 100,
    };
    asker.at(700).correct(&back);
    assert_eq!(asker.take(&Take { limits: [None; 3], ..one() }).used, [64, 810, 64]);
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_correction_of_what_is_gone_is_ignored_each_part_for_itself() {
    let (_server, mut asker) = server();
    let question = Take { tokens: 10, limits: [None; 3], ..one() };
    asker.at(0).take(&question);
    let back = Correct {
        key: KeyId(7),
        slot: Slot(SLOT),
        day_end: DayEnd(DAY_END),
        requests_back: 1,
        tokens_before: 10,
        tokens_after: 0,
    };
    asker.correct(&Correct { key: KeyId(8), ..back });
    asker.correct(&Correct { key: KeyId(0), ..back });
    assert_eq!(asker.contents().charges, [charge(SLOT, 1, 10)]);
    asker.correct(&Correct { day_end: DayEnd(DAY_END - 86_400), ..back });
    let contents = asker.contents();
    assert_eq!((contents.charges, contents.today), (vec![], 1));
    asker.at(1000).take(&question);
    asker.at(61_000).correct(&back);
    let contents = asker.contents();
    assert_eq!((contents.charges, contents.today), (vec![charge(SLOT + 2, 1, 10)], 1));
    // Without contents, nothing is made.
    asker.connection.command(&["DEL", "k"]);
    asker.correct(&back);
    asker.open();
    assert_eq!(asker.ttl(), -2);
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn one_call_looks_in_5_seconds_and_the_closing_is_forgotten_at_its_end() {
    let (_server, mut asker) = server();
    asker.at(0).close(ms(10_000), ms(30_000));
    let closed = |look, ends| Verdict::Closed { look: ms(look), ends: ms(ends) };
    let looks = |reply: TakeReply| matches!(reply.verdict, Verdict::Granted { is_look: true, lease_requests: 0, .. });
    let question = Take { wish_requests: 9, limits: [Some(2), None, None], ..one() };
    assert_eq!(asker.at(1).take(&question).verdict, closed(9_999, 29_999));
    // Of two closings, the later times are kept.
    asker.close(ms(1000), ms(40_000));
    assert_eq!(asker.take(&question).verdict, closed(9_999, 40_000));
    assert!(looks(asker.at(10_000).take(&question)));
    assert_eq!(asker.take(&question).verdict, closed(5_000, 30_001));
    assert!(looks(asker.at(15_000).take(&question)));
    // One that does not fit does not look.
    let reply = asker.at(21_000).take(&question);
    assert_eq!(reply.verdict, full(Dimension::RequestsPerMinute, 49_750));
    let more = Take { limits: [Some(6), None, None], ..question };
    assert!(looks(asker.take(&more)));
    assert!(looks(asker.at(39_000).take(&more)));
    assert_eq!(asker.at(40_000).take(&more).verdict, closed(1, 1), "no look is later than the end");
    let granted = asker.at(40_001).take(&more).verdict;
    assert!(matches!(granted, Verdict::Granted { is_look: false, lease_requests: 1, .. }), "{granted:?}");

    asker.close(ms(10_000), ms(30_000));
    asker.open();
    assert!(is_granted(&asker.take(&Take { limits: [None; 3], ..one() })));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_later_day_begins_and_an_earlier_one_counts_in_it() {
    let (_server, mut asker) = server();
    let before = DAY_END * 1000 - BEGIN - 1000;
    let question =
        |days: u64| Take { limits: [None, None, Some(3)], day_end: DayEnd(DAY_END + days * 86_400), ..one() };
    asker.at(before).take(&question(0));
    asker.take(&question(0));
    assert_eq!(asker.take(&question(0)).used[2], 3);
    assert_eq!(asker.take(&question(0)).verdict, full(Dimension::RequestsPerDay, 1000));
    // An asker whose clock is early begins the day for all.
    assert_eq!(asker.take(&question(1)).used, [4, 0, 1]);
    assert_eq!(asker.take(&question(0)).used, [5, 0, 2]);
    assert_eq!(asker.at(before + 1000).take(&question(1)).used, [6, 0, 3]);
    // The day's end has passed, and the asker has not seen it yet.
    let late = DAY_END * 1000 - BEGIN + 86_400_000;
    assert_eq!(asker.at(late).take(&question(1)).verdict, full(Dimension::RequestsPerDay, 100));
    assert_eq!(asker.take(&question(2)).used, [1, 0, 1]);
    // A clock that is days ahead ends no day.
    assert_eq!(asker.take(&question(5)).used, [2, 0, 2]);
    assert_eq!(asker.contents().day_end, DayEnd(DAY_END + 2 * 86_400));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_question_about_other_contents_is_lost_and_changes_nothing() {
    let (_server, mut asker) = server();
    assert_eq!(asker.take(&Take { known: KeyId(5), ..one() }).verdict, Verdict::Lost);
    assert_eq!(asker.ttl(), -2, "nothing is made");
    asker.take(&one());
    let before = asker.bytes();
    let reply = asker.at(2000).take(&Take { known: KeyId(5), ..one() });
    assert_eq!((reply.key, reply.verdict), (KeyId(7), Verdict::Lost));
    assert_eq!(asker.bytes(), before);
    assert!(is_granted(&asker.take(&Take { known: KeyId(7), ..one() })));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn new_contents_learn_where_others_may_have_charges() {
    let (_server, mut asker) = server();
    let question = Take { learn: ms(1000), ..one() };
    let reply = asker.at(0).take(&question);
    assert_eq!((reply.key, reply.used, reply.verdict), (KeyId(7), [0; 3], Verdict::Learning { wait: ms(1000) }));
    assert_eq!(asker.at(999).take(&question).verdict, Verdict::Learning { wait: ms(1) });
    assert!(is_granted(&asker.at(1000).take(&question)));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn told_charges_come_into_lost_contents_from_all_before_anything_is_taken() {
    let (_server, mut asker) = server();
    let question = Take { known: KeyId(5), limits: [Some(10), None, None], ..one() };
    assert_eq!(asker.at(60_000).take(&question).verdict, Verdict::Lost);
    // Too old, the oldest that counts, now, and in the future of a client that is wrong.
    let all =
        vec![charge(SLOT - 2, 1, 1), charge(SLOT - 1, 2, 20), charge(SLOT + 120, 1, 10), charge(SLOT + 130, 1, 5)];
    let untold = vec![charge(SLOT + 120, 1, 10)];
    let first = Tell { known: KeyId(5), all, untold, day_all: 40, day_untold: 1, ..tell() };
    let reply = asker.tell(&first);
    assert_eq!((reply.key, reply.is_told), (KeyId(9), true));
    assert_eq!(asker.contents().charges, [charge(SLOT - 1, 2, 20), charge(SLOT + 120, 2, 15)]);
    let second = Tell { fresh: KeyId(10), all: vec![charge(SLOT + 100, 3, 0)], day_all: 50, ..first };
    assert_eq!(asker.at(60_200).tell(&second).key, KeyId(9));
    let reply = asker.at(60_200).take(&Take { known: KeyId(9), ..question });
    assert_eq!((reply.used, reply.verdict), ([7, 35, 90], Verdict::Learning { wait: ms(800) }));
    let reply = asker.at(61_000).take(&Take { known: KeyId(9), ..question });
    assert_eq!(reply.used, [6, 15, 91], "the oldest has fallen out");
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn known_contents_are_told_only_the_untold_and_learn_if_nobody_has_asked() {
    let (_server, mut asker) = server();
    asker.at(0).take(&one());
    let told = Tell {
        known: KeyId(7),
        all: vec![charge(SLOT, 1, 0), charge(SLOT + 1, 2, 0)],
        untold: vec![charge(SLOT + 1, 2, 0)],
        day_all: 3,
        day_untold: 2,
        ..tell()
    };
    assert_eq!(asker.at(1000).tell(&told).key, KeyId(7));
    assert_eq!(asker.take(&one()).used, [4, 0, 4], "somebody asked a second ago");
    assert_eq!(asker.at(2001).tell(&Tell { untold: vec![], day_untold: 0, ..told.clone() }).key, KeyId(7));
    assert_eq!(asker.take(&one()).verdict, Verdict::Learning { wait: ms(1000) });
    assert_eq!(asker.contents().charges, [charge(SLOT, 1, 0), charge(SLOT + 1, 2, 0), charge(SLOT + 2, 1, 0)]);
    // Another who comes back meanwhile does not prolong it.
    asker.at(2900).tell(&Tell { untold: vec![], day_untold: 0, ..told });
    assert!(is_granted(&asker.at(3001).take(&one())));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_reset_makes_known_contents_anew_and_keeps_the_closing_and_the_larger_count_of_the_day() {
    let (_server, mut asker) = server();
    for _ in 0..30 {
        asker.at(0).take(&Take { limits: [None; 3], ..one() });
    }
    asker.close(ms(5000), ms(5000));
    let told = |known, fresh, day_all| Tell {
        known: KeyId(known),
        fresh: KeyId(fresh),
        reset: true,
        all: vec![charge(SLOT, 2, 0)],
        day_all,
        ..tell()
    };
    assert_eq!(asker.at(1000).tell(&told(7, 8, 20)).key, KeyId(8));
    let contents = asker.contents();
    assert_eq!((contents.charges, contents.today), (vec![charge(SLOT, 2, 0)], 30));
    // The second knows the old contents, too; both together have more than the contents had.
    assert_eq!(asker.at(1100).tell(&told(7, 9, 15)).key, KeyId(8));
    let contents = asker.contents();
    assert_eq!((contents.charges, contents.today), (vec![charge(SLOT, 4, 0)], 35));
    let question = Take { limits: [None; 3], ..one() };
    assert_eq!(asker.take(&question).verdict, Verdict::Learning { wait: ms(900) });
    assert_eq!(asker.at(2000).take(&question).verdict, Verdict::Closed { look: ms(3000), ends: ms(3000) });
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn what_comes_late_does_nothing() {
    let (_server, mut asker) = server();
    asker.at(0).take(&one());
    let before = asker.bytes();
    asker.at(30_000);
    let late = Take { deadline_ms: BEGIN + 30_000, ..one() };
    assert_eq!(asker.take(&late).verdict, Verdict::Late);
    let told = Tell { deadline_ms: BEGIN + 30_000, all: vec![charge(SLOT, 1, 1)], ..tell() };
    assert!(!asker.tell(&told).is_told);
    assert_eq!(asker.bytes(), before);
    assert!(is_granted(&asker.take(&Take { deadline_ms: BEGIN + 30_001, ..late })));
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn time_stands_still_for_a_clock_that_goes_back_a_little() {
    for back in [1, 499, 500, 1000] {
        let (_server, mut asker) = server();
        for after in [0, 10_000, 20_000] {
            asker.at(after).take(&one());
        }
        let reply = asker.at(20_000 - back).take(&one());
        assert_eq!((reply.used[0], reply.verdict), (4, granted(40, 0, 0)), "back by {back} ms");
        assert!(is_granted(&asker.take(&one())));
        // The wait is right by that clock.
        assert_eq!(asker.take(&one()).verdict, full(Dimension::RequestsPerMinute, 40_750 + back));
        assert_eq!(asker.at(60_749).take(&one()).verdict, full(Dimension::RequestsPerMinute, 1));
        assert!(is_granted(&asker.at(60_750).take(&one())));
    }
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn all_charges_count_anew_for_a_clock_that_goes_back_far() {
    for back in [1500, 5000, 3_600_000] {
        let (_server, mut asker) = server();
        for after in [0, 10_000, 20_000] {
            asker.at(after).take(&one());
        }
        asker.close(ms(0), ms(7000));
        let now = BEGIN + 20_000 - back;
        asker.now_ms = Some(now);
        let reply = asker.take(&Take { requests: 2, ..one() });
        assert!(is_granted(&reply));
        assert_eq!(reply.used, [5, 0, 5]);
        let slot = Slot(now / 500);
        assert_eq!(asker.contents().charges, [SlotCharge { slot, requests: 5, tokens: 0 }]);
        asker.now_ms = Some(now + 60_749);
        assert_eq!(asker.take(&one()).verdict, full(Dimension::RequestsPerMinute, 1));
        asker.now_ms = Some(now + 60_750);
        assert_eq!(asker.take(&Take { requests: 5, ..one() }).used, [5, 0, 10], "full use after 60.75 s");
    }
    // A closing lasts no longer than it would have.
    let (_server, mut asker) = server();
    asker.at(0).take(&one());
    asker.close(ms(7000), ms(7000));
    asker.now_ms = Some(BEGIN - 3_600_000);
    assert_eq!(asker.take(&one()).verdict, Verdict::Closed { look: ms(7000), ends: ms(7000) });
}

#[test]
#[ignore = "needs a redis-server; .ci/run does"]
fn a_key_that_somebody_else_wrote_is_made_anew() {
    let (_server, mut asker) = server();
    for after in [0, 500, 1000] {
        asker.at(after).take(&one());
    }
    let good = asker.bytes();
    let write: [&[&[u8]]; 7] = [
        &[b"SET", b"k", b""],
        &[b"SET", b"k", b"rubbish"],
        &[b"SET", b"k", &[b'x'; 112]],
        &[b"SET", b"k", &[0; 2000]],
        &[b"RPUSH", b"k", b"x"],
        &[b"HSET", b"k", b"x", b"y"],
        &[b"ZADD", b"k", b"1", b"y"],
    ];
    for command in write {
        asker.connection.command(&["DEL", "k"]);
        asker.connection.command(command);
        assert_eq!(asker.take(&Take { known: KeyId(7), ..one() }).verdict, Verdict::Lost);
        asker.connection.command(&["DEL", "k"]);
        asker.connection.command(command);
        let reply = asker.take(&Take { fresh: KeyId(8), ..one() });
        assert_eq!((reply.key, reply.used), (KeyId(8), [1, 0, 1]), "{:?}", String::from_utf8_lossy(command[0]));
        assert!((60_000..=62_000).contains(&asker.ttl()));
    }
    // A ring that is cut is noticed when it is read for the charges that fall out.
    asker.connection.command(&[b"SET".as_slice(), b"k", &good[..112]]);
    assert_eq!(asker.at(60_800).take(&Take { known: KeyId(7), ..one() }).verdict, Verdict::Lost);
    assert_eq!(asker.take(&Take { fresh: KeyId(8), ..one() }).used, [1, 0, 1]);
    // Corrections of such contents, and closings, do no harm.
    asker.connection.command(&[b"SET".as_slice(), b"k", &good[..112]]);
    asker.correct(&Correct { key: KeyId(7), slot: Slot(SLOT), requests_back: 1, ..Correct::default() });
    asker.close(ms(1), ms(1));
    asker.open();
    assert!(is_granted(&asker.take(&one())));
}
