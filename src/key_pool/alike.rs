//! Calls that begin alike: the project that had the last of them may have their beginning in its cache.
//!
//! Google caches the beginnings of prompts by itself, in each project, and charges a tenth for what it finds there. So
//! the turns of a conversation, and questions about one document, had better go to one project.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use memchr::{memchr2, memrchr};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::registry::ProjectRef;
use crate::call::{Operation, Shape};

/// The most beginnings that are remembered.
const MAX_BEGINNINGS: usize = 16_384;

/// The time for which a beginning is remembered after its last call. Google does not say how long it caches; an hour is
/// a guess, and a wrong one costs no more than a choice that is not random.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// The bytes of a body in which its beginning is looked for, and those before its end in which instructions are that stand
/// behind the contents.
const MAX_SCANNED: usize = 32 * 1024;

/// The bytes of an instruction or a content that are compared.
const MAX_COMPARED: usize = 4 * 1024;

/// The projects that calls were sent to, by their beginnings.
pub(super) struct Alike {
    /// The time by which a call may wait longer there than in the best project.
    pub(super) longest: Duration,
    session: HeaderName,
    hasher: RandomState,
    last: Mutex<LastProjects>,
}

/// The projects by beginnings, in two generations. Where the young one is full it takes the place of the old one, which is
/// forgotten: so those go for which nobody has asked for the longest.
#[derive(Default)]
struct LastProjects {
    young: HashMap<u64, (Arc<ProjectRef>, Instant)>,
    old: HashMap<u64, (Arc<ProjectRef>, Instant)>,
}

impl Alike {
    pub(super) fn new(longest: Duration, session: HeaderName) -> Self {
        Self { longest, session, hasher: RandomState::new(), last: Mutex::default() }
    }

    /// Returns the number of a call's beginning, which calls that begin alike have in common. `None`: it has none that an
    /// upstream could have cached.
    pub(super) fn beginning(&self, shape: Shape, model: &str, headers: &HeaderMap, body: Option<&[u8]>) -> Option<u64> {
        if !matches!(shape.operation, Operation::GenerateContent | Operation::CreateInteraction) {
            return None;
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(model.as_bytes());
        if let Some(session) = headers.get(&self.session) {
            hasher.write_u8(0);
            hasher.write(session.as_bytes());
        } else {
            hasher.write_u8(1);
            hash_beginning(body?, &mut hasher)?;
        }
        Some(hasher.finish())
    }

    /// Returns the project that had the last call of this beginning.
    pub(super) fn last(&self, beginning: u64, now: Instant) -> Option<Arc<ProjectRef>> {
        let last = self.last.lock();
        let (project, at) = last.young.get(&beginning).or_else(|| last.old.get(&beginning))?;
        (now < *at + REMEMBERED).then(|| project.clone())
    }

    /// Takes note of the project that a call is sent to.
    pub(super) fn sent(&self, beginning: u64, project: &Arc<ProjectRef>, now: Instant) {
        let mut last = self.last.lock();
        if let Some((known, at)) = last.young.get_mut(&beginning) {
            if !Arc::ptr_eq(known, project) {
                *known = project.clone();
            }
            *at = now;
            return;
        }
        if last.young.len() >= MAX_BEGINNINGS / 2 {
            let LastProjects { young, old } = &mut *last;
            mem::swap(young, old);
            young.clear();
        }
        last.young.insert(beginning, (project.clone(), now));
    }
}

/// Hashes the system instruction and the first content of a body, as they are. `None`: there is no content, or the body is
/// no object.
fn hash_beginning(body: &[u8], hasher: &mut impl Hasher) -> Option<()> {
    let (whole, body) = (body, &body[..body.len().min(MAX_SCANNED)]);
    let mut hash = |value: &[u8]| {
        hasher.write(value);
        hasher.write_u8(0xFF);
    };
    let mut at = skip(body, 0, b"");
    if body.get(at) != Some(&b'{') {
        return None;
    }
    let mut is_instructed = false;
    at = skip(body, at + 1, b",");
    while body.get(at) == Some(&b'"') {
        let end = value_end(body, at);
        let key = &body[at..end];
        let value = skip(body, end, b":");
        match key {
            br#""systemInstruction""# | br#""system_instruction""# | br#""instructions""# => {
                is_instructed = true;
                hash(compared(body, value));
            }
            br#""contents""# | br#""messages""# | br#""input""# => {
                let rest = body.get(value..).unwrap_or_default();
                hash_first_content(rest, &mut hash);
                if !is_instructed {
                    hash(instruction_behind(whole, value));
                }
                return Some(());
            }
            _ => {}
        }
        at = skip(body, value_end(body, value), b",");
    }
    None
}

/// Hashes the first content of a list, with the instructions before it.
fn hash_first_content(value: &[u8], hash: &mut impl FnMut(&[u8])) {
    if value.first() != Some(&b'[') {
        return hash(compared(value, 0));
    }
    let mut at = skip(value, 1, b",");
    while at < value.len() && value[at] != b']' {
        hash(compared(value, at));
        if !is_instruction(value, at) {
            return;
        }
        at = skip(value, value_end(value, at), b",");
    }
}

/// Returns whether the content that begins there has the role of an instruction. The role may stand behind a long text.
fn is_instruction(list: &[u8], from: usize) -> bool {
    if list.get(from) != Some(&b'{') {
        return false;
    }
    let mut at = skip(list, from + 1, b",");
    while list.get(at) == Some(&b'"') {
        let end = value_end(list, at);
        let value = skip(list, end, b":");
        let value_end = value_end(list, value);
        if &list[at..end] == br#""role""# {
            return matches!(&list[value..value_end], br#""system""# | br#""developer""#);
        }
        at = skip(list, value_end, b",");
    }
    false
}

/// Returns the instruction behind the contents, which begin there. It is looked for from the end of the body, which it is as
/// near to in each turn of a conversation. The contents are not walked through: no string in them has a quote that is not
/// escaped.
fn instruction_behind(body: &[u8], contents: usize) -> &[u8] {
    let rest = &body[contents.max(body.len().saturating_sub(MAX_SCANNED)).min(body.len())..];
    let (mut at, mut found) = (rest.len(), None);
    while let Some(quote) = memrchr(b'"', &rest[..at]) {
        at = quote;
        let name = &rest[at..];
        if let Some(value) = name.strip_prefix(br#""systemInstruction""#) {
            found = Some(value);
            break;
        }
        found = found.or_else(|| name.strip_prefix(br#""system_instruction""#));
    }
    found.map_or_else(Default::default, |value| compared(value, skip(value, 0, b":")))
}

/// Returns the value that begins there, or as much of it as is compared.
fn compared(body: &[u8], from: usize) -> &[u8] {
    let most = &body[from.min(body.len())..body.len().min(from + MAX_COMPARED)];
    &most[..value_end(most, 0)]
}

/// Returns the place of the next byte that is neither white space nor one of these.
fn skip(body: &[u8], from: usize, also: &[u8]) -> usize {
    let rest = body.get(from..).unwrap_or_default();
    let skipped = rest.iter().position(|byte| !byte.is_ascii_whitespace() && !also.contains(byte));
    from + skipped.unwrap_or(rest.len())
}

/// Returns the end of the value that begins there, or of the body where that is cut off. Moves on by a byte at least.
fn value_end(body: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at = string_end(body, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at.max((from + 1).min(body.len())),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' | b':' if depth == 0 => return at.max((from + 1).min(body.len())),
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    body.len()
}

/// Returns the end of the string whose first quote stands there.
fn string_end(body: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            // Most strings are short: names and the like. A long one is searched.
            _ if at - from < 32 => at += 1,
            _ => at += memchr2(b'"', b'\\', &body[at..]).unwrap_or(body.len() - at),
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use proptest::prelude::*;

    use super::*;

    fn hashed(body: &str) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        hash_beginning(body.as_bytes(), &mut hasher).map(|()| hasher.finish())
    }

    #[test]
    fn the_turns_of_a_conversation_begin_alike() {
        for (first, second, other) in [
            (
                r#"{"systemInstruction":{"parts":[{"text":"Be \"brief\"."}]},"contents":[{"parts":[{"text":"[a, {b"}]}]}"#,
                r#"{"systemInstruction":{"parts":[{"text":"Be \"brief\"."}]},"contents":[{"parts":[{"text":"[a, {b"}]}, {"role":"model"}],"x":1}"#,
                r#"{"systemInstruction":{"parts":[{"text":"Be \"great\"."}]},"contents":[{"parts":[{"text":"[a, {b"}]}]}"#,
            ),
            (
                r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#,
                r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant"}],"n":1}"#,
                r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"b"}]}"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}]}"#,
                r#" { "temperature" : 1.5e1 , "messages" : [ {"role":"user","content":"a"} , {"role":"assistant"}]}"#,
                r#"{"messages":[{"role":"user","content":"b"}]}"#,
            ),
            (
                r#"{"model":"m","input":"a","system_instruction":"s"}"#,
                r#"{"stream":true,"input":"a","system_instruction":"s"}"#,
                r#"{"model":"m","input":"a","system_instruction":"t"}"#,
            ),
        ] {
            assert!(hashed(first).is_some(), "{first}");
            assert_eq!(hashed(first), hashed(second), "{second}");
            assert_ne!(hashed(first), hashed(other), "{other}");
        }
        for none in ["", "[]", "{}", r#"{"systemInstruction":"a"}"#, "contents", r#""contents""#] {
            assert_eq!(hashed(none), None, "{none}");
        }
    }

    #[test]
    fn a_long_content_counts_by_its_beginning() {
        let body = |text: &str, last: &str| format!(r#"{{"contents":[{{"text":"{}{last}"}}]}}"#, text.repeat(100_000));
        assert_eq!(hashed(&body("a", "x")), hashed(&body("a", "y")));
        assert_ne!(hashed(&body("a", "x")), hashed(&body("b", "x")));
    }

    #[test]
    fn a_system_text_is_not_the_first_content_wherever_its_role_stands() {
        let long = "s".repeat(5_000);
        for role in ["system", "developer"] {
            let before = |asked: &str| {
                format!(
                    r#"{{"messages":[{{"role":"{role}","content":"{long}"}},{{"role":"user","content":"{asked}"}}]}}"#
                )
            };
            let behind = |asked: &str| {
                format!(
                    r#"{{"messages":[{{"content":"{long}","role":"{role}"}},{{"content":"{asked}","role":"user"}}]}}"#
                )
            };
            assert_ne!(hashed(&before("a")), hashed(&before("b")), "{role}");
            assert_ne!(hashed(&behind("a")), hashed(&behind("b")), "{role}");
        }
        // A text that is about such a role has no such role.
        let about = |second: &str| {
            let first = r#"{"role":"user","content":[{"text":"system"}]}"#;
            format!(r#"{{"messages":[{first},{{"role":"user","content":"{second}"}}]}}"#)
        };
        assert_eq!(hashed(&about("a")), hashed(&about("b")));
    }

    #[test]
    fn a_conversation_begins_alike_however_long_it_grows() {
        let said = r#",{"parts":[{"text":"so on and so forth"}],"role":"model"}"#;
        let tools = format!(r#"[{{"name":"{}"}}]"#, "t".repeat(10_000));
        let body = |instruction: &str, turns: usize| {
            let said = said.repeat(turns);
            format!(
                r#"{{"contents":[{{"parts":[{{"text":"a"}}]}}{said}],"systemInstruction":{{"text":"{instruction}"}},"tools":{tools}}}"#
            )
        };
        let first = hashed(&body("s", 0));
        for turns in [1, 10, 300, 500, 520, 540, 700, 5_000] {
            assert_eq!(hashed(&body("s", turns)), first, "{} bytes", body("s", turns).len());
            assert_ne!(hashed(&body("t", turns)), first, "{turns}");
        }
    }

    #[test]
    fn the_beginnings_that_nobody_asks_for_are_forgotten_first() {
        let alike = Alike::new(Duration::ZERO, http::header::HOST);
        let mut registry = crate::key_pool::registry::Registry::default();
        registry.add(crate::key_pool::Key::new(crate::key_pool::ApiKey::new("AIza-nobodys").unwrap()));
        let (project, now) = (registry.projects[0].handle.clone(), Instant::now());
        let most = MAX_BEGINNINGS as u64;
        for beginning in 0..10 * most {
            alike.sent(beginning, &project, now);
            if beginning % 1_000 == 0 {
                alike.sent(0, &project, now);
            }
        }
        let is_known = |beginning| alike.last(beginning, now).is_some();
        assert!(is_known(0), "it is asked for all the time");
        assert!((10 * most - most / 2 + 100..10 * most).all(is_known));
        assert!((1..10 * most).filter(|beginning| is_known(*beginning)).count() <= MAX_BEGINNINGS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_to_an_end(body in "[\\[\\]{}\",: \\\\a]{0,40}") {
            hashed(&body);
            hashed(&format!(r#"{{"contents":{body}"#));
            hashed(&format!(r#"{{"contents":[{body}"#));
            hashed(&format!(r#"{{"messages":[{{{body}"#));
        }
    }
}
