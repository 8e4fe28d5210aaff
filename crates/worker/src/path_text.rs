//! Paths as texts, for what is written down and told. Each path has a text of its own: one that is UTF-8 is its own text.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serializer};

/// What the text of a path begins with that is not UTF-8, and of no other that a listing gives.
const ESCAPED: &str = "./";

/// A path as a text of its own: one that is not UTF-8 begins with `./` and has `\xNN` for bytes that are no text and `\\` for `\`; so is one that
/// begins with `./` itself.
#[must_use]
pub fn text_of(path: &Path) -> Cow<'_, str> {
    if let Some(text) = path.to_str().filter(|text| !text.starts_with(ESCAPED)) {
        return text.into();
    }
    let mut text = ESCAPED.to_owned();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!(r"\x{byte:02x}")));
    }
    text.into()
}

/// The path of a text that [`text_of`] gave. A `\` that it did not write stands for itself.
#[must_use]
pub fn path_of(text: &str) -> PathBuf {
    let Some(mut rest) = text.strip_prefix(ESCAPED) else { return text.into() };
    let mut path = Vec::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once('\\') {
        path.extend_from_slice(before.as_bytes());
        let byte = after.strip_prefix('x').and_then(|after| u8::from_str_radix(after.get(..2)?, 16).ok());
        path.push(byte.unwrap_or(b'\\'));
        rest = match byte {
            Some(_) => &after[3..],
            None => after.strip_prefix('\\').unwrap_or(after),
        };
    }
    path.extend_from_slice(rest.as_bytes());
    OsString::from_vec(path).into()
}

/// For `#[serde(with)]` of a path.
///
/// # Errors
/// The serializer's.
pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text_of(path))
}

/// For `#[serde(with)]` of a path.
///
/// # Errors
/// It is no text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(path_of(&Cow::<str>::deserialize(deserializer)?))
}

/// For `#[serde(with)]` of a path that may be none.
pub(crate) mod option {
    use super::*;

    /// As [`super::serialize`].
    pub(crate) fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.serialize_some(&text_of(path)),
            None => serializer.serialize_none(),
        }
    }

    /// As [`super::deserialize`].
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Cow<'_, str>>::deserialize(deserializer)?.map(|text| path_of(&text)))
    }
}

/// For `#[serde(with)]` of several paths.
pub(crate) mod list {
    use super::*;

    /// As [`super::serialize`].
    pub(crate) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| text_of(path)))
    }

    /// As [`super::deserialize`].
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let texts = Vec::<Cow<'_, str>>::deserialize(deserializer)?;
        Ok(texts.iter().map(|text| path_of(text)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn paths_are_told_apart_and_found_again() {
        let check = |bytes: &[u8], text: &str| {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(text_of(path), text);
            assert_eq!(path_of(text), path);
        };
        check(b"a\xff", r"./a\xff");
        check(b"a\xfe", r"./a\xfe");
        check(br"a\xff", r"a\xff");
        check(b"\\a\xff", r"./\\a\xff");
        check(b"\\xff\xff", r"./\\xff\xff");
        check(b"../a\xff", r"./../a\xff");
        check(b"/a\xff/b", r".//a\xff/b");
        check(b"a", "a");
        check(b"", "");
        check(br"./a\xff", r"././a\\xff");
        assert_eq!(path_of(r"./a\"), Path::new(r"a\"), "a path of an earlier release");
    }
}
