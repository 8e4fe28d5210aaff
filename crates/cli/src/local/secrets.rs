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
        // Some editors begin a file with a mark of its encoding.
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) =
                line.split_once('=').ok_or_else(|| format!("{shown}:{}: a line is NAME=value", index + 1))?;
            let name = name.trim();
            if !is_name(name) {
                let hint = if name.starts_with("export ") { ": leave out `export`" } else { "" };
                let rule = "a line is NAME=value, and a name has letters, digits and `_` only";
                return Err(format!("{shown}:{}: {rule}{hint}", index + 1));
            }
            file.insert(name.to_owned(), value.to_owned());
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

/// Whether a pipeline can name such a secret.
fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::SecretSource;

    #[test]
    fn a_file_of_secrets_is_read_or_refused_by_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            SecretSource::read(Some(&path)).map(|source| source.file.into_iter().collect::<Vec<_>>())
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = vec![pair("A", "one"), pair("B_2", "x=y")];
        assert_eq!(read("\u{feff}A=one\n# no\n\n B_2 =x=y\r\n"), Ok(expected));
        let rule = "a line is NAME=value, and a name has letters, digits and `_` only";
        let refused = |line: usize, said: &str| Err(format!("{}:{line}: {said}", path.display()));
        assert_eq!(read("A=one\nexport B=s3cret"), refused(2, &format!("{rule}: leave out `export`")));
        assert_eq!(read("hunter2&x=s3cret"), refused(1, rule));
        assert_eq!(read("=s3cret"), refused(1, rule));
        assert_eq!(read("\ns3cret"), refused(2, "a line is NAME=value"));
    }
}
