//! Tests of the exact counter.

use std::{collections::HashMap, sync::LazyLock};

use proptest::prelude::*;

use super::{
    Tokenizer,
    special::{GEMMA3, GEMMA4},
    vocabulary::{NONE, Piece, SPACE_SIGN, halves_for_tests, vocabulary},
};

/// The plain model of the counter, without cuts, memo or pairs. Pieces are strings; neighbours merge if together they
/// are a piece, the lowest rank first, then the leftmost. Special pieces are taken before.
struct Model {
    ranks: HashMap<String, usize>,
    characters: HashMap<char, ()>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let mut pieces: Vec<String> = (0..=char::MAX as u32)
        .filter_map(char::from_u32)
        .filter(|&character| character != ' ' && vocabulary().character(u32::from(character)) != NONE)
        .map(|character| (vocabulary().character(u32::from(character)), character))
        .collect::<std::collections::BTreeMap<Piece, char>>()
        .into_values()
        .map(String::from)
        .collect();
    let characters = pieces.iter().filter_map(|piece| piece.chars().next()).map(|c| (c, ())).collect();
    let first = pieces.len();
    let halves = halves_for_tests();
    pieces.resize(first + halves.len(), String::new());
    fn spell(at: usize, first: usize, halves: &[(Piece, Piece)], pieces: &mut [String]) -> String {
        if pieces[at].is_empty() {
            let (left, right) = halves[at - first];
            pieces[at] = spell(left as usize, first, halves, pieces) + &spell(right as usize, first, halves, pieces);
        }
        pieces[at].clone()
    }
    for at in first..pieces.len() {
        spell(at, first, &halves, &mut pieces);
    }
    let ranks = pieces.into_iter().enumerate().skip(first).map(|(rank, piece)| (piece, rank)).collect();
    Model { ranks, characters }
});

impl Model {
    fn count(&self, text: &str, tags: &[String]) -> u64 {
        let text = text.replace(' ', "\u{2581}");
        let (mut whole, mut open, mut rest) = (0, String::new(), &text[..]);
        let mut stretches = Vec::new();
        while let Some(first) = rest.chars().next() {
            let tag = tags
                .iter()
                .filter(|_| matches!(first, '<' | '['))
                .find(|tag| rest.starts_with(tag.as_str()))
                .map(|tag| tag.len());
            let run = rest.chars().take(31).take_while(|&c| c == first).count();
            let run = (run > 1 && matches!(first, SPACE_SIGN | '\n' | '\t') || matches!(first, '\n' | '\t'))
                .then_some(run * first.len_utf8());
            if let Some(length) = tag.or(run) {
                whole += 1;
                stretches.push(std::mem::take(&mut open));
                rest = &rest[length..];
            } else {
                open.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        stretches.push(open);
        whole + stretches.iter().map(|stretch| self.merged(stretch)).sum::<u64>()
    }

    fn merged(&self, stretch: &str) -> u64 {
        let mut bounds: Vec<usize> = stretch.char_indices().map(|(at, _)| at).chain([stretch.len()]).collect();
        loop {
            let merges = bounds.windows(3).enumerate();
            let next = merges.filter_map(|(i, three)| Some((*self.ranks.get(&stretch[three[0]..three[2]])?, i))).min();
            match next {
                Some((_, i)) => bounds.remove(i + 1),
                None => break,
            };
        }
        bounds
            .windows(2)
            .map(|two| match stretch[two[0]..two[1]].chars().collect::<Vec<_>>()[..] {
                [character] if !self.characters.contains_key(&character) => character.len_utf8() as u64,
                _ => 1,
            })
            .sum()
    }
}

static TAGS_3: LazyLock<Vec<String>> = LazyLock::new(|| {
    let unused = (0..=6241).map(|number| format!("<unused{number}>"));
    GEMMA3.iter().map(|name| format!("<{name}>")).chain(["[multimodal]".to_owned()]).chain(unused).collect()
});
static TAGS_4: LazyLock<Vec<String>> = LazyLock::new(|| GEMMA4.iter().map(|name| format!("<{name}>")).collect());

const TAGS: [&str; 4] = ["<table>", "</li>", "<unused7>", "[multimodal]"];

fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-z]{1,12}",
        2 => "[ab]{1,70}",
        2 => "[a-zA-Z0-9 .,;:'\"()=<>/\\[\\]_-]{1,24}",
        2 => "\\PC{1,6}",
        1 => any::<String>(),
        2 => "[а-яё]{1,12}",
        1 => "[\u{e01}-\u{e4e}]{1,20}",
        1 => "[\u{300}-\u{330}\u{64b}-\u{655}e]{1,8}",
        1 => "[\u{4e00}-\u{4f00}\u{3041}-\u{3096}]{1,8}",
        1 => "[\u{0}-\u{20}\u{7f}]{1,8}",
        1 => ("[ \n\t\u{2581}=*/-]", 1..80usize).prop_map(|(one, times)| one.repeat(times)),
        1 => prop::sample::select(TAGS.to_vec()).prop_map(String::from),
        1 => "(> <|>\u{2581}</|\u{2581} |\u{1b}\\[|  ?=====)",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn counts_what_the_plain_model_counts(text in texts()) {
        prop_assert_eq!(Tokenizer::gemma3().count(&text).exact(), Some(MODEL.count(&text, &TAGS_3)));
        prop_assert_eq!(Tokenizer::gemma4().count(&text).exact(), Some(MODEL.count(&text, &TAGS_4)));
    }

}

proptest! {
    // The plain model is slow on these.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_long_stretch_is_merged_as_the_plain_model_merges(text in "[ab=e*/]{33,700}") {
        prop_assert_eq!(Tokenizer::gemma4().count(&text).exact(), Some(MODEL.count(&text, &TAGS_4)));
    }

    #[test]
    fn bounds_hold_where_counts_are_not_exact(letters in "[a-d]{1025,1100}") {
        let count = Tokenizer::gemma4().count(&letters);
        prop_assert_eq!(count.exact(), None);
        let exact = MODEL.count(&letters, &TAGS_4);
        prop_assert!(count.at_least <= exact && exact <= count.at_most, "{:?} for {}", count, exact);
    }

    #[test]
    fn memory_changes_no_count(texts in prop::collection::vec(texts(), 1..6)) {
        let alone: u64 = texts.iter().map(|text| MODEL.count(text, &TAGS_4)).sum();
        let mut counter = Tokenizer::gemma4().counter();
        texts.iter().for_each(|text| counter.push(text));
        prop_assert_eq!(counter.count().exact(), Some(alone));
    }
}

#[test]
fn every_piece_is_one_token() {
    let tokenizer = Tokenizer::gemma4();
    let mut counter = tokenizer.counter();
    for piece in MODEL.ranks.keys() {
        counter.push(piece);
    }
    assert_eq!(counter.count().exact(), Some(MODEL.ranks.len() as u64));
    assert_eq!(MODEL.ranks.len() + MODEL.characters.len(), 255_470);
}

#[test]
fn no_piece_is_longer_than_the_bounds_say() {
    assert_eq!(MODEL.ranks.keys().map(|piece| piece.chars().count() as u64).max(), Some(super::vocabulary::LONGEST));
}
