//! The nearest known word to one that was mistyped.

/// Words longer than this are not compared, so that a hostile key costs nothing.
const WORD_CHARACTERS_MAX: usize = 64;
/// Known words that are compared at most.
const KNOWN_WORDS_MAX: usize = 10_000;

/// The known word nearest to `word`, if a slip of the fingers could lead from one to the other.
///
/// Distance is Damerau and Levenshtein's (insert, delete, replace, swap neighbours; no part edited twice), letters of
/// either case alike, and `-` like `_`. At most a third of the longer word may differ. Of equals the one nearer in length wins, then the earlier.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = folded(word)?;
    let mut best: Option<((usize, usize), &str)> = None;
    for candidate in known.into_iter().take(KNOWN_WORDS_MAX) {
        let Some(folded) = folded(candidate) else { continue };
        let distance_max = (word.len().max(folded.len()) / 3).max(1);
        if word.len().abs_diff(folded.len()) > distance_max || word.len().min(folded.len()) <= distance_max / 2 {
            continue;
        }
        let distance = distance(&word, &folded);
        // Nothing of either would be left: such words have nothing in common.
        if distance >= word.len().max(folded.len()) {
            continue;
        }
        let rank = (distance, word.len().abs_diff(folded.len()));
        if distance <= distance_max && best.is_none_or(|(least, _)| rank < least) {
            best = Some((rank, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The sentence for a help line: "did you mean `needs`?", or the list of what is known if nothing is near.
///
/// Lists at most twelve words.
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    if let Some(nearest) = nearest(word, known.iter().copied()) {
        return format!("did you mean `{nearest}`?");
    }
    let listed: Vec<String> = known.iter().take(12).map(|word| format!("`{word}`")).collect();
    let rest = if known.len() > listed.len() { ", …" } else { "" };
    match listed.is_empty() {
        true => "remove it".to_owned(),
        false => format!("known here: {}{rest}", listed.join(", ")),
    }
}

/// The word in the letters that are compared; `None` if it is too long.
fn folded(word: &str) -> Option<Vec<char>> {
    let folded: Vec<char> = word
        .chars()
        .take(WORD_CHARACTERS_MAX + 1)
        .map(|character| if character == '-' { '_' } else { character.to_ascii_lowercase() })
        .collect();
    (folded.len() <= WORD_CHARACTERS_MAX).then_some(folded)
}

/// The optimal string alignment distance.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut row = above.clone();
    for (i, &left_character) in left.iter().enumerate() {
        row[0] = i + 1;
        for (j, &right_character) in right.iter().enumerate() {
            let replaced = above[j] + usize::from(left_character != right_character);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            let is_swap = i > 0 && j > 0 && left_character == right[j - 1] && left[i - 1] == right_character;
            if is_swap {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        std::mem::swap(&mut before, &mut above);
        std::mem::swap(&mut above, &mut row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<&str>) {
        let known = ["name", "on", "env", "jobs", "needs", "run", "working_directory", "if", "timeout", "runs"];
        assert_eq!(nearest(word, known), expected, "{word}");
    }

    #[test]
    fn slips_are_seen() {
        check("need", Some("needs"));
        check("nedes", Some("needs"));
        check("NEEDS", Some("needs"));
        check("working-directory", Some("working_directory"));
        check("working_dir", None);
        check("ruin", Some("run"));
        check("rusn", Some("runs"));
        check("timeot", Some("timeout"));
    }

    #[test]
    fn strangers_are_not() {
        check("services", None);
        check("", None);
        check("x", None);
        check("a", None);
        assert_eq!(nearest("c", ["a", "b"]), None, "one letter for another is no slip");
        check(&"n".repeat(100_000), None);
    }

    #[test]
    fn distances() {
        let of =
            |left: &str, right: &str| distance(&left.chars().collect::<Vec<_>>(), &right.chars().collect::<Vec<_>>());
        assert_eq!(of("", "abc"), 3);
        assert_eq!(of("abc", "acb"), 1);
        assert_eq!(of("kitten", "sitting"), 3);
        assert_eq!(of("ca", "abc"), 3, "no part is edited twice");
    }

    #[test]
    fn a_list_where_nothing_is_near() {
        assert_eq!(did_you_mean("need", &["needs"]), "did you mean `needs`?");
        assert_eq!(did_you_mean("zzz", &["needs", "run"]), "known here: `needs`, `run`");
        assert_eq!(did_you_mean("zzz", &[]), "remove it");
    }
}
