//! `${{ }}` in shell scripts: handed over through environment variables, quoted by where they stand.
//!
//! A value is never pasted into a script unless it is a literal of the file. What is put in its place is a reference
//! `${NAME}`, which shells expand but never read again as code; so where this scanner mistakes a script's quoting, the
//! worst is a value split into words. Places where shells do read expanded text again (arithmetic) are refused, and so
//! are places that expand nothing (quoted here-documents).

use std::ops::Range;

use expression::{Expression, Segment, Template};

/// Brackets and quotes inside one another.
const DEPTH_MAX: usize = 200;

/// What reads a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A shell with POSIX's quoting.
    Posix,
    /// Anything else.
    Other,
}

/// What stands for an expression.
#[derive(Debug)]
pub(crate) enum Stand {
    /// This text, a literal of the file.
    Literal(String),
    /// The environment variable of this name.
    Variable(String),
}

/// An expression that has no safe place, and why.
#[derive(Debug, PartialEq)]
pub(crate) struct Unsafe {
    pub range: Range<usize>,
    pub why: &'static str,
}

/// The script with everything in its place; expressions without a safe place are listed and left out.
pub(crate) fn script(
    template: &Template,
    reader: Reader,
    mut stand_for: impl FnMut(&Expression) -> Stand,
) -> (String, Vec<Unsafe>) {
    let mut scanner = Scanner::new();
    let mut found = Vec::new();
    for segment in template.segments() {
        match segment {
            Segment::Text { text, .. } => scanner.text(text),
            Segment::Expression { expression, range, .. } => match stand_for(expression) {
                Stand::Literal(text) => scanner.text(&text),
                Stand::Variable(_) if reader == Reader::Other => {
                    found.push(Unsafe { range: range.clone(), why: "the script is not read by a POSIX shell" });
                }
                Stand::Variable(name) => {
                    if let Err(why) = scanner.variable(&name) {
                        found.push(Unsafe { range: range.clone(), why });
                    }
                }
            },
        }
    }
    (scanner.out, found)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Words of commands; inside `( )` or `$( )` unless it is the outermost.
    Plain,
    /// `"…"`.
    Double,
    /// `'…'`.
    Single,
    /// `$'…'`.
    Ansi,
    /// `# …`.
    Comment,
    /// Between backquotes.
    Backquotes,
    /// `${…}` outside double quotes.
    Braces,
    /// `${…}` inside double quotes.
    BracesInDouble,
    /// `$((…))` or `((…))`; so many brackets are open.
    Arithmetic(usize),
    /// The body of a here-document.
    Document,
}

#[derive(Debug, Clone)]
struct Document {
    delimiter: String,
    strips_tabs: bool,
    is_quoted: bool,
}

struct Scanner {
    out: String,
    modes: Vec<Mode>,
    /// Here-documents whose bodies come with the next line.
    awaited: Vec<Document>,
    /// Bodies that are open, innermost last.
    documents: Vec<Document>,
    /// The line of the body so far; `None` if it holds something that is not text.
    line: Option<String>,
    /// A comment or `((` may begin here.
    at_word_start: bool,
    /// The last character was a backslash that takes away the meaning of the next.
    is_escaped: bool,
}

impl Scanner {
    fn new() -> Self {
        Scanner {
            out: String::new(),
            modes: vec![Mode::Plain],
            awaited: Vec::new(),
            documents: Vec::new(),
            line: Some(String::new()),
            at_word_start: true,
            is_escaped: false,
        }
    }

    fn mode(&self) -> Mode {
        self.modes.last().copied().unwrap_or(Mode::Plain)
    }

    fn push(&mut self, mode: Mode) {
        if self.modes.len() < DEPTH_MAX {
            self.modes.push(mode);
        }
    }

    /// Leaves the innermost mode; the outermost stays.
    fn pop(&mut self) {
        if self.modes.len() > 1 {
            self.modes.pop();
        }
    }

    fn variable(&mut self, name: &str) -> Result<(), &'static str> {
        if self.is_escaped {
            return Err("it stands behind a backslash");
        }
        if self.modes.len() >= DEPTH_MAX {
            return Err("it stands inside too many brackets");
        }
        let reference = match self.mode() {
            Mode::Plain | Mode::Braces => format!("\"${{{name}}}\""),
            Mode::Double | Mode::BracesInDouble => format!("${{{name}}}"),
            Mode::Single => format!("'\"${{{name}}}\"'"),
            Mode::Ansi => format!("'\"${{{name}}}\"$'"),
            Mode::Comment => String::new(),
            Mode::Backquotes => return Err("it stands between backquotes; `$( )` works"),
            Mode::Arithmetic(_) => return Err("arithmetic would run commands that the value holds"),
            Mode::Document => match self.documents.last() {
                Some(document) if document.is_quoted => {
                    return Err("a here-document with a quoted end expands nothing");
                }
                _ => format!("${{{name}}}"),
            },
        };
        self.out.push_str(&reference);
        self.line = None;
        self.at_word_start = false;
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push_str(text);
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let taken = if self.is_escaped {
                self.is_escaped = false;
                self.at_word_start = false;
                self.document_line(character);
                character.len_utf8()
            } else {
                self.step(rest, character)
            };
            rest = &rest[taken.clamp(1, rest.len())..];
        }
    }

    /// Looks at what `rest` begins with; gives how many bytes of it are done.
    fn step(&mut self, rest: &str, character: char) -> usize {
        match self.mode() {
            Mode::Plain => self.plain(rest, character),
            Mode::Double | Mode::BracesInDouble | Mode::Braces | Mode::Document => self.expanding(rest, character),
            Mode::Single => {
                if character == '\'' {
                    self.pop();
                }
                character.len_utf8()
            }
            Mode::Ansi | Mode::Backquotes => {
                let end = if self.mode() == Mode::Ansi { '\'' } else { '`' };
                self.is_escaped = character == '\\';
                if character == end {
                    self.pop();
                }
                character.len_utf8()
            }
            Mode::Comment => {
                if character == '\n' {
                    self.pop();
                    return self.step(rest, character);
                }
                character.len_utf8()
            }
            Mode::Arithmetic(open) => {
                match character {
                    '(' => *self.modes.last_mut().expect("a mode is there") = Mode::Arithmetic(open + 1),
                    ')' if open > 1 => *self.modes.last_mut().expect("a mode is there") = Mode::Arithmetic(open - 1),
                    ')' => self.pop(),
                    _ => {}
                }
                character.len_utf8()
            }
        }
    }

    /// What begins with `$` in every place that expands; how many bytes, or `None` if it is nothing special.
    fn dollar(&mut self, rest: &str) -> Option<usize> {
        let in_double = matches!(self.mode(), Mode::Double | Mode::BracesInDouble | Mode::Document);
        if rest.starts_with("$((") {
            self.push(Mode::Arithmetic(2));
            return Some(3);
        }
        if rest.starts_with("$(") {
            self.push(Mode::Plain);
            self.at_word_start = true;
            return Some(2);
        }
        if rest.starts_with("${") {
            self.push(if in_double { Mode::BracesInDouble } else { Mode::Braces });
            return Some(2);
        }
        if !in_double && rest.starts_with("$'") {
            self.push(Mode::Ansi);
            return Some(2);
        }
        None
    }

    fn plain(&mut self, rest: &str, character: char) -> usize {
        let at_word_start = std::mem::replace(&mut self.at_word_start, " \t\n;&|()".contains(character));
        match character {
            '\\' => self.is_escaped = true,
            '\'' => self.push(Mode::Single),
            '"' => self.push(Mode::Double),
            '`' => self.push(Mode::Backquotes),
            '#' if at_word_start => self.push(Mode::Comment),
            '$' => {
                if let Some(taken) = self.dollar(rest) {
                    return taken;
                }
            }
            '(' if at_word_start && rest.starts_with("((") => {
                self.push(Mode::Arithmetic(2));
                return 2;
            }
            '(' => self.push(Mode::Plain),
            ')' => self.pop(),
            '<' if rest.starts_with("<<<") => return 3,
            '<' if rest.starts_with("<<") => return self.await_document(rest),
            '\n' if !self.awaited.is_empty() => {
                // The first one awaited is read first.
                self.documents.extend(std::mem::take(&mut self.awaited).into_iter().rev());
                self.push(Mode::Document);
                self.line = Some(String::new());
            }
            _ => {}
        }
        character.len_utf8()
    }

    /// Quotes, braces and bodies in which `$` has a meaning.
    fn expanding(&mut self, rest: &str, character: char) -> usize {
        let mode = self.mode();
        let is_quoted_body = mode == Mode::Document && self.documents.last().is_some_and(|document| document.is_quoted);
        match character {
            '\\' if !is_quoted_body => self.is_escaped = true,
            '"' if mode == Mode::Double => self.pop(),
            '"' if matches!(mode, Mode::Braces | Mode::BracesInDouble) => self.push(Mode::Double),
            '\'' if mode == Mode::Braces => self.push(Mode::Single),
            '}' if matches!(mode, Mode::Braces | Mode::BracesInDouble) => self.pop(),
            '`' if !is_quoted_body && mode != Mode::Document => self.push(Mode::Backquotes),
            '$' if !is_quoted_body => {
                if let Some(taken) = self.dollar(rest) {
                    self.line = None;
                    return taken;
                }
            }
            _ => {}
        }
        if mode == Mode::Document {
            self.document_line(character);
        }
        character.len_utf8()
    }

    /// Keeps the line of a here-document's body, and ends the body at its delimiter.
    fn document_line(&mut self, character: char) {
        if self.mode() != Mode::Document {
            return;
        }
        if character != '\n' {
            if let Some(line) = &mut self.line {
                line.push(character);
            }
            return;
        }
        let line = self.line.replace(String::new());
        let Some(document) = self.documents.last() else { return self.pop() };
        let is_end = line.is_some_and(|line| {
            let line = if document.strips_tabs { line.trim_start_matches('\t') } else { &line };
            line == document.delimiter
        });
        if is_end {
            self.documents.pop();
            self.at_word_start = true;
            if self.documents.is_empty() {
                self.pop();
            }
        }
    }

    /// Reads `<<END`, `<<-'END'`; gives its length.
    fn await_document(&mut self, rest: &str) -> usize {
        let strips_tabs = rest.starts_with("<<-");
        let after = &rest[if strips_tabs { 3 } else { 2 }..];
        let word_at = after.len() - after.trim_start_matches([' ', '\t']).len();
        let word = &after[word_at..];
        let length = word.find(|character: char| " \t\n;&|()<>".contains(character)).unwrap_or(word.len());
        let word = &word[..length];
        let delimiter: String = word.chars().filter(|character| !"'\"\\".contains(*character)).collect();
        if !word.is_empty() && self.awaited.len() < DEPTH_MAX {
            self.awaited.push(Document { is_quoted: delimiter.len() != word.len(), delimiter, strips_tabs });
        }
        rest.len() - after.len() + word_at + length
    }
}

#[cfg(test)]
mod tests {
    use expression::Template;

    use super::{Reader, Stand, script};

    /// `${{ a }}` is the variable `A`; `${{ 'text' }}` is a literal.
    #[track_caller]
    fn check(written: &str, expected: Result<&str, &str>) {
        let template = Template::parse(written).unwrap();
        let (found, faults) = script(&template, Reader::Posix, |expression| match expression.literal() {
            Some(value) => Stand::Literal(value.to_text().into_owned()),
            None => Stand::Variable(expression.text().to_uppercase()),
        });
        match expected {
            Ok(expected) => {
                assert!(faults.is_empty(), "{written}: {faults:?}");
                assert_eq!(found, expected, "{written}");
            }
            Err(why) => assert!(faults.iter().any(|fault| fault.why.contains(why)), "{written}: {faults:?}"),
        }
    }

    #[test]
    fn quoted_by_place() {
        check("echo ${{ a }}", Ok("echo \"${A}\""));
        check("echo x${{ a }}y", Ok("echo x\"${A}\"y"));
        check("echo \"is ${{ a }}\"", Ok("echo \"is ${A}\""));
        check("echo 'is ${{ a }}'", Ok("echo 'is '\"${A}\"''"));
        check("echo $'is\\'${{ a }}'", Ok("echo $'is\\''\"${A}\"$''"));
        check("echo \"$(cat ${{ a }})\"", Ok("echo \"$(cat \"${A}\")\""));
        check("echo \"$(cat \"${{ a }}\") ${{ a }}\" ${{ a }}", Ok("echo \"$(cat \"${A}\") ${A}\" \"${A}\""));
        check("echo ${X:-${{ a }}} \"${X:-${{ a }}}\"", Ok("echo ${X:-\"${A}\"} \"${X:-${A}}\""));
        check("echo \\\"${{ a }}", Ok("echo \\\"\"${A}\""));
        check("echo a#${{ a }} # no ${{ a }}\n${{ a }}", Ok("echo a#\"${A}\" # no \n\"${A}\""));
    }

    #[test]
    fn here_documents() {
        check("cat <<END\n${{ a }}'\nEND\n${{ a }}", Ok("cat <<END\n${A}'\nEND\n\"${A}\""));
        check("cat <<-END\n\t${{ a }}\n\tEND\n${{ a }}", Ok("cat <<-END\n\t${A}\n\tEND\n\"${A}\""));
        check("cat <<A <<B\n${{ a }}\nA\n${{ a }}\nB\n${{ a }}", Ok("cat <<A <<B\n${A}\nA\n${A}\nB\n\"${A}\""));
        check("cat <<'END'\nx\nEND\n${{ a }}", Ok("cat <<'END'\nx\nEND\n\"${A}\""));
        check("cat <<'END'\n${{ a }}\nEND", Err("quoted end"));
        check("cat <<\\END\n${{ a }}\nEND", Err("quoted end"));
        check("cat <<END\n$(cat ${{ a }})\nEND\n${{ a }}", Ok("cat <<END\n$(cat \"${A}\")\nEND\n\"${A}\""));
        check("cat <<< ${{ a }}", Ok("cat <<< \"${A}\""));
        check("cat <<END\n'\nEND\n'${{ a }}'", Ok("cat <<END\n'\nEND\n''\"${A}\"''"));
    }

    #[test]
    fn literals_are_pasted() {
        check("./test ${{ '3' }} '${{ 'x' }}'", Ok("./test 3 'x'"));
        check("echo $(( ${{ 3 }} + 1 ))", Ok("echo $(( 3 + 1 ))"));
        check("echo ${{ '\"' }}${{ a }}\"", Ok("echo \"${A}\""));
    }

    #[test]
    fn refused_where_it_cannot_be_safe() {
        check("echo $(( ${{ a }} + 1 ))", Err("arithmetic"));
        check("(( x = (1 + ${{ a }}) ))", Err("arithmetic"));
        check("echo `cat ${{ a }}`", Err("backquotes"));
        check("echo \\${{ a }}", Err("backslash"));
        check(&format!("{}${{{{ a }}}}", "$(".repeat(1000)), Err("brackets"));
    }

    #[test]
    fn the_end_of_arithmetic_is_seen() {
        check("echo $(( (1 + 2) * 3 )) ${{ a }}", Ok("echo $(( (1 + 2) * 3 )) \"${A}\""));
        check("(( x = 1 )) && echo ${{ a }}", Ok("(( x = 1 )) && echo \"${A}\""));
        check("(cd x && (echo ${{ a }}))", Ok("(cd x && (echo \"${A}\"))"));
    }
}
