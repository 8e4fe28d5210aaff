//! Places in the user's program, as the binary shows them, and keys that were set at one.

use std::borrow::Cow;
use std::panic::Location;

use crate::json::Json;

/// A place in the program: where a method was called.
pub(crate) type Mark = &'static Location<'static>;

/// The files that marks are in, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    names: Vec<Cow<'static, str>>,
}

impl Files {
    /// The mark as it travels: `[file, line, column]`.
    pub fn json(&mut self, mark: Mark) -> Json {
        let file = self.number_of(mark);
        Json::List(vec![file.into(), mark.line().into(), mark.column().into()])
    }

    /// A place that is no mark, as it travels.
    pub fn place(&mut self, file: &str, line: u32, column: u32) -> Json {
        let number = self.number(file, |file| Cow::Owned(file.to_owned()));
        Json::List(vec![number.into(), line.into(), column.into()])
    }

    /// The number of the mark's file.
    pub fn number_of(&mut self, mark: Mark) -> i64 {
        self.number(mark.file(), Cow::Borrowed)
    }

    fn number<'a>(&mut self, name: &'a str, keep: impl FnOnce(&'a str) -> Cow<'static, str>) -> i64 {
        // One file has one text in a program, except where crates share code; then the texts are compared.
        let is_it = |other: &Cow<'static, str>| std::ptr::eq::<str>(&**other, name) || *other == name;
        let file = self.names.iter().position(is_it).unwrap_or_else(|| {
            self.names.push(keep(name));
            self.names.len() - 1
        });
        file as i64
    }

    /// The names, by number.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

/// A key of the native format, with its value and the place where it was set.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub key: &'static str,
    pub value: Json,
    pub mark: Mark,
}

/// Keys in the order in which they were set first. A key stands once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(pub Vec<Setting>);

impl Settings {
    /// The value of `key`, if it was set.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|setting| setting.key == key).map(|setting| &setting.value)
    }

    /// Sets `key`; a second time replaces the first.
    pub fn set(&mut self, key: &'static str, value: Json, mark: Mark) {
        match self.0.iter_mut().find(|setting| setting.key == key) {
            Some(setting) => *setting = Setting { key, value, mark },
            None => self.0.push(Setting { key, value, mark }),
        }
    }

    /// The value of `key`, to be changed in place; `start` if it was not set.
    pub fn entry(&mut self, key: &'static str, start: Json, mark: Mark) -> &mut Json {
        let index = self.0.iter().position(|setting| setting.key == key).unwrap_or_else(|| {
            self.0.push(Setting { key, value: start, mark });
            self.0.len() - 1
        });
        &mut self.0[index].value
    }

    /// Appends to the list that `key` holds.
    pub fn append(&mut self, key: &'static str, values: impl IntoIterator<Item = Json>, mark: Mark) {
        if let Json::List(items) = self.entry(key, Json::List(Vec::new()), mark) {
            items.extend(values);
        }
    }

    /// Sets `name` in the object that `key` holds.
    pub fn insert(&mut self, key: &'static str, name: String, value: Json, mark: Mark) {
        if let Json::Object(entries) = self.entry(key, Json::Object(Vec::new()), mark) {
            match entries.iter_mut().find(|(entry, _)| *entry == name) {
                Some(entry) => entry.1 = value,
                None => entries.push((name, value)),
            }
        }
    }

    /// The entries of an object that was begun at `mark`, with the marks of keys that were set elsewhere.
    pub fn json(self, mark: Mark, files: &mut Files) -> Json {
        let mut entries = Vec::with_capacity(self.0.len() * 2 + 1);
        entries.push(("@".to_owned(), files.json(mark)));
        for setting in self.0 {
            if !std::ptr::eq(setting.mark, mark) {
                entries.push((format!("@{}", setting.key), files.json(setting.mark)));
            }
            entries.push((setting.key.to_owned(), setting.value));
        }
        Json::Object(entries)
    }
}
