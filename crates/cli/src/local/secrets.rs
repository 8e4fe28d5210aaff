//! Values of secrets on a laptop: the environment of `ropewalk`, or a file of `NAME=value` lines. They are handed to one
//! attempt and stand nowhere else.

use std::collections::BTreeMap;
use std::path::Path;

/// The largest file of secrets.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where values are looked up: first in the file, then in the environment.
#[derive(Default)]
pub struct SecretSource {
    file: BTreeMap<String, String>,
}

impl SecretSource {
    /// Reads the file, if there is to be one.
    ///
    /// # Errors
    /// A sentence that names the line, never its content.
    pub fn read(file: Option<&Path>) -> Result<Self, String> {
        let Some(path) = file else { return Ok(Self::default()) };
        let shown = path.display();
        let length =
            std::fs::metadata(path).map_err(|error| format!("cannot read secrets from {shown}: {error}"))?.len();
        if length > FILE_BYTES_MAX {
            return Err(format!(
                "{shown} is larger than {FILE_BYTES_MAX} bytes: it does not look like a file of secrets"
            ));
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("cannot read secrets from {shown}: {error}"))?;
        let mut file = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) =
                line.split_once('=').ok_or_else(|| format!("{shown}:{}: a line is NAME=value", index + 1))?;
            file.insert(name.trim().to_owned(), value.to_owned());
        }
        Ok(Self { file })
    }

    /// The values of these secrets.
    ///
    /// # Errors
    /// The names that have no value.
    pub fn values<'a>(
        &self,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<BTreeMap<String, String>, Vec<String>> {
        let mut values = BTreeMap::new();
        let mut missing = Vec::new();
        for name in names {
            match self.file.get(name).cloned().or_else(|| std::env::var(name).ok()) {
                Some(value) => drop(values.insert(name.clone(), value)),
                None => missing.push(name.clone()),
            }
        }
        if missing.is_empty() { Ok(values) } else { Err(missing) }
    }
}
