//! The types of settings: how each is written, and what is wrong with what is not.

use std::net::SocketAddr;
use std::path::Path;

use axum::http::Uri;

use super::shown::HIDDEN;

/// Whether a value that is wrong is told together with what is expected instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is.
    Whole,
    /// It may hold a password, and is not.
    Hidden,
}

/// A type that a setting may have.
pub trait Setting: Sized {
    /// What may stand there, for people.
    const TAKES: &'static str;
    /// Whether a value that is wrong is told.
    const TOLD: Told = Told::Whole;

    /// Reads a value.
    ///
    /// # Errors
    /// What is expected instead, to stand after "expected".
    fn parse(text: &str) -> Result<Self, String>;

    /// The value as [`Setting::parse`] reads it; a secret is hidden.
    fn show(&self) -> String;
}

impl Setting for String {
    const TAKES: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for Option<String> {
    const TAKES: &'static str = "text or nothing";

    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

/// An address on the web: `http` or `https`, a host, and maybe a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAddress(pub String);

impl WebAddress {
    fn parse(text: &str) -> Option<Self> {
        let address: Uri = text.parse().ok()?;
        let is_web = matches!(address.scheme_str(), Some("http" | "https"));
        let has_host = address.host().is_some_and(|host| !host.is_empty());
        (is_web && has_host && !text.contains(['?', '#'])).then(|| Self(text.to_owned()))
    }
}

impl Setting for Option<WebAddress> {
    const TAKES: &'static str = "http://… or https://…, or nothing";
    const TOLD: Told = Told::Hidden;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        WebAddress::parse(text).map(Some).ok_or_else(|| "an address such as https://ci.example.com".to_owned())
    }

    /// Who is let in is hidden.
    fn show(&self) -> String {
        let text = self.as_ref().map_or("", |address| &address.0);
        match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, place)) => format!("{scheme}://{HIDDEN}@{place}"),
            None => text.to_owned(),
        }
    }
}

impl Setting for SocketAddr {
    const TAKES: &'static str = "ADDRESS:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "an address and a port, such as 0.0.0.0:7070 or [::]:7070".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for u64 {
    const TAKES: &'static str = "number";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "a whole number, 0 or more".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A stretch of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Setting for Millis {
    const TAKES: &'static str = "duration (500ms, 30s, 20m, 6h)";

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "a duration such as 500ms, 30s, 20m or 6h".to_owned();
        let (number, unit) = split_unit(text).ok_or_else(expected)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(expected)
    }

    fn show(&self) -> String {
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
            .into_iter()
            .find(|(factor, _)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .map_or_else(|| format!("{}ms", self.0), |(factor, unit)| format!("{}{unit}", self.0 / factor))
    }
}

/// How often a worker shows that it is there, in milliseconds. No shorter than a machine under load may be late by, and no longer
/// than anybody would wait for what a lost worker ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heartbeat(pub u64);

impl Heartbeat {
    const MS_MIN: u64 = 500;
    const MS_MAX: u64 = 3_600_000;
}

impl Setting for Heartbeat {
    const TAKES: &'static str = "duration from 500ms to 1h";

    fn parse(text: &str) -> Result<Self, String> {
        let read = Millis::parse(text).ok().filter(|Millis(ms)| (Self::MS_MIN..=Self::MS_MAX).contains(ms));
        read.map(|Millis(ms)| Self(ms)).ok_or_else(|| format!("a {}, such as 10s", Self::TAKES))
    }

    fn show(&self) -> String {
        Millis(self.0).show()
    }
}

/// How many jobs a worker runs at once; 0 is one for each processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slots(pub u32);

impl Slots {
    /// More than any machine runs.
    pub const MAX: u32 = 10_000;
}

impl Setting for Slots {
    const TAKES: &'static str = "number from 0 to 10000";

    fn parse(text: &str) -> Result<Self, String> {
        let read = text.parse().ok().filter(|slots| *slots <= Self::MAX);
        read.map(Self).ok_or_else(|| format!("a whole {}", Self::TAKES))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A stretch of time in whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Days(pub u64);

impl Setting for Days {
    const TAKES: &'static str = "days (30d)";

    fn parse(text: &str) -> Result<Self, String> {
        match split_unit(text) {
            Some((days, "d")) if days <= 36_500 => Ok(Self(days)),
            _ => Err("a number of days such as 30d".to_owned()),
        }
    }

    fn show(&self) -> String {
        format!("{}d", self.0)
    }
}

/// An amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const BYTE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Setting for Bytes {
    const TAKES: &'static str = "size (512MiB, 20GiB)";

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "a size such as 0B, 512MiB or 20GiB".to_owned();
        let (number, unit) = split_unit(text).ok_or_else(expected)?;
        let (_, factor) = BYTE_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        number.checked_mul(factor).map(Self).ok_or_else(expected)
    }

    fn show(&self) -> String {
        BYTE_UNITS
            .into_iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .map_or_else(|| "0B".to_owned(), |(unit, factor)| format!("{}{unit}", self.0 / factor))
    }
}

impl Setting for Option<Bytes> {
    const TAKES: &'static str = "size (512MiB, 20GiB) or nothing";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { Bytes::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Setting::show)
    }
}

/// Several texts; in flags and the environment with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Setting for Texts {
    const TAKES: &'static str = "list of texts";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()))
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for Secret {
    const TAKES: &'static str = "text, never shown whole";
    const TOLD: Told = Told::Hidden;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    /// The words for what needs no address are no secret; of an address, the passwords are hidden.
    fn show(&self) -> String {
        match self.0.split_once("://") {
            None if matches!(self.0.as_str(), "" | "sqlite" | "directory") => self.0.clone(),
            None => HIDDEN.to_owned(),
            Some((scheme, rest)) => format!("{scheme}://{}", without_passwords(rest)),
        }
    }
}

/// Where records are kept: SQLite in the data folder, or a database of PostgreSQL. Passwords in it are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(pub String);

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for StoreUrl {
    const TAKES: &'static str = "sqlite or postgres://…";
    const TOLD: Told = Told::Hidden;

    fn parse(text: &str) -> Result<Self, String> {
        match text == "sqlite" || ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            true => Ok(Self(text.to_owned())),
            false => Err("`sqlite`, or a PostgreSQL database as postgres://USER:PASSWORD@HOST/DATABASE".to_owned()),
        }
    }

    fn show(&self) -> String {
        Secret(self.0.clone()).show()
    }
}

/// Where contents are kept: the data folder, another folder, or a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobsUrl(pub String);

impl BlobsUrl {
    /// The folder outside of the data folder that it names, if it names one.
    #[must_use]
    pub fn other_folder(&self) -> Option<&Path> {
        self.0.strip_prefix("directory:").map(Path::new)
    }
}

impl Setting for BlobsUrl {
    const TAKES: &'static str = "directory, directory:/PATH or s3://…";
    const TOLD: Told = Told::Hidden;

    fn parse(text: &str) -> Result<Self, String> {
        match text == "directory" || ["directory:/", "s3://"].iter().any(|scheme| text.starts_with(scheme)) {
            true => Ok(Self(text.to_owned())),
            false => Err("`directory`, `directory:/PATH` or `s3://BUCKET/PREFIX`".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An address after its scheme, without the passwords before its host and in its query.
fn without_passwords(rest: &str) -> String {
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let place = match place.rsplit_once('@') {
        Some((user, place)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:{HIDDEN}@{place}"),
            None => format!("{user}@{place}"),
        },
        // The question mark may stand in a password.
        None if rest.contains('@') => return HIDDEN.to_owned(),
        None => place.to_owned(),
    };
    let pairs = query.map(|query| query.split('&').map(without_password).collect::<Vec<_>>().join("&"));
    pairs.map_or(place.clone(), |pairs| format!("{place}?{pairs}"))
}

/// One `NAME=VALUE` of a query.
fn without_password(pair: &str) -> String {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    match name.to_lowercase().contains("password") || value.contains('@') {
        true => format!("{name}={HIDDEN}"),
        false => pair.to_owned(),
    }
}

/// One of a few words.
pub trait Choice: Copy + PartialEq + 'static {
    /// All, with their words.
    const WORDS: &'static [(&'static str, Self)];
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal),* } $takes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$word_doc])* $variant),*
        }

        impl Choice for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl Setting for $name {
            const TAKES: &'static str = $takes;

            fn parse(text: &str) -> Result<Self, String> {
                let found = Self::WORDS.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| *value).ok_or_else(|| format!("one of {}", $takes))
            }

            fn show(&self) -> String {
                let found = Self::WORDS.iter().find(|(_, value)| value == self);
                found.map_or_else(String::new, |(word, _)| (*word).to_owned())
            }
        }
    };
}

choice! {
    /// A switch.
    OnOff {
        /// It is on.
        On = "on",
        /// It is off.
        Off = "off"
    } "on, off"
}

choice! {
    /// What an acknowledgement promises.
    Durability {
        /// What was acknowledged survives the death of the machine.
        Disk = "disk",
        /// What was acknowledged survives the death of the server's process.
        Process = "process"
    } "disk, process"
}

choice! {
    /// How the server writes its own log.
    LogForm {
        /// Lines for people.
        Human = "human",
        /// One JSON object a line.
        Json = "json"
    } "human, json"
}

/// The number before a unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::{Heartbeat, Secret, Setting, Slots, WebAddress};

    fn check<S: Setting>(good: &[&str], wrong: &[&str], expected: &str) {
        for text in good {
            assert_eq!(S::parse(text).map(|value| value.show()), Ok((*text).to_owned()));
        }
        for text in wrong {
            assert_eq!(S::parse(text).map(|value| value.show()), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_nothing_could_be_done_with_is_refused() {
        let expected = "an address such as https://ci.example.com";
        let good = ["", "http://localhost:4318", "https://ci.example.com/ropewalk", "http://[::1]:7070"];
        let wrong = [
            "ci.example.com",
            "ci.example.com:7070",
            "//ci.example.com",
            "ftp://ci.example.com",
            "https://",
            "https://:7070",
            "https:/ci.example.com",
            "https://ci.example.com?a=b",
            "https://ci example.com",
        ];
        check::<Option<WebAddress>>(&good, &wrong, expected);
        let expected = "a duration from 500ms to 1h, such as 10s";
        check::<Heartbeat>(&["500ms", "1s", "1h"], &["0s", "1ms", "499ms", "61m", "often"], expected);
        let expected = "a whole number from 0 to 10000";
        check::<Slots>(&["0", "1", "10000"], &["10001", "99999999999", "-1", "many"], expected);
    }

    #[test]
    fn no_password_is_shown() {
        let shown = |text: &str| Secret(text.to_owned()).show();
        for harmless in ["", "sqlite", "directory", "postgres://h/d", "postgres://u@h/d?sslmode=require"] {
            assert_eq!(shown(harmless), harmless);
        }
        assert_eq!(shown("SKSKSKSK"), "(hidden)");
        assert_eq!(shown("s"), "(hidden)");
        assert_eq!(shown("host=h password=pw"), "(hidden)");
        assert_eq!(shown("postgres://u:p@w:x@h/d"), "postgres://u:(hidden)@h/d");
        assert_eq!(shown("postgres://u:pw?x@h/d"), "postgres://(hidden)");
        assert_eq!(
            shown("postgres://h/d?user=u&password=pw&sslPassword=pw"),
            "postgres://h/d?user=u&password=(hidden)&sslPassword=(hidden)"
        );
        assert_eq!(shown("postgres://u:pw@h/d?user=u@x"), "postgres://u:(hidden)@h/d?user=(hidden)");
    }

    #[test]
    fn nobody_who_is_let_in_at_an_address_is_shown() {
        let shown = |text: &str| Option::<WebAddress>::parse(text).expect("an address").show();
        assert_eq!(shown("http://user:pw@h:4318/v1"), "http://(hidden)@h:4318/v1");
        assert_eq!(shown("http://token@h"), "http://(hidden)@h");
        assert_eq!(shown("http://h:4318"), "http://h:4318");
        assert_eq!(shown(""), "");
    }
}
