//! Narrowing a token: whoever holds one makes a weaker one from it, without the server.

use std::collections::{BTreeSet, HashMap};

use api::time::Time;
use biscuit_auth::builder::{BlockBuilder, Term};
use graph::{BuildId, Timestamp};

use super::token::{TOKEN_BYTES_MAX, TokenError, read, refused};
use super::verb::{Verb, pool_name};

/// What the weaker token is limited to; empty fields limit nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// To these verbs.
    pub verbs: BTreeSet<Verb>,
    /// To requests about these projects, and to looking at pools, which are nobody's.
    pub projects: BTreeSet<String>,
    /// To these pools, where a request is about a pool.
    pub pools: BTreeSet<String>,
    /// To requests about these builds.
    pub builds: BTreeSet<BuildId>,
    /// To the time before this.
    pub until: Option<Timestamp>,
}

impl Narrowing {
    /// Whether it limits nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A token that can do what `text` can, within `narrowing`.
///
/// # Errors
/// [`TokenError`]; also if the result would be too long.
pub fn narrow(text: &str, narrowing: &Narrowing) -> Result<String, TokenError> {
    let token = read(text)?;
    let names =
        |names: &BTreeSet<String>| names.iter().map(|name| Term::from(name.as_str())).collect::<BTreeSet<Term>>();
    let verbs = narrowing.verbs.iter().map(|verb| Term::from(verb.name())).collect();
    let builds = narrowing.builds.iter().map(|build| Term::from(i64::try_from(build.0).unwrap_or(i64::MAX))).collect();
    let pools = narrowing.pools.iter().map(|name| Term::from(pool_name(name))).collect();
    let checks: [(&str, BTreeSet<Term>); 4] = [
        ("check if operation($it), {value}.contains($it);", verbs),
        ("check if on_pools_alone(true) or on_project($it), {value}.contains($it);", names(&narrowing.projects)),
        ("check if on_no_pool(true) or on_pool($it), {value}.contains($it);", pools),
        ("check if on_build($it), {value}.contains($it);", builds),
    ];
    let mut block = BlockBuilder::new();
    for (code, values) in checks {
        if !values.is_empty() {
            let value = HashMap::from([("value".to_owned(), Term::Set(values))]);
            block = block.code_with_params(code, value, HashMap::new()).map_err(refused)?;
        }
    }
    if let Some(until) = narrowing.until {
        let value = super::token::value_of(Term::from(until.0));
        block = block
            .code_with_params("check if time_us($now), $now <= {value};", value, HashMap::new())
            .map_err(refused)?;
    }
    let narrowed = token.append(block).and_then(|token| token.to_base64()).map_err(refused)?;
    if narrowed.len() > TOKEN_BYTES_MAX { Err(TokenError::TooLong) } else { Ok(narrowed) }
}

/// A check as people read it; one that is not of our making stays as it stands.
pub(super) fn in_words(statement: &str) -> String {
    if let Some(until) = end_in(statement) {
        return format!("until {}", Time(until).in_seconds());
    }
    limit_in(statement).map_or_else(|| statement.to_owned(), |(limited, names)| format!("{limited}: {names}"))
}

/// What a check of our making limits, `projects` or `pools` for two, and to which, parted by commas.
pub(super) fn limit_in(statement: &str) -> Option<(&'static str, String)> {
    const FORMS: [(&str, &str); 5] = [
        ("operation($it), ", "verbs"),
        ("on_pools_alone(true) or on_project($it), ", "projects"),
        // As it was written before, which keeps from looking at pools, too.
        ("on_project($it), ", "projects"),
        ("on_no_pool(true) or on_pool($it), ", "pools"),
        ("on_build($it), ", "builds"),
    ];
    let check = statement.strip_prefix("check if ")?;
    FORMS.iter().find_map(|(form, name)| {
        let set = check.strip_prefix(form)?.strip_suffix(".contains($it)")?;
        let set = set.trim_matches(|bracket| matches!(bracket, '{' | '}' | '[' | ']'));
        Some((*name, set.replace('"', "")))
    })
}

/// The time at which a check of our making ends a token.
pub(super) fn end_in(statement: &str) -> Option<Timestamp> {
    statement.strip_prefix("check if time_us($now), $now <= ")?.parse().ok().map(Timestamp)
}
