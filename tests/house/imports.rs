//! Reads the imports of Rust sources: `use` trees, and paths from `crate::`, `self::` and `super::` that stand in the
//! code.
//!
//! Comments and literals are left out, and so is what only a test, a fuzz target or a proof has.

use std::collections::{HashMap, HashSet};

/// The path of a module within its crate; the root has none.
pub(crate) type Module = Vec<String>;

/// A path as it is written, where it stands, and the module that it leads to.
pub(crate) struct Import<'a> {
    pub(crate) file: &'a str,
    pub(crate) from: Module,
    pub(crate) written: String,
    pub(crate) to: Module,
}

/// Finds all that the files of a crate import from one another. `files` are paths below the crate's source folder and
/// their text.
pub(crate) fn imports<'a>(files: &[(&'a str, &'a str)]) -> Vec<Import<'a>> {
    let read: Vec<(&str, Module, Read)> = files
        .iter()
        .map(|(path, text)| {
            let module = module_of(path);
            let read = Reader::new(module.clone(), text).read();
            (*path, module, read)
        })
        .collect();
    let for_tests: HashSet<&Module> = read.iter().flat_map(|(_, _, read)| &read.for_tests).collect();
    let is_for_tests = |module: &Module| (1..=module.len()).any(|len| for_tests.contains(&module[..len].to_vec()));

    let mut modules = Modules::default();
    for (_, module, read) in &read {
        modules.known.insert(module.clone());
        modules.known.extend(read.inline.iter().cloned());
        for path in read.paths.iter().filter(|path| path.name.is_some()) {
            let name = path.name.clone().unwrap_or_default();
            modules.names.entry((path.within.clone(), name)).or_insert_with(|| path.segments.clone());
        }
    }
    let mut found = Vec::new();
    for (file, module, read) in read.iter().filter(|(_, module, _)| !is_for_tests(module)) {
        for path in &read.paths {
            if let Some(to) = modules.resolve(&path.within, &path.segments, 0) {
                found.push(Import { file, from: module.clone(), written: path.segments.join("::"), to });
            }
        }
    }
    found
}

/// Returns the module of a file: `key_pool/mod.rs` and `key_pool.rs` are the same.
pub(crate) fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" || path == "main" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

// === resolution ===

#[derive(Default)]
struct Modules {
    known: HashSet<Module>,
    /// The paths that `use` brings into a module, by their names there.
    names: HashMap<(Module, String), Vec<String>>,
}

impl Modules {
    /// Finds the module in which a path ends; `None` where it leads out of the crate.
    fn resolve(&self, within: &Module, segments: &[String], depth: usize) -> Option<Module> {
        let mut at = within.clone();
        let mut rest = segments;
        match segments.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &segments[1..]),
            "self" => rest = &segments[1..],
            "super" => {}
            first => {
                let child = [at.clone(), vec![first.to_owned()]].concat();
                if !self.known.contains(&child) && !self.names.contains_key(&(at.clone(), first.to_owned())) {
                    return None;
                }
            }
        }
        while let Some((segment, after)) = rest.split_first() {
            if segment == "super" {
                at.pop();
                rest = after;
                continue;
            }
            at.push(segment.clone());
            if self.known.contains(&at) {
                rest = after;
                continue;
            }
            at.pop();
            // Another `use` may have brought the name here; one that names itself leads nowhere.
            let Some(target) = self.names.get(&(at.clone(), segment.clone())).filter(|_| depth < 16) else { break };
            if target.as_slice() == segments {
                break;
            }
            return self.resolve(&at, &[target.as_slice(), after].concat(), depth + 1).or(Some(at));
        }
        Some(at)
    }
}

// === reading ===

/// The imports and modules of one file.
#[derive(Default)]
struct Read {
    paths: Vec<Path>,
    /// The modules within the file.
    inline: Vec<Module>,
    /// The modules that only tests have.
    for_tests: Vec<Module>,
}

struct Path {
    within: Module,
    segments: Vec<String>,
    /// The name by which a `use` brings it in.
    name: Option<String>,
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
    module: Module,
    read: Read,
}

impl Reader {
    fn new(module: Module, text: &str) -> Self {
        Self { tokens: tokens(text), at: 0, module, read: Read::default() }
    }

    fn token(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    fn read(mut self) -> Read {
        let mut depth = 0;
        let mut inline: Vec<usize> = Vec::new();
        while self.at < self.tokens.len() {
            match self.token(0) {
                "#" if self.token(1) == "[" => {
                    if self.attribute() {
                        self.skip_item();
                    }
                    continue;
                }
                "mod" if self.token(2) == "{" => {
                    self.module.push(self.token(1).to_owned());
                    self.read.inline.push(self.module.clone());
                    inline.push(depth);
                    depth += 1;
                    self.at += 2;
                }
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        self.module.pop();
                    }
                }
                // `use<'a>` is what an `impl Trait` captures.
                "use" if self.token(1) != "<" => {
                    self.at += 1;
                    self.use_tree(Vec::new());
                }
                "crate" | "self" | "super" if self.token(1) == "::" => {
                    let segments = self.path();
                    self.read.paths.push(Path { within: self.module.clone(), segments, name: None });
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.read
    }

    /// Reads a path outside of `use`, to behind its end.
    fn path(&mut self) -> Vec<String> {
        let mut segments = vec![self.token(0).to_owned()];
        self.at += 1;
        while self.token(0) == "::" && is_name(self.token(1)) {
            segments.push(self.token(1).to_owned());
            self.at += 2;
        }
        segments
    }

    /// Reads a `use` tree, from its first token to its last.
    fn use_tree(&mut self, before: Vec<String>) {
        if self.token(0) == "::" {
            self.at += 1;
        }
        let mut segments = before;
        while is_name(self.token(0)) {
            segments.push(self.token(0).to_owned());
            if self.token(1) != "::" {
                break;
            }
            self.at += 2;
        }
        if self.token(0) == "{" {
            self.at += 1;
            while self.token(0) != "}" && self.at < self.tokens.len() {
                if self.token(0) != "," {
                    self.use_tree(segments.clone());
                }
                self.at += 1;
            }
            return;
        }
        // `a::{self}` is `a`.
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let mut name = segments.last().cloned().filter(|_| self.token(0) != "*");
        if self.token(1) == "as" {
            name = Some(self.token(2).to_owned());
            self.at += 2;
        }
        self.read.paths.push(Path { within: self.module.clone(), segments, name });
    }

    /// Reads an attribute, to behind its end. Returns whether the item behind it exists only in tests, fuzz targets or
    /// proofs.
    fn attribute(&mut self) -> bool {
        let from = self.at;
        self.at += 1;
        self.skip_group();
        let words = &self.tokens[from..self.at];
        let has = |word: &str| words.iter().any(|token| token == word);
        words[2] == "cfg" && ["test", "fuzzing", "gemini_loom"].into_iter().any(has) && !has("not") && !has("any")
    }

    /// Skips the item behind an attribute. A field, an arm or a statement is not an item, and is read like all code.
    fn skip_item(&mut self) {
        while self.token(0) == "#" {
            self.attribute();
        }
        let from = self.at;
        if self.token(0) == "pub" {
            self.at += 1;
            if self.token(0) == "(" {
                self.skip_group();
            }
        }
        let keywords =
            ["async", "const", "enum", "extern", "fn", "impl", "mod", "static", "struct", "trait", "type", "use"];
        if !keywords.contains(&self.token(0)) {
            self.at = from;
            return;
        }
        if self.token(0) == "mod" {
            let module = [self.module.clone(), vec![self.token(1).to_owned()]].concat();
            self.read.for_tests.push(module);
        }
        let is_use = self.token(0) == "use";
        while self.at < self.tokens.len() {
            match self.token(0) {
                ";" => {
                    self.at += 1;
                    return;
                }
                "{" if !is_use => return self.skip_group(),
                "(" | "[" | "{" => self.skip_group(),
                _ => self.at += 1,
            }
        }
    }

    /// Skips from an opening bracket to behind the one that closes it.
    fn skip_group(&mut self) {
        let mut open = 0;
        while self.at < self.tokens.len() {
            match self.token(0) {
                "(" | "[" | "{" => open += 1,
                ")" | "]" | "}" => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first == '_' || first.is_alphabetic())
}

/// Splits a source into names, `::` and single characters, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let at = |place: usize| text.get(place).copied().unwrap_or('\0');
    let is_word = |character: char| character == '_' || character.is_alphanumeric();
    let (mut found, mut place) = (Vec::new(), 0);
    while place < text.len() {
        match (at(place), at(place + 1)) {
            ('/', '/') => place = find(&text, place, '\n'),
            ('/', '*') => place = after_comment(&text, place),
            ('"', _) => place = after_string(&text, place),
            ('\'', '\\') => place = find(&text, place + 3, '\'') + 1,
            ('\'', _) if at(place + 2) == '\'' => place += 3,
            // A lifetime: its name goes with it.
            ('\'', _) => {
                place += 1;
                while is_word(at(place)) {
                    place += 1;
                }
            }
            (':', ':') => {
                found.push("::".to_owned());
                place += 2;
            }
            (first, _) if is_word(first) => {
                let from = place;
                while is_word(at(place)) {
                    place += 1;
                }
                let word: String = text[from..place].iter().collect();
                let hashes = (place..).take_while(|place| at(*place) == '#').count();
                match word.as_str() {
                    "r" | "br" | "cr" if at(place + hashes) == '"' => place = after_raw(&text, place + hashes, hashes),
                    "b" | "c" if at(place) == '"' => place = after_string(&text, place),
                    // A name that would be a keyword.
                    "r" if hashes == 1 => place += 1,
                    _ => found.push(word),
                }
            }
            (other, _) => {
                if !other.is_whitespace() {
                    found.push(other.to_string());
                }
                place += 1;
            }
        }
    }
    found
}

fn find(text: &[char], from: usize, wanted: char) -> usize {
    (from..text.len()).find(|place| text[*place] == wanted).unwrap_or(text.len())
}

fn after_comment(text: &[char], from: usize) -> usize {
    let (mut place, mut open) = (from, 0);
    while place + 1 < text.len() {
        match (text[place], text[place + 1]) {
            ('/', '*') => (place, open) = (place + 2, open + 1),
            ('*', '/') => (place, open) = (place + 2, open - 1),
            _ => place += 1,
        }
        if open == 0 {
            return place;
        }
    }
    text.len()
}

fn after_string(text: &[char], quote: usize) -> usize {
    let mut place = quote + 1;
    while place < text.len() && text[place] != '"' {
        place += if text[place] == '\\' { 2 } else { 1 };
    }
    place + 1
}

fn after_raw(text: &[char], quote: usize, hashes: usize) -> usize {
    let mut place = quote + 1;
    loop {
        place = find(text, place, '"') + 1;
        if place > text.len() || text[place..].iter().take(hashes).filter(|next| **next == '#').count() == hashes {
            return place + hashes;
        }
    }
}
