//! How far a stream was told, and the text that says so: the id of an event.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use graph::{AttemptNumber, BuildId};

use super::LiveError;

/// The longest id of an event in bytes.
pub const ID_BYTES_MAX: usize = 64 * 1024;

/// Names an attempt as its worker and its log know it.
pub(super) type AttemptKey = (BuildId, AttemptNumber);

/// How far an attempt was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) step: u16,
    /// Whether the step's beginning was told.
    pub(super) begun: u8,
    /// The next row, and how many bytes of it were told.
    pub(super) line: u64,
    pub(super) bytes: u64,
}

/// Names what goes on beside the steps of an attempt, an image's build or a service, by its number behind those of the steps.
pub(super) type SectionKey = (AttemptKey, u16);

/// How far what goes on beside the steps was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) told: Told,
    /// Whether its end was told too.
    pub(super) ended: bool,
}

/// How far a stream was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) facts: usize,
    pub(super) attempts: BTreeMap<AttemptKey, Told>,
    /// Of attempts that run.
    pub(super) sections: BTreeMap<SectionKey, Beside>,
}

impl Cursor {
    /// Forgets attempts that do not run.
    pub(super) fn keep(&mut self, runs: impl Fn(&AttemptKey) -> bool) {
        self.attempts.retain(|key, _| runs(key));
        self.sections.retain(|(key, _), _| runs(key));
    }
}

/// Before the numbers of what goes on beside the steps.
const SECTION_SIGN: char = 's';

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.facts)?;
        for ((build, attempt), told) in &self.attempts {
            write!(f, "_{build}.{attempt}.{}.{}.{}.{}", told.step, told.begun, told.line, told.bytes)?;
        }
        for (((build, attempt), section), Beside { told, ended }) in &self.sections {
            let reached = told.begun + u8::from(*ended);
            write!(f, "_{SECTION_SIGN}{build}.{attempt}.{section}.{reached}.{}.{}", told.line, told.bytes)?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = LiveError;

    fn from_str(text: &str) -> Result<Self, LiveError> {
        let bad = || LiveError::BadId(text.chars().take(80).collect());
        if text.len() > ID_BYTES_MAX {
            return Err(bad());
        }
        let mut parts = text.split('_');
        let facts = parts.next().and_then(|facts| facts.parse().ok()).ok_or_else(bad)?;
        let (mut attempts, mut sections) = (BTreeMap::new(), BTreeMap::new());
        for part in parts {
            let (is_section, part) = part.strip_prefix(SECTION_SIGN).map_or((false, part), |part| (true, part));
            let numbers: Vec<u64> = part.split('.').map_while(|number| number.parse().ok()).collect();
            let [build, attempt, step, begun, line, bytes] = numbers[..] else { return Err(bad()) };
            let attempt = AttemptNumber(u32::try_from(attempt).map_err(|_| bad())?);
            let step = u16::try_from(step).map_err(|_| bad())?;
            let told = Told { step, begun: u8::from(begun > 0), line, bytes };
            let key = (BuildId(build), attempt);
            match is_section {
                true => drop(sections.insert((key, step), Beside { told, ended: begun > 1 })),
                false => drop(attempts.insert(key, told)),
            }
        }
        Ok(Self { facts, attempts, sections })
    }
}
