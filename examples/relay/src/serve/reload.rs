//! The decision which parts of a stack go on when the settings change.

use crate::config::{Settings, Topic};

/// A part of the stack that has a state, which a reload keeps or makes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Connections, or the embedded emulator.
    Transport,
    /// The models that the upstream has listed.
    Models,
    /// The budget of retries.
    Budget,
    /// The times that answers take.
    Times,
    /// The pool of keys. Its keys can change while it goes on.
    Keys,
    /// The cells through which pool, limiter and breakers ask each other.
    Wiring,
    Limiter,
    Breakers,
    /// Counts of tokens that the upstream has made.
    Precheck,
    /// Models that were left for another one.
    Fallback,
    /// The connection to the store that several relays share.
    Store,
}

impl Part {
    /// Returns the topics under which the part has learned what it knows. One of them is always the
    /// upstream: nothing that one has said holds for another.
    fn learned_under(self, settings: &Settings) -> &'static [Topic] {
        match self {
            // The embedded emulator knows the relay's keys.
            Self::Transport if settings.upstream.is_emulator() => &[Topic::Upstream, Topic::Keys],
            Self::Transport | Self::Models | Self::Budget | Self::Times | Self::Keys | Self::Wiring => {
                &[Topic::Upstream]
            }
            // A limiter asks one store for good.
            Self::Limiter => &[Topic::Upstream, Topic::Limits, Topic::Store],
            Self::Breakers => &[Topic::Upstream, Topic::Breaker],
            Self::Precheck => &[Topic::Upstream, Topic::Precheck],
            Self::Fallback => &[Topic::Upstream, Topic::Fallback],
            Self::Store => &[Topic::Upstream, Topic::Store],
        }
    }

    /// Returns whether the part goes on when `settings` come in place of `before`.
    pub(crate) fn goes_on(self, before: &Settings, settings: &Settings) -> bool {
        self.learned_under(settings).iter().all(|topic| settings.agree_on(*topic, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const PARTS: [Part; 11] = [
        Part::Transport,
        Part::Models,
        Part::Budget,
        Part::Times,
        Part::Keys,
        Part::Wiring,
        Part::Limiter,
        Part::Breakers,
        Part::Precheck,
        Part::Fallback,
        Part::Store,
    ];

    fn settings(file: &str) -> Settings {
        Settings::parse(file, &Overrides::default()).unwrap_or_else(|mistakes| panic!("{}", mistakes.render("", file)))
    }

    fn made_anew(before: &str, after: &str) -> Vec<Part> {
        let (before, after) = (settings(before), settings(after));
        PARTS.into_iter().filter(|part| !part.goes_on(&before, &after)).collect()
    }

    #[test]
    fn a_part_goes_on_while_the_settings_stay_under_which_it_has_learned() {
        let emulator = "upstream = \"emulator\"\n";
        let server = "upstream = \"http://localhost:1\"\n[[keys]]\nkey = \"a\"\n";
        for (more, anew) in [
            ("", &[][..]),
            ("drain = \"1s\"\n", &[]),
            ("[[callers]]\nname = \"a\"\ntoken = \"t\"\nrpm = 1\n[prices]\n\"a-1\" = { input = 1, output = 2 }\n", &[]),
            ("[[keys]]\nkey = \"b\"\n", &[Part::Transport]),
            ("[limits.default]\nrpm = 5\n", &[Part::Limiter]),
            ("[breaker]\nmode = \"consecutive\"\n", &[Part::Breakers]),
            ("[precheck]\nenabled = false\n", &[Part::Precheck]),
            ("[fallback]\nsticky = \"1s\"\n", &[Part::Fallback]),
            ("[store]\nredis = \"redis://h\"\n", &[Part::Limiter, Part::Store]),
            ("[timeout]\nidle = \"5s\"\n[retry]\nmax_attempts = 2\n", &[]),
        ] {
            assert_eq!(made_anew(emulator, &format!("{emulator}{more}")), anew, "{more}");
        }
        assert_eq!(made_anew(server, &server.replace("\"a\"", "\"b\"")), [], "a client knows no key");
        assert_eq!(made_anew(server, &server.replace(":1", ":2")), PARTS);
    }
}
