//! A version as tags say it: `1.2.3`, perhaps with something before a release (`1.2.3-rc.1`).

use std::fmt;
use std::str::FromStr;

use ropewalk::data::{DecodeError, Schema};
use ropewalk::{Data, FieldType, Fill, Json};

/// A version: three numbers, and perhaps what it is before a release. Build metadata (`+…`) is left out. Source: semver.org, 2.0.0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Version {
    /// Changes that break users.
    pub major: u64,
    /// What is new.
    pub minor: u64,
    /// What is mended.
    pub patch: u64,
    /// What stands behind the dash; empty for a release.
    pub pre: String,
}

/// Which number of a version is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Data)]
pub enum Bump {
    /// The first.
    Major,
    /// The second.
    Minor,
    /// The third.
    Patch,
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoVersion(String);

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no version such as `1.2.3`", self.0)
    }
}

impl std::error::Error for NoVersion {}

impl Version {
    /// The version after this one. One that is not released yet becomes the release that it is before.
    #[must_use]
    pub fn next(&self, bump: Bump) -> Self {
        let Self { major, minor, patch, .. } = *self;
        let is_release = self.pre.is_empty();
        let (major, minor, patch) = match bump {
            Bump::Major if !is_release && minor == 0 && patch == 0 => (major, 0, 0),
            Bump::Major => (major.saturating_add(1), 0, 0),
            Bump::Minor if !is_release && patch == 0 => (major, minor, 0),
            Bump::Minor => (major, minor.saturating_add(1), 0),
            Bump::Patch if !is_release => (major, minor, patch),
            Bump::Patch => (major, minor, patch.saturating_add(1)),
        };
        Self { major, minor, patch, pre: String::new() }
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let wrong = || NoVersion(text.to_owned());
        let plain = text.split_once('+').map_or(text, |(plain, _)| plain);
        let (numbers, pre) = plain.split_once('-').map_or((plain, None), |(numbers, pre)| (numbers, Some(pre)));
        let is_part =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if pre.is_some_and(|pre| !pre.split('.').all(is_part)) {
            return Err(wrong());
        }
        let mut parts = numbers.split('.').map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse().map_err(|_| wrong()) } else { Err(wrong()) }
        });
        let mut number = || parts.next().unwrap_or_else(|| Err(wrong()));
        let (major, minor, patch) = (number()?, number()?, number()?);
        match parts.next() {
            None => Ok(Self { major, minor, patch, pre: pre.unwrap_or_default().to_owned() }),
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch, pre } = self;
        write!(f, "{major}.{minor}.{patch}")?;
        if pre.is_empty() { Ok(()) } else { write!(f, "-{pre}") }
    }
}

impl Fill for Version {
    const FIELD: FieldType = FieldType::Text;
}

/// Travels as its text, so that `${{ needs.describe.outputs.version }}` reads well.
impl Data for Version {
    fn schema(schema: &mut Schema) {
        schema.word("version");
    }

    fn to_json(&self) -> Json {
        Json::Text(self.to_string())
    }

    fn from_json(json: &Json) -> Result<Self, DecodeError> {
        let text = json.as_str().ok_or_else(|| DecodeError::expected("a version", json))?;
        text.parse().map_err(|error: NoVersion| DecodeError::new(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Bump, Version};

    #[test]
    fn versions_are_read_and_written() {
        for text in ["0.0.0", "1.22.333", "1.0.0-rc.1", "1.0.0-alpha-2"] {
            assert_eq!(text.parse::<Version>().map(|version| version.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("1.2.3+build".parse::<Version>().map(|version| version.to_string()).as_deref(), Ok("1.2.3"));
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in
            ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "1..3", "1.2.3-", "1.2.+3", "99999999999999999999.0.0"]
        {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_version_is_a_release() {
        let next = |text: &str, bump| text.parse::<Version>().expect("a version").next(bump).to_string();
        assert_eq!(next("1.2.3", Bump::Major), "2.0.0");
        assert_eq!(next("1.2.3", Bump::Minor), "1.3.0");
        assert_eq!(next("1.2.3", Bump::Patch), "1.2.4");
        assert_eq!(next("2.0.0-rc.1", Bump::Major), "2.0.0");
        assert_eq!(next("2.0.0-rc.1", Bump::Patch), "2.0.0");
        assert_eq!(next("2.1.0-rc.1", Bump::Major), "3.0.0");
    }
}
