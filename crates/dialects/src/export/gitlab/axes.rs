//! Axes' values in scripts: in GitLab they are variables, which a shell expands in some places only.

use graph::Shell;

use crate::export::legs::MARK;

/// Shells by the names of their programs.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"];

/// A script with `${NAME}` for every axis, by the name of its variable; `None` if one stands where no shell would expand
/// it, or where it is not clear whether it would.
pub(super) fn expanded(script: &str, shell: &Shell, name: impl Fn(&str) -> String) -> Option<String> {
    let mut out = String::new();
    let mut place = Place::default();
    for (index, part) in script.split(MARK).enumerate() {
        if index % 2 == 0 {
            out.push_str(part);
            part.chars().for_each(|character| place.read(character));
            continue;
        }
        let name = name(part);
        match place.quote {
            _ if place.is_unclear || place.is_escaped || !expands(shell) => return None,
            Quote::Single => out.push_str(&format!("'\"${{{name}}}\"'")),
            Quote::None | Quote::Double => out.push_str(&format!("${{{name}}}")),
        }
        place.before = '}';
        place.begins_word = false;
    }
    Some(out)
}

/// Whether variables are expanded at all.
fn expands(shell: &Shell) -> bool {
    match shell {
        Shell::Sh | Shell::Bash => true,
        Shell::Custom(command) => {
            let program = command.first().and_then(|program| program.rsplit('/').next());
            program.is_some_and(|program| SHELLS.contains(&program))
        }
        Shell::Program(_) => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// Where a script's reader stands.
struct Place {
    quote: Quote,
    before: char,
    begins_word: bool,
    is_escaped: bool,
    in_comment: bool,
    /// `<<` was read, and its delimiter comes.
    names_document: bool,
    /// A document has begun; where it ends is not followed.
    has_document: bool,
    /// From here on nobody here knows what is quoted.
    is_unclear: bool,
}

impl Default for Place {
    fn default() -> Self {
        Place {
            quote: Quote::None,
            before: '\n',
            begins_word: true,
            is_escaped: false,
            in_comment: false,
            names_document: false,
            has_document: false,
            is_unclear: false,
        }
    }
}

impl Place {
    fn read(&mut self, character: char) {
        let before = std::mem::replace(&mut self.before, character);
        if self.in_comment {
            self.in_comment = character != '\n';
            self.begins_word = true;
            return;
        }
        if std::mem::take(&mut self.is_escaped) {
            self.begins_word = false;
            return;
        }
        if self.has_document {
            // A double quote is a character of the document or one around variables, and these expand in both.
            self.is_unclear |= character == '\'';
            self.is_escaped = character == '\\';
            return;
        }
        if self.names_document && !"-<\t ".contains(character) {
            self.is_unclear |= "'\"\\".contains(character);
            (self.names_document, self.has_document) = (false, true);
            return;
        }
        match (self.quote, character) {
            (Quote::Single, '\'') | (Quote::Double, '"') => self.quote = Quote::None,
            (Quote::Single, _) => {}
            (_, '\\') => self.is_escaped = true,
            // Quotes begin anew in there.
            (Quote::Double, '`') => self.is_unclear = true,
            (Quote::Double, '(' | '{') if before == '$' => self.is_unclear = true,
            (Quote::Double, _) => {}
            (Quote::None, '\'') => {
                self.is_unclear |= before == '$';
                self.quote = Quote::Single;
            }
            (Quote::None, '"') => self.quote = Quote::Double,
            (Quote::None, '#') if self.begins_word => self.in_comment = true,
            (Quote::None, '<') if before == '<' => self.names_document = true,
            (Quote::None, _) => {}
        }
        self.begins_word = self.quote == Quote::None && (character.is_whitespace() || ";|&(".contains(character));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_only_where_a_shell_puts_one() {
        let posix = |script: &str| expanded(&script.replace('@', "\u{1}os\u{1}"), &Shell::Sh, str::to_owned);
        for (script, found) in [
            ("echo @ \"@\" x@y", "echo ${os} \"${os}\" x${os}y"),
            ("echo '@' it\\'s @", "echo ''\"${os}\"'' it\\'s ${os}"),
            ("# don't\necho @ # isn't @\n", "# don't\necho ${os} # isn't ${os}\n"),
            ("cat <<END\n\"@\"\nEND\n", "cat <<END\n\"${os}\"\nEND\n"),
        ] {
            assert_eq!(posix(script).as_deref(), Some(found));
        }
        for script in
            ["echo \\@", "cat <<'END'\n@\nEND\n", "cat <<END\nit's\nEND\necho @", "echo $'@'", "echo \"$(f '@')\""]
        {
            assert_eq!(posix(script), None, "{script}");
        }
        let python = Shell::Custom(vec!["/usr/bin/python3".to_owned(), "{0}".to_owned()]);
        assert_eq!(expanded("print(1)", &python, str::to_owned).as_deref(), Some("print(1)"));
        assert_eq!(expanded("print('\u{1}os\u{1}')", &python, str::to_owned), None);
    }
}
