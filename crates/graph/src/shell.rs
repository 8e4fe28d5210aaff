//! Words of a command for a POSIX shell.

/// The word in single quotes, within which a shell reads everything as it stands.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// [`quoted`] of any bytes, at the end of a script.
pub fn push_quoted(script: &mut Vec<u8>, word: &[u8]) {
    script.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => script.extend_from_slice(br"'\''"),
            _ => script.push(*byte),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_reads_is_what_was_quoted() {
        for (word, in_quotes) in [("", "''"), ("a b", "'a b'"), ("it's $(x)", r"'it'\''s $(x)'"), ("'", r"''\'''")] {
            assert_eq!(quoted(word), in_quotes);
            let mut script = b"echo ".to_vec();
            push_quoted(&mut script, word.as_bytes());
            assert_eq!(script, format!("echo {in_quotes}").into_bytes());
        }
        let mut script = Vec::new();
        push_quoted(&mut script, b"a\xff'");
        assert_eq!(script, b"'a\xff'\\'''");
    }
}
