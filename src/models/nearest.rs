//! Decides whether an unknown name is a typing error, and finds the name that was meant.
//!
//! New models appear every few weeks, mostly as another number in an old name, and the upstream serves some that no
//! list names. To refuse one of those would be far worse than to forward a name that the upstream then answers with
//! 404. So a name counts as a typing error only where it is very unlikely to be anything else:
//!
//! - it is at most two typing errors away from a known name that has the same digits in the same order:
//!   `gemini-2.5-flsh`, `gemni-2.5-pr`, `gemini-25-flash`;
//! - it is long enough for them: one error needs a name of four characters (`aqb` is not a misspelt `aqa`), two need
//!   eight in the words that differ (`gemini-4-argon` is not a misspelt `gemini-4-carbon`);
//! - it does not have the letters of known names with digits that none of them has (`gemini-3.9-flash`,
//!   `gemini-2.0-flash-002`): that is another version;
//! - it is not a near name with something behind it after a `-`, `@`, `.` or `:` (`gemini-2.5-flash-x`): that is a
//!   version suffix, as `gemini-2.5-flash@001` on Vertex;
//! - it is not a known name in another case: it is not known whether the upstream accepts that;
//! - it has no `/` in it: tuned models and endpoints are in no list.

use std::sync::Arc;

/// The longest name that is judged, in bytes. No model has a longer one, and judging long names would let a caller make
/// every call expensive.
pub(super) const MAX_NAME: usize = 128;

/// The most names that are suggested.
const MAX_OFFERED: usize = 3;

/// The most typing errors in one name. Of names with two, 97 % still have one right answer.
const MAX_DISTANCE: u8 = 2;

/// Returns the known names that were probably meant, the nearest only, in alphabetical order. Empty where `name` may
/// well be the name of a model.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
    if !is_judged(name) {
        return Vec::new();
    }
    let (mut found, mut least) = (Vec::new(), MAX_DISTANCE);
    let (mut same_letters, mut same_both) = (false, false);
    for other in known {
        if name.eq_ignore_ascii_case(other) {
            return Vec::new();
        }
        let same_digits = digits(name).eq(digits(other));
        if letters(name).eq(letters(other)) {
            same_letters = true;
            same_both |= same_digits;
        }
        let Some(distance) = distance(name.as_bytes(), other.as_bytes()) else { continue };
        if has_suffix(name, other) {
            return Vec::new();
        }
        let room = if distance < 2 { other.len() } else { differing(name, other) };
        if !same_digits || room < 4 * usize::from(distance) || distance > least {
            continue;
        }
        if distance < least {
            found.clear();
            least = distance;
        }
        found.push(other.clone());
    }
    if same_letters && !same_both {
        return Vec::new();
    }
    found.sort_unstable();
    found.truncate(MAX_OFFERED);
    found
}

/// Returns whether a list can judge such a name.
pub(super) fn is_judged(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains('/')
}

/// Returns whether `name` is `other` with a possible version suffix.
fn has_suffix(name: &str, other: &str) -> bool {
    name.strip_prefix(other).is_some_and(|rest| rest.starts_with(['-', '@', '.', ':']))
}

/// Returns the length of `other` without the words at both ends that it shares with `name`.
fn differing(mut name: &str, mut other: &str) -> usize {
    while let (Some((a, name_rest)), Some((b, other_rest))) = (name.split_once('-'), other.split_once('-'))
        && a == b
    {
        (name, other) = (name_rest, other_rest);
    }
    while let (Some((name_rest, a)), Some((other_rest, b))) = (name.rsplit_once('-'), other.rsplit_once('-'))
        && a == b
    {
        (name, other) = (name_rest, other_rest);
    }
    other.len()
}

fn digits(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_digit)
}

fn letters(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphabetic)
}

/// The cells in each row of the table. Further from the diagonal every path costs too much.
const BAND: usize = 2 * MAX_DISTANCE as usize + 1;

/// Counts the bytes that were left out, added, mistaken, or swapped with their neighbour (optimal string alignment).
/// Returns `None` for more than [`MAX_DISTANCE`]. It takes time in proportion to the shorter text, and no memory.
fn distance(a: &[u8], b: &[u8]) -> Option<u8> {
    const K: usize = MAX_DISTANCE as usize;
    const FAR: u8 = MAX_DISTANCE + 1;
    if a.len().abs_diff(b.len()) > K {
        return None;
    }
    // The cell `at` of row `i` is for the first `i` bytes of `a` and the first `i + at - K` of `b`.
    let (mut before_last, mut last, mut row) = ([FAR; BAND], [FAR; BAND], [FAR; BAND]);
    for i in 0..=a.len() {
        for at in 0..BAND {
            row[at] = FAR;
            let Some(j) = (i + at).checked_sub(K).filter(|j| *j <= b.len()) else { continue };
            if i == 0 || j == 0 {
                row[at] = FAR.min((i + j) as u8);
                continue;
            }
            let same = a[i - 1] == b[j - 1];
            let mut cost = last[at] + u8::from(!same);
            if at + 1 < BAND {
                cost = cost.min(last[at + 1] + 1);
            }
            if at > 0 {
                cost = cost.min(row[at - 1] + 1);
            }
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before_last[at] + 1);
            }
            row[at] = cost.min(FAR);
        }
        // Two rows without a cheap cell end it: one is not enough, because a swap steps over a row.
        if i > 0 && row.iter().chain(&last).all(|cost| *cost >= FAR) {
            return None;
        }
        (before_last, last, row) = (last, row, before_last);
    }
    Some(last[b.len() + K - a.len()]).filter(|cost| *cost <= MAX_DISTANCE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The textbook's table, whole.
    fn naive(a: &[u8], b: &[u8]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let changed = usize::from(a[i - 1] != b[j - 1]);
                    let mut cost = (table[i - 1][j] + 1).min(table[i][j - 1] + 1).min(table[i - 1][j - 1] + changed);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        cost = cost.min(table[i - 2][j - 2] + 1);
                    }
                    cost
                };
            }
        }
        table[a.len()][b.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_band_knows_what_the_whole_table_knows(a in "[ab]{0,12}", b in "[ab]{0,12}") {
            let expected = Some(naive(a.as_bytes(), b.as_bytes())).filter(|cost| *cost <= 2).map(|cost| cost as u8);
            prop_assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected);
        }

        /// Texts that are near each other, as chance hardly ever makes them.
        #[test]
        fn a_few_errors_are_counted_as_in_the_whole_table(
            text in "[a-d]{1,30}",
            errors in proptest::collection::vec((0usize..4, any::<prop::sample::Index>(), b'a'..b'e'), 0..4),
        ) {
            let mut other = text.clone().into_bytes();
            for (kind, at, byte) in errors {
                if other.len() < 2 {
                    break;
                }
                let at = at.index(other.len() - 1);
                match kind {
                    0 => other[at] = byte,
                    1 => other.insert(at, byte),
                    2 => drop(other.remove(at)),
                    _ => other.swap(at, at + 1),
                }
            }
            let expected = Some(naive(text.as_bytes(), &other)).filter(|cost| *cost <= 2).map(|cost| cost as u8);
            prop_assert_eq!(distance(text.as_bytes(), &other), expected);
            prop_assert_eq!(distance(&other, text.as_bytes()), expected);
        }
    }

    fn meant(name: &str) -> Vec<String> {
        let known = [
            "gemini-2.5-pro",
            "gemini-2.5-flash",
            "gemini-2.5-flash-lite",
            "gemini-3.5-flash",
            "gemini-3.8-flash",
            "gemini-2.0-flash-001",
            "gemini-flash-latest",
            "gemini-embedding-001",
            "imagen-4.0-generate-001",
            "veo-1-a",
            "veo-1-b",
            "veo-1-c",
            "veo-1-d",
            "aqa",
        ];
        let known = known.map(Arc::<str>::from);
        nearest(name, known.iter()).iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_typing_error_in_the_letters_is_one() {
        for (name, meaning) in [
            ("gemini-2.5-flsh", "gemini-2.5-flash"),
            ("gemini-2.5-falsh", "gemini-2.5-flash"),
            ("gemni-2.5-pr", "gemini-2.5-pro"),
            ("gemini-25-flash", "gemini-2.5-flash"),
            ("gemini-embding-001", "gemini-embedding-001"),
            ("imagen-4.0-generat-001", "imagen-4.0-generate-001"),
            ("imagen-4.0-gnerat-001", "imagen-4.0-generate-001"),
            ("gemini-2-5-flash", "gemini-2.5-flash"),
            ("gemini-2.5-flash-lit", "gemini-2.5-flash-lite"),
            ("gemini-2.5-flash-lites", "gemini-2.5-flash-lite"),
            ("gemini2.5-pro", "gemini-2.5-pro"),
            ("gemini-flash-lates", "gemini-flash-latest"),
            ("gemini-embeding-001", "gemini-embedding-001"),
            ("gemini-2.5-flash ", "gemini-2.5-flash"),
        ] {
            assert_eq!(meant(name), [meaning], "{name}");
        }
    }

    #[test]
    fn what_may_be_a_model_is_none() {
        for name in [
            "",
            "gemini-3.9-flash",
            "gemini-1.5-flash",
            "gemini-2.55-flash",
            "gemini-4-flash",
            "gemini-10.25-flash",
            "gemini-2.0-flash-002",
            "gemini-2.0-flash-01",
            "gemini-2.5-flash-001",
            "gemini-2.5-flash-preview-05-20",
            "gemini-2.5-flash@001",
            "gemini-2.5-pro@a",
            "gemini-2.5-pro-x",
            "gemini-flash-latest-b",
            "gemini-3.9-flsh",
            "Gemini-2.5-flash",
            "GEMINI-2.5-PRO",
            "gemini-ultra",
            "tunedModels/gemini-2.5-pr",
            "gemini-2.5-pr/",
            "gpt-5",
            "gemini-2.5-fls",
            "abc",
            "aqb",
        ] {
            assert!(meant(name).is_empty(), "{name}: {:?}", meant(name));
        }
    }

    /// Names of models that have been served by the Developer API.
    const SERVED: &str = "gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-2.5-flash-image \
        gemini-2.5-flash-preview-tts gemini-2.5-pro-preview-tts gemini-2.0-flash gemini-2.0-flash-001 gemini-2.0-flash-exp \
        gemini-2.0-flash-lite gemini-2.0-flash-lite-001 gemini-3-flash-preview gemini-3-pro-preview gemini-3-pro-image \
        gemini-3.1-pro-preview gemini-3.1-flash-lite gemini-3.5-flash gemini-3.5-flash-lite gemini-3.6-flash \
        gemini-3.7-flash gemini-3.8-flash gemini-4-argon gemini-4-carbon gemini-4-hydrogen gemini-flash-latest \
        gemini-flash-lite-latest gemini-pro-latest gemini-embedding-001 gemini-embedding-exp text-embedding-004 \
        embedding-001 gemma-3-1b-it gemma-3-4b-it gemma-3-12b-it gemma-3-27b-it gemma-3n-e2b-it gemma-3n-e4b-it \
        imagen-4.0-generate-001 imagen-4.0-ultra-generate-001 imagen-4.0-fast-generate-001 veo-3.0-generate-001 \
        veo-3.0-fast-generate-001 veo-3.1-generate-preview veo-3.1-fast-generate-preview aqa";

    #[test]
    fn a_list_that_does_not_have_a_model_yet_does_not_refuse_it() {
        let served: Vec<Arc<str>> = SERVED.split_whitespace().map(Arc::from).collect();
        for new in &served {
            let others = served.iter().filter(|name| *name != new);
            assert!(nearest(new, others.clone()).is_empty(), "{new}: {:?}", nearest(new, others));
        }
    }

    #[test]
    fn an_error_in_the_letters_is_put_right() {
        let served: Vec<Arc<str>> = SERVED.split_whitespace().map(Arc::from).collect();
        let (mut errors, mut right) = (0, 0);
        for name in &served {
            for at in 0..name.len() {
                let (mut left_out, mut swapped) = (name.to_string(), name.as_bytes().to_vec());
                left_out.remove(at);
                swapped.swap(at, name.len().min(at + 2) - 1);
                for error in [left_out, String::from_utf8(swapped).unwrap()] {
                    if !digits(&error).eq(digits(name)) || error == **name || served.iter().any(|name| **name == error)
                    {
                        continue;
                    }
                    errors += 1;
                    right += u32::from(nearest(&error, served.iter()) == [name.clone()]);
                }
            }
        }
        assert!(right * 100 > errors * 97, "{right} of {errors}");
    }

    #[test]
    fn another_version_of_one_model_is_no_error_in_the_name_of_another() {
        let known = ["imagen-4-ultra", "imagen-3-ultras"].map(Arc::<str>::from);
        assert!(nearest("imagen-4-ultras", known.iter()).is_empty());
        assert_eq!(nearest("imagen-4-ultras", known[..1].iter()), known[..1]);
    }

    #[test]
    fn on_ties_three_are_named_and_a_farther_one_is_not() {
        assert_eq!(meant("veo-1-"), ["veo-1-a", "veo-1-b", "veo-1-c"]);
        assert_eq!(meant("veo-1-e"), ["veo-1-a", "veo-1-b", "veo-1-c"]);
        assert_eq!(meant("veo-1a"), ["veo-1-a"]);
    }
}
