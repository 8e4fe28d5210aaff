//! Making tokens, and reading what one says without the key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use biscuit_auth::builder::Term;
use biscuit_auth::{Biscuit, UnverifiedBiscuit};
use graph::Timestamp;
use serde::{Deserialize, Serialize};

use super::keys::RootKey;
use super::verb::{Verb, pool_name};

/// The longest token in bytes; every narrowing adds a few hundred.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What kind of holder a token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// A person.
    Person,
    /// Something that submits builds; the queue charges it by name.
    Client,
    /// A worker.
    Worker,
}

impl SubjectKind {
    /// Its name in tokens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Person, Self::Client, Self::Worker].into_iter().find(|kind| kind.name() == name)
    }
}

/// Who holds a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// What kind.
    pub kind: SubjectKind,
    /// Its name, as people gave it.
    pub name: String,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

/// What a new token shall grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// To whom.
    pub subject: Subject,
    /// Which verbs; `admin` brings the others with it.
    pub verbs: BTreeSet<Verb>,
    /// On which projects; `None` means every one.
    pub projects: Option<BTreeSet<String>>,
    /// On which pools; `None` means every one.
    pub pools: Option<BTreeSet<String>>,
    /// Until when; `None` is without end.
    pub until: Option<Timestamp>,
}

impl GrantRequest {
    /// The verbs that the token will grant.
    pub(super) fn expanded_verbs(&self) -> BTreeSet<Verb> {
        if self.verbs.contains(&Verb::Admin) { Verb::ALL.into_iter().collect() } else { self.verbs.clone() }
    }
}

/// Why a token is none.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The text is no token of ours.
    #[error("this is no token of Ropewalk: check that it was copied whole")]
    Malformed,
    /// It is longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes: it was narrowed too often; narrow an earlier one")]
    TooLong,
    /// It could not be made.
    #[error("the token could not be made: {0}")]
    Refused(String),
}

/// Makes a token of this id. Its text goes to its holder and stands nowhere else.
///
/// # Errors
/// [`TokenError::Refused`] if a name cannot stand in a token.
pub fn mint(root: &RootKey, id: &str, grant: &GrantRequest) -> Result<String, TokenError> {
    let mut facts = vec![
        ("id({value});", Term::from(id)),
        ("holder_kind({value});", Term::from(grant.subject.kind.name())),
        ("holder_name({value});", Term::from(grant.subject.name.as_str())),
    ];
    facts.extend(grant.expanded_verbs().iter().map(|verb| ("verb({value});", Term::from(verb.name()))));
    match &grant.projects {
        None => facts.push(("every_project({value});", Term::from(true))),
        Some(projects) => facts.extend(projects.iter().map(|name| ("project({value});", Term::from(name.as_str())))),
    }
    match &grant.pools {
        None => facts.push(("every_pool({value});", Term::from(true))),
        Some(pools) => facts.extend(pools.iter().map(|name| ("pool({value});", Term::from(name.as_str())))),
    }
    if let Some(until) = grant.until {
        facts.push(("check if time_us($now), $now <= {value};", Term::from(until.0)));
    }
    let mut builder = Biscuit::builder();
    for (code, value) in facts {
        builder = builder.code_with_params(code, value_of(value), HashMap::new()).map_err(refused)?;
    }
    builder.build(root.pair()).and_then(|token| token.to_base64()).map_err(refused)
}

pub(super) fn value_of(value: Term) -> HashMap<String, Term> {
    HashMap::from([("value".to_owned(), value)])
}

pub(super) fn refused(error: impl std::fmt::Display) -> TokenError {
    TokenError::Refused(error.to_string())
}

/// The token in a text that may have blanks around it.
pub(super) fn read(text: &str) -> Result<UnverifiedBiscuit, TokenError> {
    let text = text.trim();
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    UnverifiedBiscuit::from_base64(text).map_err(|_| TokenError::Malformed)
}

/// What a token says of itself. Nobody has checked that it is genuine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inspected {
    /// The statements of its first block, by name: `id`, `holder_kind`, `verb`, `project`, …
    pub grants: BTreeMap<String, Vec<String>>,
    /// The checks of the first block, such as its end in time.
    pub checks: Vec<String>,
    /// The checks that each holder added, in order.
    pub narrowed: Vec<Vec<String>>,
    /// What revokes it: that of the whole token first, then that of each narrowing.
    pub revocation: Vec<String>,
    /// When the first of its checks ends it.
    #[serde(skip)]
    pub ends: Option<Timestamp>,
    /// What the holders' checks together leave of `projects`, of `pools` and so on; what none of them limits is not there.
    #[serde(skip)]
    pub limits: BTreeMap<&'static str, BTreeSet<String>>,
    /// How many statements of holders are neither an end nor such a limit.
    #[serde(skip)]
    pub unread: usize,
}

impl Inspected {
    /// The first statement of this name.
    #[must_use]
    pub fn grant(&self, name: &str) -> Option<&str> {
        self.grants.get(name)?.first().map(String::as_str)
    }

    /// The holder, if it is named.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        let kind = SubjectKind::from_name(self.grant("holder_kind")?)?;
        Some(Subject { kind, name: self.grant("holder_name")?.to_owned() })
    }

    /// The pools that it is for, the default one by its name; `None` if it is for every one.
    #[must_use]
    pub fn pools(&self) -> Option<BTreeSet<String>> {
        let granted = match self.grants.contains_key("every_pool") {
            true => None,
            false => {
                Some(self.grants.get("pool").into_iter().flatten().map(|pool| pool_name(pool).to_owned()).collect())
            }
        };
        left_of(granted, self.limits.get("pools"))
    }
}

/// The names that are granted, `None` for every one, and that no check excludes.
pub(super) fn left_of(granted: Option<BTreeSet<String>>, limit: Option<&BTreeSet<String>>) -> Option<BTreeSet<String>> {
    match (granted, limit) {
        (granted, None) => granted,
        (None, Some(limit)) => Some(limit.clone()),
        (Some(granted), Some(limit)) => Some(granted.intersection(limit).cloned().collect()),
    }
}

/// Reads what a token says, without the key.
///
/// # Errors
/// [`TokenError`].
pub fn inspect(text: &str) -> Result<Inspected, TokenError> {
    let token = read(text)?;
    let mut inspected = Inspected {
        grants: BTreeMap::new(),
        checks: Vec::new(),
        narrowed: Vec::new(),
        revocation: token.revocation_identifiers().iter().map(|id| graph::hex::digits(id)).collect(),
        ends: None,
        limits: BTreeMap::new(),
        unread: 0,
    };
    for block in 0..token.block_count() {
        let source = token.print_block_source(block).map_err(|_| TokenError::Malformed)?;
        let statements = source.lines().map(|line| line.trim().trim_end_matches(';')).filter(|line| !line.is_empty());
        let mut checks = Vec::new();
        for statement in statements {
            match fact(statement) {
                Some((name, value)) if block == 0 => inspected.grants.entry(name).or_default().push(value),
                _ => {
                    let end = super::narrowing::end_in(statement);
                    inspected.ends = inspected.ends.into_iter().chain(end).min();
                    let limit = super::narrowing::limit_in(statement);
                    inspected.unread += usize::from(end.is_none() && limit.is_none());
                    if let Some((limited, names)) = limit {
                        let names: BTreeSet<String> = names.split(", ").map(str::to_owned).collect();
                        let left = inspected.limits.entry(limited).or_insert_with(|| names.clone());
                        left.retain(|name| names.contains(name));
                    }
                    checks.push(super::narrowing::in_words(statement));
                }
            }
        }
        if block == 0 {
            inspected.checks = checks;
        } else {
            inspected.narrowed.push(checks);
        }
    }
    Ok(inspected)
}

/// Name and value of a statement such as `verb("read")`.
fn fact(statement: &str) -> Option<(String, String)> {
    if statement.starts_with("check ") || statement.contains("<-") {
        return None;
    }
    let (name, rest) = statement.split_once('(')?;
    let value = rest.strip_suffix(')')?;
    // Texts are printed between quotation marks, those inside them as they are.
    let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some((name.to_owned(), text.unwrap_or(value).to_owned()))
}
