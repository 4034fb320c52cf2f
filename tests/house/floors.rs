//! The floors, and what breaks them.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Import, Module, imports, module_of};

/// The modules that every room speaks.
const GROUND: [&str; 24] = [
    "answer",
    "block",
    "body",
    "bounded",
    "call",
    "clock",
    "context",
    "describe",
    "failure",
    "macros",
    "models",
    "observe",
    "prices",
    "quota",
    "ready",
    "recent",
    "redact",
    "request",
    "resource",
    "service_times",
    "status",
    "sync",
    "tokenizer",
    "trace",
];

/// The layers.
const ROOMS: [&str; 13] = [
    "caller_limit",
    "circuit_breaker",
    "classify",
    "error_response",
    "keep_alive",
    "key_pool",
    "model_fallback",
    "rate_limit",
    "replay",
    "retry",
    "telemetry",
    "timeout",
    "token_precheck",
];

/// The modules that put the rooms together, or stand beside them.
const ROOF: [&str; 4] = ["client", "emulator", "redis_store", "stack"];

/// Guides, and the inside as fuzz targets and proofs have to see it. No module imports them.
const OUTSIDE: [&str; 3] = ["docs", "fuzzing", "proofs"];

/// The folders of the emulator.
const EMULATOR: [&str; 5] = ["decide", "script", "serve", "state", "wire"];

const LIBRARY: &str = "src/";
const RELAY: &str = "examples/relay/src/";

/// Describes each breach of the floors; none where the house stands. `files` are paths within the package, and their
/// text.
pub(crate) fn breaches(files: &[(String, String)]) -> Vec<String> {
    let below = |folder: &'static str| -> Vec<(&str, &str)> {
        files.iter().filter_map(|(path, text)| Some((path.strip_prefix(folder)?, text.as_str()))).collect()
    };
    let (library, relay) = (below(LIBRARY), below(RELAY));
    let mut found = homeless(&library);
    let all = imports(&library);
    found.extend(all.iter().filter_map(breach));
    let ground = |module: &Module| module.first().filter(|unit| GROUND.contains(&unit.as_str())).cloned();
    let emulator = |module: &Module| match module.as_slice() {
        [emulator, folder, ..] if emulator == "emulator" && EMULATOR.contains(&folder.as_str()) => Some(folder.clone()),
        _ => None,
    };
    // The root of a program has the names that all of it uses.
    let file = |module: &Module| Some(if module.is_empty() { "main".to_owned() } else { module.join("/") });
    found.extend(circle("on the ground floor", LIBRARY, &all, ground));
    found.extend(circle("in the emulator", LIBRARY, &all, emulator));
    found.extend(circle("in the relay", RELAY, &imports(&relay), file));
    found
}

/// Finds modules that stand on no floor.
fn homeless(files: &[(&str, &str)]) -> Vec<String> {
    let units: BTreeSet<String> = files.iter().filter_map(|(path, _)| module_of(path).into_iter().next()).collect();
    let floors = [&GROUND[..], &ROOMS, &ROOF, &OUTSIDE].concat();
    let homeless = units.iter().filter(|unit| !floors.contains(&unit.as_str()));
    homeless.map(|unit| format!("`{unit}` stands on no floor: add it to one in tests/house/floors.rs")).collect()
}

/// Returns the rule that an import breaks, if it breaks one.
fn breach(import: &Import<'_>) -> Option<String> {
    let (from, to) = (import.from.first()?.as_str(), import.to.first()?.as_str());
    let is_room = ROOMS.contains(&from);
    let rule = if from == to {
        return None;
    } else if GROUND.contains(&from) && !GROUND.contains(&to) {
        "the ground floor imports nothing above it"
    } else if is_room && ROOMS.contains(&to) {
        "a room imports no room"
    } else if is_room && !GROUND.contains(&to) {
        "a room imports nothing from the roof"
    } else {
        return None;
    };
    let Import { file, written, .. } = import;
    Some(format!("{rule}: {LIBRARY}{file} imports `{written}`, and so `{from}` depends on `{to}`"))
}

/// Finds a circle between units, with one import for each of its steps.
fn circle(
    place: &str,
    folder: &str,
    imports: &[Import<'_>],
    unit: impl Fn(&Module) -> Option<String>,
) -> Option<String> {
    let mut steps: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for import in imports {
        if let (Some(from), Some(to)) = (unit(&import.from), unit(&import.to))
            && from != to
        {
            let why = format!("{folder}{} imports `{}`", import.file, import.written);
            steps.entry(from).or_default().entry(to).or_insert(why);
        }
    }
    let mut done = BTreeSet::new();
    let way = steps.keys().find_map(|from| way_back(from, &steps, &mut Vec::new(), &mut done))?;
    let whys =
        way.iter().zip(way.iter().cycle().skip(1)).map(|(from, to)| format!("\n  {from} → {to}: {}", steps[from][to]));
    Some(format!("a circle {place}:{}", whys.collect::<String>()))
}

/// Finds a circle that can be reached from a unit, and returns its units in their order.
fn way_back<'a>(
    unit: &'a String,
    steps: &'a BTreeMap<String, BTreeMap<String, String>>,
    way: &mut Vec<&'a String>,
    done: &mut BTreeSet<&'a String>,
) -> Option<Vec<String>> {
    if let Some(at) = way.iter().position(|before| *before == unit) {
        return Some(way[at..].iter().map(|unit| (*unit).clone()).collect());
    }
    if !done.insert(unit) {
        return None;
    }
    way.push(unit);
    let found = steps.get(unit).into_iter().flat_map(BTreeMap::keys).find_map(|next| way_back(next, steps, way, done));
    way.pop();
    found
}
