//! What may be shown of settings that are wrong: their lines go to terminals and into logs, and a password that is written wrong is a password.
//!
//! A value stays only where it is known to be of a setting that holds nothing secret; all else is struck out, so that a
//! key with a slip, a quote that is missing and a text over several lines give nothing away.

use dialects::suggest::nearest;

use super::{KEYS, Key, Told};

/// What stands for a text that is not shown.
pub const HIDDEN: &str = "(hidden)";

/// The text of a file of settings with all struck out that may be secret, byte by byte, so that places in it are where they were.
pub fn struck_out(text: &str) -> String {
    text.split_inclusive('\n').map(line_struck_out).collect()
}

fn line_struck_out(line: &str) -> String {
    let bare = line.trim_end_matches(['\r', '\n']);
    let shown = shown_bytes(bare);
    let struck: String = bare[shown..].bytes().map(|byte| if byte == b' ' { ' ' } else { '*' }).collect();
    [&line[..shown], &struck, &line[bare.len()..]].concat()
}

/// How many bytes of a line are shown: all of it, the key and what separates it from its value, or nothing.
fn shown_bytes(line: &str) -> usize {
    let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let Some(start) = line.find(is_of_key) else { return line.len() };
    let name_and_rest = &line[start..];
    let end = name_and_rest.find(|letter| !is_of_key(letter)).unwrap_or(name_and_rest.len());
    let (name, rest) = name_and_rest.split_at(end);
    let value = rest.trim_start_matches(|letter: char| letter.is_whitespace() || "=:\"']".contains(letter));
    let is_header = value.is_empty() && line.trim().starts_with('[') && line.trim().ends_with(']');
    if !is_header && !is_known(name) {
        return 0;
    }
    if value.is_empty() || (is_harmless_key(name) && is_harmless(value)) {
        line.len()
    } else {
        line.len() - value.len()
    }
}

/// The last part of a key.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether this is the name of a section or of a key, whole or without its section, or a slip away from one.
fn is_known(name: &str) -> bool {
    let names = KEYS.iter().flat_map(|key| [key.name, last(key.name), key.name.split('.').next().unwrap_or_default()]);
    nearest(name, names).is_some()
}

/// Whether all settings of this name hold nothing secret.
fn is_harmless_key(name: &str) -> bool {
    let mut of_name = KEYS.iter().filter(|key| key.name == name || last(key.name) == name).peekable();
    of_name.peek().is_some() && of_name.all(|key| key.told == Told::Whole)
}

/// Whether nothing in a value may be secret, as where several keys stand on one line.
fn is_harmless(value: &str) -> bool {
    let secret = |key: &&Key| key.told == Told::Hidden;
    !value.contains('@') && !KEYS.iter().filter(secret).any(|key| value.contains(last(key.name)))
}

/// What is told of a fault on a line, without the words in backticks that were struck out of it.
pub fn told(message: &str, line: &str) -> String {
    let struck = &line[shown_bytes(line)..];
    let words = message.split('`').skip(1).step_by(2).map(|word| word.trim_start_matches(['!', '*', '&']));
    let is_struck = |word: &&str| word.contains(char::is_alphanumeric) && struck.contains(word);
    words.filter(is_struck).fold(message.to_owned(), |told, word| told.replace(word, HIDDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_harmless_stays() {
        let check = |line: &str, expected: &str| assert_eq!(struck_out(line), expected, "{line}");
        for whole in [
            "[store]\n",
            "  [sto]\r\n",
            "store:\n",
            "listen = \"here\"",
            "  \"grace\": \"5x\",\n",
            ":grace \"5x\"",
            "server.grace = 5s",
            "}",
            "",
        ] {
            check(whole, whole);
        }
        check("url = \"p://a:b c@d\"\n", "url = \"******* ****\n");
        check("store.url = p", "store.url = *");
        check("secret_access_key = abc\r\n", "secret_access_key = ***\r\n");
        check("secret_acces_key: 'abc'", "secret_acces_key: '****");
        check("secret_access_key abc", "secret_access_key ***");
        check("otlp = \"http://token@h\"", "otlp = \"***************");
        check("store: { url: \"x\" }", "store: * **** *** *");
        check("listen: here, url: x", "listen: ***** **** *");
        check("grace = \"ann@h\"", "grace = \"******");
        // Of a text over several lines, and of what nobody can read.
        check("QUtJQUlPU0ZPRE5ON0VYQU1QTEU=", "****************************");
        check("  päss = x", "  ***** * *");
    }

    #[test]
    fn words_of_what_was_struck_out_are_told_by_nobody() {
        let line = "secret_access_key: !hunter2 x";
        assert_eq!(told("the tag `!hunter2` has no meaning here", line), "the tag `!(hidden)` has no meaning here");
        assert_eq!(told("put `&hunter2`: '*hunter2'", line), "put `&(hidden)`: '*(hidden)'");
        assert_eq!(told("`secret_access_key` stands twice", line), "`secret_access_key` stands twice");
        assert_eq!(told("expected `=` or `]`", "url ="), "expected `=` or `]`");
    }
}
