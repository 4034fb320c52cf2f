//! The last word, whoever has it.

use super::*;
use crate::key_pool::Fingerprint;

fn key(number: u32) -> PoolSubject {
    PoolSubject::Key(Fingerprint::of(number.to_le_bytes()))
}

fn id(number: u64) -> EventId {
    EventId(number, 0)
}

#[test]
fn no_more_than_the_most_things_are_known() {
    let now = Instant::now();
    let mut register = Register::new(now);
    for number in 0..2 * MOST as u32 {
        register.heard(&key(number), Standing::Good, 0, id(1), now, 0.0);
        assert!(register.len() <= MOST);
    }
    assert!(register.len() > 0);
    register.expire(now + Duration::from_secs(26 * 3_600));
    assert_eq!(register.len(), 0);
}

#[test]
fn of_two_words_that_were_found_at_once_all_believe_the_stricter_one() {
    use crate::key_pool::{ApiKey, Key, KeyPool};
    let pool = KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys").unwrap())).build().unwrap();
    let fingerprint = Fingerprint::of("AIza-nobodys");
    pool.disable(&fingerprint);
    let (bad, _) = pool.keys_told(&[], &mut Default::default());
    let (subject, bad) = bad.into_iter().next().unwrap();
    // Each hears the other's, late by what the way takes.
    for (own, other, is_news) in [(bad, Standing::Good, false), (Standing::Good, bad, true)] {
        for late in [0, 20] {
            let now = Instant::now();
            let mut register = Register::new(now);
            register.heard(&subject, own, 100, id(1), now, 0.0);
            assert_eq!(register.heard(&subject, other, 100 - late, id(2), now, 0.0), is_news);
            assert_eq!(register.heard(&subject, own, 20, id(3), now, 0.0), is_news, "it was found later");
        }
    }
}

#[test]
fn a_word_to_the_contrary_has_an_answer_only_where_it_came_after_the_last_one() {
    let now = Instant::now();
    let mut register = Register::new(now);
    let good = |register: &mut Register, age, at| register.heard(&key(1), Standing::Good, age, id(at), now, 0.5);
    assert!(!good(&mut register, 0, 10), "what was never bad is no news");
    assert!(register.due(now + AGAIN, 9).is_empty());
    // It is told again only against a word that was told later.
    register.oldest(Some(id(20)), now, || 0.0);
    assert!(register.due(now + AGAIN, 9).is_empty());
    assert!(!good(&mut register, 5_000, 30));
    assert!(register.due(now + AGAIN, 9).is_empty(), "the same was said again");
}
