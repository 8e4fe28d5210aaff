//! YAML as people write it: block maps and lists, plain scalars where that is safe, scripts as blocks, comments between.

use std::fmt::Write;

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) enum Yaml {
    /// A text, quoted where it must be.
    Text(String),
    /// A number or boolean, as it is.
    Word(String),
    /// A list of texts on one line.
    Flow(Vec<String>),
    List(Vec<Yaml>),
    Map(Vec<Item>),
}

/// A line or more of a map.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Entry(String, Yaml),
    Comment(String),
    /// An empty line.
    Gap,
}

/// A map in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries(pub Vec<Item>);

impl Entries {
    pub(super) fn add(&mut self, key: &str, value: Yaml) {
        self.0.push(Item::Entry(key.to_owned(), value));
    }

    pub(super) fn text(&mut self, key: &str, value: impl Into<String>) {
        self.add(key, Yaml::Text(value.into()));
    }

    pub(super) fn word(&mut self, key: &str, value: impl ToString) {
        self.add(key, Yaml::Word(value.to_string()));
    }

    pub(super) fn comment(&mut self, text: impl Into<String>) {
        self.0.push(Item::Comment(text.into()));
    }

    pub(super) fn gap(&mut self) {
        self.0.push(Item::Gap);
    }

    /// Texts under a key, if there are any.
    pub(super) fn texts(&mut self, key: &str, texts: Vec<String>) {
        match texts.len() {
            0 => {}
            _ if texts.iter().map(String::len).sum::<usize>() <= 60 && texts.iter().all(|text| is_flow_safe(text)) => {
                self.add(key, Yaml::Flow(texts));
            }
            _ => self.add(key, Yaml::List(texts.into_iter().map(Yaml::Text).collect())),
        }
    }

    pub(super) fn map(&mut self, key: &str, entries: Entries) {
        if !entries.0.is_empty() {
            self.add(key, entries.into_yaml());
        }
    }

    pub(super) fn into_yaml(self) -> Yaml {
        Yaml::Map(self.0)
    }

    /// The whole file.
    pub(super) fn file(&self) -> String {
        let mut out = String::new();
        map(&self.0, 0, false, &mut out);
        out
    }
}

/// Columns of a comment before it goes on in the next line.
const COMMENT_COLUMNS: usize = 110;

fn map(items: &[Item], indent: usize, mut goes_on: bool, out: &mut String) {
    for item in items {
        let start = |out: &mut String, goes_on: &mut bool| {
            if !std::mem::take(goes_on) {
                out.push_str(&" ".repeat(indent));
            }
        };
        match item {
            Item::Gap => out.push('\n'),
            Item::Comment(text) => {
                for line in wrapped(text, COMMENT_COLUMNS.saturating_sub(indent)) {
                    start(out, &mut goes_on);
                    let _ = writeln!(out, "# {line}");
                }
            }
            Item::Entry(key, value) => {
                start(out, &mut goes_on);
                // Nobody quotes GitHub's `on`, which readers of YAML 1.1 take for `true`.
                let _ = write!(out, "{}:", if key == "on" { key.clone() } else { scalar(key) });
                after_key(value, indent, out);
            }
        }
    }
}

/// A value behind its key's colon, up to the line's end.
fn after_key(value: &Yaml, indent: usize, out: &mut String) {
    match value {
        Yaml::Map(items) if items.iter().all(|item| !matches!(item, Item::Entry(..))) => {
            out.push_str(" {}\n");
        }
        Yaml::Map(items) => {
            out.push('\n');
            map(items, indent + 2, false, out);
        }
        Yaml::List(items) if items.is_empty() => out.push_str(" []\n"),
        Yaml::List(items) => {
            out.push('\n');
            items.iter().for_each(|value| item(value, indent + 2, out));
        }
        _ => {
            out.push(' ');
            inline(value, indent, out);
        }
    }
}

fn item(value: &Yaml, indent: usize, out: &mut String) {
    // Comments at the top of an item stand before its dash.
    let mut rest = value;
    let shortened;
    if let Yaml::Map(items) = value {
        let first = items.iter().position(|item| matches!(item, Item::Entry(..))).unwrap_or(items.len());
        map(&items[..first], indent, false, out);
        shortened = Yaml::Map(items[first..].to_vec());
        rest = &shortened;
    }
    let _ = write!(out, "{}- ", " ".repeat(indent));
    match rest {
        Yaml::Map(items) => map(items, indent + 2, true, out),
        Yaml::List(_) => inline(&Yaml::Flow(Vec::new()), indent, out),
        _ => inline(rest, indent, out),
    }
}

fn inline(value: &Yaml, indent: usize, out: &mut String) {
    match value {
        Yaml::Word(word) => out.push_str(word),
        Yaml::Flow(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| scalar(text)).collect();
            let _ = write!(out, "[{}]", texts.join(", "));
        }
        Yaml::Text(text) if is_block(text) => return block(text, indent + 2, out),
        Yaml::Text(text) => out.push_str(&scalar(text)),
        Yaml::Map(_) | Yaml::List(_) => out.push_str("{}"),
    }
    out.push('\n');
}

/// Whether a text is written as a block: several lines, without what a block cannot hold.
fn is_block(text: &str) -> bool {
    let is_plain = |character: char| !character.is_control() || character == '\n' || character == '\t';
    text.trim_end_matches('\n').contains('\n')
        && text.chars().all(is_plain)
        && !text.starts_with([' ', '\n', '\t'])
        && !text.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
}

fn block(text: &str, indent: usize, out: &mut String) {
    let (body, chomp) = match text.strip_suffix('\n') {
        Some(body) if !body.ends_with('\n') => (body, ""),
        Some(_) => (text.strip_suffix('\n').unwrap_or(text), "+"),
        None => (text, "-"),
    };
    let _ = writeln!(out, "|{chomp}");
    for line in body.split('\n') {
        match line.is_empty() {
            true => out.push('\n'),
            false => {
                let _ = writeln!(out, "{}{line}", " ".repeat(indent));
            }
        }
    }
}

/// A text on one line: plain where every reader of YAML takes it as this text.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if text.chars().all(|character| !character.is_control())
        && !text.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
    {
        return match text.contains('"') || text.contains('\\') {
            true => format!("'{}'", text.replace('\'', "''")),
            false => format!("\"{text}\""),
        };
    }
    // JSON's escapes are YAML's.
    serde_json::Value::from(text).to_string()
}

fn is_flow_safe(text: &str) -> bool {
    !text.contains(['\n', ',', '[', ']', '{', '}'])
}

fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"];
    let begins_badly =
        text.starts_with(|first: char| first.is_whitespace() || "-?:,[]{}#&*!|>'\"%@`=<".contains(first));
    let looks_like_number = text.starts_with(|first: char| first.is_ascii_digit() || "+.".contains(first))
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "+-._:".contains(character));
    !text.is_empty()
        && !(begins_badly && !(text.starts_with("--") && text.len() > 2))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains(|character: char| {
            character.is_control() || matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        })
        && !words.iter().any(|word| text.eq_ignore_ascii_case(word))
        && !looks_like_number
        && !(text.contains(", ") && text.starts_with('['))
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    // An axis' value, in a sentence.
    let axes = text.split(super::legs::MARK).enumerate();
    let text: String =
        axes.map(|(index, part)| if index % 2 == 1 { format!("{{{part}}}") } else { part.to_owned() }).collect();
    let text: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let mut lines: Vec<String> = Vec::new();
    for part in text.split('\n') {
        let mut line = String::new();
        for word in part.split_whitespace() {
            if !line.is_empty() && line.chars().count() + word.chars().count() >= columns {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}
