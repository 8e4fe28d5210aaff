//! Places in the user's program, as the binary shows them.

use std::panic::Location;

use crate::json::Json;

/// A place in the program: where a method was called.
pub(crate) type Mark = &'static Location<'static>;

/// The files that marks are in, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    names: Vec<&'static str>,
}

impl Files {
    /// The mark as it travels: `[file, line, column]`.
    pub fn json(&mut self, mark: Mark) -> Json {
        let file = match self.names.iter().rposition(|name| *name == mark.file()) {
            Some(file) => file,
            None => {
                self.names.push(mark.file());
                self.names.len() - 1
            }
        };
        Json::List(vec![Json::Int(file as i64), mark.line().into(), mark.column().into()])
    }

    /// The names, by number.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }
}
