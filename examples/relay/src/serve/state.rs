//! The state of the relay over a restart: usage, what is parked, learned limits, disabled keys, and who has made what, in a
//! file.
//!
//! It is written every ten seconds if it has changed, and at the end: into a file beside it, which then takes its place, so
//! that a reader finds the old state or the new one and never half of one. Nothing in it is secret: keys are there by
//! their fingerprints. Whatever is wrong with it, the relay serves: without a state it learns again.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use humantime::format_duration;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::sleep};
use tower_gemini::{
    caller_limit::{CallerLimits, CallerLimitsMemory},
    clock,
    key_pool::{KeyPool, KeyPoolMemory},
    rate_limit::{Limiter, LimiterMemory},
};

use crate::{
    config::state::{create_temporary, temporary},
    serve::{current::Current, owners::ThingsByMaker, stack::Stack},
};

/// The version of the file's form.
const VERSION: u32 = 1;

/// The time between two looks whether the state has changed: a relay that is killed loses no more than that.
const EVERY: Duration = Duration::from_secs(10);

/// The largest file that is written or read: that of all 16,384 scopes and as many callers has about 30 MB, and
/// that of all things that are kept 13 MB more.
const LARGEST: usize = 64 << 20;

/// The age from which nothing in a file counts any more but disabled keys and what lasts until it is deleted: a month's
/// money, the last of it, is over.
const OLDEST: Duration = Duration::from_secs(32 * 86_400);

/// The age from which it is worth a word that days and parks are over.
const OLD: Duration = Duration::from_secs(25 * 3_600);

/// The difference of two clocks that is no reason to doubt.
const TOLERANCE: Duration = Duration::from_secs(3_600);

/// The file in which the state is kept.
pub(crate) struct KeptState {
    path: PathBuf,
    saved: Mutex<Saved>,
}

/// The last attempts to write the file.
#[derive(Default)]
struct Saved {
    knowledge: Option<Vec<u8>>,
    /// The trouble with the last attempt, which is logged once.
    trouble: Option<String>,
}

/// The news of an attempt.
#[derive(Debug, PartialEq)]
enum News {
    Fails(String),
    Works,
}

impl Saved {
    /// Takes note of an attempt, and returns what is new about it.
    fn news(&mut self, trouble: Option<String>) -> Option<News> {
        let news = match (&self.trouble, &trouble) {
            (before, Some(now)) if before.as_ref() != Some(now) => Some(News::Fails(now.clone())),
            (Some(_), None) => Some(News::Works),
            _ => None,
        };
        self.trouble = trouble;
        news
    }
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct StateFile<K> {
    version: u32,
    /// The seconds from 1970 to the time at which it was written.
    written: u64,
    #[serde(flatten)]
    knowledge: K,
}

/// Everything that is kept.
#[derive(PartialEq, Serialize, Deserialize)]
struct Knowledge {
    /// Tells the upstream that all of this is about from others.
    upstream: String,
    limits: LimiterMemory,
    keys: KeyPoolMemory,
    callers: CallerLimitsMemory,
    /// The things that each caller has made, where callers do not see each other's.
    #[serde(default)]
    things: ThingsByMaker,
}

/// The part of the file that every version has.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl KeptState {
    /// Takes up the state that an earlier process has left. `None`: the settings name no file.
    pub(crate) fn take_up(current: &Current) -> Option<Self> {
        // The place of the file that is there, and not that of a link to it.
        let path = current.state()?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match read(&path, &current.stack(), clock::wall()) {
            Ok(None) => tracing::info!(file = %path.display(), "there is no state yet: everything is learned anew"),
            Ok(Some((knowledge, age))) => {
                knowledge.restore(&current.stack());
                let age_shown = format_duration(Duration::from_secs(age.as_secs()));
                tracing::info!(file = %path.display(), "took up the state that was written {age_shown} ago");
                if age > OLD {
                    tracing::warn!(
                        "that state is old: of it count no day's usage, nothing parked and no learned limit"
                    );
                }
            }
            Err(why) => {
                // It may be of use to somebody, or no state at all.
                let ignored = beside(&path, ".ignored");
                let moved = fs::rename(&path, &ignored).is_ok();
                let moved = if moved { format!("; it is {} from now on", ignored.display()) } else { String::new() };
                tracing::warn!(file = %path.display(), "the state is ignored, and everything learned anew: {why}{moved}");
            }
        }
        Some(Self { path, saved: Mutex::default() })
    }

    /// Writes the state again and again, as it changes.
    pub(crate) async fn keep(self: Arc<Self>, current: Arc<Current>) -> Infallible {
        loop {
            self.save(&current).await;
            sleep(EVERY).await;
        }
    }

    /// Writes the state, if it has changed. Says in the log when that begins to fail, and when it works again.
    pub(crate) async fn save(self: &Arc<Self>, current: &Current) {
        let (state, stack) = (self.clone(), current.stack());
        // The file of thousands of scopes is megabytes.
        let _ = spawn_blocking(move || state.write(&stack)).await;
    }

    fn write(&self, stack: &Stack) {
        // The last to come has the newest state.
        let mut saved = self.saved.lock();
        let knowledge = Knowledge::of(stack);
        let Ok(bytes) = serde_json::to_vec(&knowledge) else { return };
        if saved.knowledge.as_ref() == Some(&bytes) {
            return;
        }
        let trouble = replace(&self.path, knowledge, clock::wall()).err().map(|error| error.to_string());
        let file = self.path.display();
        if trouble.is_none() {
            saved.knowledge = Some(bytes);
        }
        match saved.news(trouble) {
            Some(News::Fails(why)) => {
                tracing::error!(%file, "the state cannot be written, and a restart would lose what is learned: {why}");
            }
            Some(News::Works) => tracing::info!(%file, "the state is written again"),
            None => {}
        }
    }
}

impl Knowledge {
    fn of(stack: &Stack) -> Self {
        let gemini = &stack.gemini;
        Self {
            upstream: stack.settings.upstream.identity(),
            limits: gemini.limiter().map(Limiter::memory).unwrap_or_default(),
            keys: gemini.keys().map(KeyPool::memory).unwrap_or_default(),
            callers: gemini.callers().map(CallerLimits::memory).unwrap_or_default(),
            things: stack.separation().kept(),
        }
    }

    fn restore(&self, stack: &Stack) {
        let gemini = &stack.gemini;
        if let Some(limiter) = gemini.limiter() {
            limiter.restore(&self.limits);
        }
        if let Some(keys) = gemini.keys() {
            keys.restore(&self.keys);
        }
        if let Some(callers) = gemini.callers() {
            callers.restore(&self.callers);
        }
        stack.separation().restore(&self.things);
    }
}

/// Reads the file. Returns its knowledge and its age, or else why it is ignored.
fn read(path: &Path, stack: &Stack, now: SystemTime) -> Result<Option<(Knowledge, Duration)>, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(cannot)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?,
    };
    let knowledge = parse(&bytes, now)?;
    if knowledge.0.upstream != stack.settings.upstream.identity() {
        return Err("it was learned from another upstream".to_owned());
    }
    Ok(Some(knowledge))
}

/// Reads the content of a file.
fn parse(bytes: &[u8], now: SystemTime) -> Result<(Knowledge, Duration), String> {
    if bytes.len() > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    // The error itself might quote the file, whatever that is.
    let broken = |error: serde_json::Error| format!("it is broken at line {}, column {}", error.line(), error.column());
    let VersionOnly { version } = serde_json::from_slice(bytes).map_err(broken)?;
    if version != VERSION {
        return Err(format!("its version is {version}; this relay writes and reads version {VERSION}"));
    }
    let file: StateFile<Knowledge> = serde_json::from_slice(bytes).map_err(broken)?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let written = Duration::from_secs(file.written);
    let age = now.saturating_sub(written);
    if written > now + TOLERANCE {
        return Err("it was written in the future, by this machine's clock".to_owned());
    }
    if age > OLDEST {
        return Err(format!("it was written {} days ago", age.as_secs() / 86_400));
    }
    Ok((file.knowledge, age))
}

/// Puts a new file in the place of the old one.
fn replace(path: &Path, knowledge: Knowledge, now: SystemTime) -> io::Result<()> {
    let written = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut bytes = serde_json::to_vec(&StateFile { version: VERSION, written, knowledge })?;
    bytes.push(b'\n');
    if bytes.len() > LARGEST {
        return Err(io::Error::other(format!("it would have {} bytes, more than {LARGEST}", bytes.len())));
    }
    let mut file = create_temporary(path)?;
    let temporary = temporary(path);
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The name is on the disk once the folder is. Not every file system can do that, and the file is there already.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Returns the path with that at the end of the file's name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn content(version: u32, written: u64) -> String {
        let memory = r#""upstream":"emulator","limits":{},"keys":{},"callers":{}"#;
        format!(r#"{{"version":{version},"written":{written},{memory}}}"#)
    }

    #[test]
    fn a_trouble_is_said_once_and_its_end_too() {
        let mut saved = Saved::default();
        let fails = |why: &str| Some(News::Fails(why.to_owned()));
        for (trouble, expected) in [
            (None, None),
            (Some("full"), fails("full")),
            (Some("full"), None),
            (Some("gone"), fails("gone")),
            (None, Some(News::Works)),
            (None, None),
        ] {
            assert_eq!(saved.news(trouble.map(str::to_owned)), expected);
        }
    }

    #[test]
    fn a_file_is_replaced_in_one_step_and_only_its_owner_may_read_it() {
        let folder = std::env::temp_dir().join(format!("relay-state-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state.json");
        let knowledge = || -> Knowledge { parse(content(1, 1_000).as_bytes(), at(1_000)).unwrap().0 };
        // What a killed process may have left does no harm.
        fs::write(temporary(&path), "half of a st").unwrap();
        for written in [1_000, 2_000] {
            replace(&path, knowledge(), at(written)).unwrap();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(parse(&bytes, at(2_000)).unwrap().1, Duration::from_secs(2_000 - written));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&folder).unwrap();
        assert!(replace(&path, knowledge(), at(1)).is_err());
    }

    #[test]
    fn a_file_that_says_nothing_for_now_is_ignored_with_its_reason() {
        let day = 86_400;
        for (content, says) in [
            (content(2, 1_000_000), "version is 2"),
            (content(0, 1_000_000), "version is 0"),
            (content(1, 1_000_000 + 2 * day), "in the future"),
            (content(1, 1_000_000 - 9 * day), ""),
            (content(1, 1_000_000 + 60), ""),
            (content(1, 1_000_000)[..40].to_owned(), "broken at line 1, column 40"),
            (r#"{"version":1,"written":1000000,"upstream":"emulator"}"#.to_owned(), "broken"),
            (String::new(), "broken at line 1, column 0"),
            ("[[keys]]\nkey = \"AIza-secret\"".to_owned(), "broken at line 1"),
        ] {
            match parse(content.as_bytes(), at(1_000_000)) {
                Ok((_, age)) => assert!(says.is_empty() && age <= Duration::from_secs(9 * day), "{content}"),
                Err(why) => {
                    assert!(!says.is_empty() && why.contains(says) && !why.contains("AIza"), "{content}: {why}")
                }
            }
        }
        assert!(parse(content(1, 0).as_bytes(), at(33 * day)).is_err_and(|why| why.contains("33 days ago")));
        assert!(parse(&vec![b' '; LARGEST + 1], at(0)).is_err_and(|why| why.contains("larger")));
    }
}
