//! The lesson of an answer: what its caller has made.

use std::{collections::HashSet, sync::Arc};

use axum::body::Body;
use parking_lot::Mutex;
use tower_gemini::resource::{AnswerReader, Described, Resource};

use super::memory::Makers;
use crate::serve::held::{AtEnd, HoldingBody};

/// The rules by which an answer says what is its caller's.
pub(super) struct Lesson {
    pub(super) makers: Arc<Mutex<Makers>>,
    pub(super) caller: Arc<str>,
    pub(super) reader: AnswerReader,
    /// The collection in which the call makes something, if it makes anything.
    pub(super) made_in: Option<&'static str>,
    /// True if the call has made something, wherever.
    pub(super) makes: bool,
    /// What the URI names was there before.
    pub(super) named: Vec<Resource>,
    /// What the body names, too, unless the call makes a thing of that name. `None`: nobody knows.
    pub(super) mentioned: Option<HashSet<Resource>>,
}

/// A lesson that goes on while there may be more to learn.
struct UnderWay(Option<Box<Lesson>>);

impl Lesson {
    /// Learns from a body as it passes, untouched.
    pub(super) fn of(self, body: Body) -> Body {
        Body::new(HoldingBody::new(body, UnderWay(Some(Box::new(self)))))
    }

    /// Takes data as it passes. Returns whether there may be more to learn.
    fn take(&mut self, data: &[u8]) -> bool {
        let Self { reader, makers, caller, made_in, makes, named, mentioned } = self;
        reader.push(data, |found| learn(&mut makers.lock(), caller, *made_in, *makes, named, mentioned.as_ref(), found))
    }

    fn end(&mut self) {
        let Self { reader, makers, caller, made_in, makes, named, mentioned } = self;
        reader.end(|found| learn(&mut makers.lock(), caller, *made_in, *makes, named, mentioned.as_ref(), found));
    }
}

/// Learns from a thing that an answer describes. Nobody becomes the maker of a thing by naming it: it may have been made
/// before this relay was started, and by another caller.
fn learn(
    makers: &mut Makers,
    caller: &Arc<str>,
    made_in: Option<&'static str>,
    makes: bool,
    named: &[Resource],
    mentioned: Option<&HashSet<Resource>>,
    found: Described,
) {
    let Described { resource, is_subject, is_output, .. } = found;
    if named.contains(&resource) {
        return;
    }
    if makes && is_subject && made_in == Some(resource.collection()) {
        // The caller may have chosen the name; the upstream has given it to nobody else, then.
        makers.made(resource, caller);
        return;
    }
    let is_new = match makes {
        true => mentioned.is_some_and(|mentioned| !mentioned.contains(&resource)),
        false => is_output,
    };
    if is_new {
        makers.shown(resource, caller);
    }
}

impl AtEnd for UnderWay {
    fn passes(&mut self, data: &[u8]) {
        if self.0.as_mut().is_some_and(|lesson| !lesson.take(data)) {
            self.0 = None;
        }
    }

    fn ended(&mut self) {
        if let Some(mut lesson) = self.0.take() {
            lesson.end();
        }
    }

    fn failed(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_to_have_a_thing_by_naming_it() {
        let caller = Arc::from("a");
        let thing = |name: &str| Resource::in_name(name).unwrap();
        let named = [thing("batches/path")];
        let mentioned = HashSet::from([thing("files/body")]);
        let found = |name: &str, is_subject, is_output| {
            let text = format!("{{\"{}\": \"{name}\"}}", if is_subject { "name" } else { "fileUri" });
            let mut all = tower_gemini::resource::described(&serde_json::from_str(&text).unwrap(), None);
            let mut found = all.pop().unwrap();
            found.is_output = is_output;
            found
        };
        for (name, is_subject, is_output, makes, is_learned) in [
            ("batches/path", true, true, true, false),
            ("batches/new", true, false, true, true),
            ("files/body", false, true, true, false),
            ("files/new", false, false, true, true),
            ("files/input", false, false, false, false),
            ("files/output", false, true, false, true),
        ] {
            let mut makers = Makers::default();
            let found = found(name, is_subject, is_output);
            learn(&mut makers, &caller, Some("batches"), makes, &named, Some(&mentioned), found);
            assert_eq!(makers.of(&thing(name)).is_some(), is_learned, "{name}");
        }
    }
}
