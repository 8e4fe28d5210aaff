//! The gate of every request: is the token genuine, is it listed, does it grant this.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use api::time::Time;
use biscuit_auth::builder::{AuthorizerBuilder, Term};
use biscuit_auth::{AuthorizerLimits, Biscuit, error};
use graph::{Digest, Timestamp};

use super::keys::RootKey;
use super::ledger::{Ledger, LedgerError};
use super::member::Member;
use super::token::{GrantRequest, Subject, TOKEN_BYTES_MAX, TokenError, inspect, left_of, mint};
use super::verb::{Target, Verb, pool_name};
use crate::lock::lock;
use crate::records::KeptPass;

/// What a token's checks may cost; a token is made by whoever holds it, so its checks are not ours. The time is that of the wall,
/// so a busy machine can use it up for any token ([`Denied::Slow`]). They are given to the builder of each authorizer too, since
/// that runs the token's own rules, by default within one millisecond.
const LIMITS: AuthorizerLimits =
    AuthorizerLimits { max_facts: 1000, max_iterations: 100, max_time: std::time::Duration::from_secs(2) };

/// The most tokens that are remembered to be genuine; one more and all are looked at again.
pub const GENUINE_MAX: usize = 1000;
/// The most answers that are remembered of one token.
const GRANTED_MAX: usize = 200;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// There is no token, or it is not genuine, or not listed here.
    #[error("{0}")]
    NoToken(String),
    /// The token was revoked.
    #[error("this token was revoked: ask whoever runs this server for a new one")]
    Revoked,
    /// Its time is up.
    #[error("the token has expired")]
    Ended,
    /// It does not grant this.
    #[error("this token does not grant `{verb}` on {target}")]
    Forbidden {
        /// What was asked.
        verb: Verb,
        /// On what.
        target: String,
    },
    /// Its checks took longer than they may; that says nothing about what it grants.
    #[error("the token's checks took too long")]
    Slow,
    /// The list of tokens cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a run of a token's rules that failed means: time that was up, or `otherwise`.
fn why(error: &error::Token, otherwise: impl FnOnce() -> Denied) -> Denied {
    match error {
        error::Token::RunLimit(error::RunLimit::Timeout) => Denied::Slow,
        _ => otherwise(),
    }
}

/// Checks and makes tokens. Blocks, as its ledger does.
pub struct Access {
    root: RootKey,
    ledger: Arc<dyn Ledger>,
    /// Tokens whose signatures were checked, by the digest of their text. Whether they still hold, the ledger says at each use.
    genuine: Mutex<HashMap<Digest, Arc<Genuine>>>,
}

/// A token that this server's key has signed.
#[derive(Debug)]
struct Genuine {
    id: String,
    /// What revokes it, or a narrowing of it.
    revocation: Vec<String>,
    biscuit: Biscuit,
    /// When its own checks end it.
    ends: Option<Timestamp>,
    /// What its holders' checks leave of projects and of pools.
    limits: BTreeMap<&'static str, BTreeSet<String>>,
    /// Whether all of its holders' checks are ends and limits, so that what they leave is known without asking.
    is_read_whole: bool,
    answers: Answers,
    granted: Mutex<HashSet<Asked>>,
}

/// Whether a token always gives the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// Nobody has added checks to it, and it has no end in time: what it grants follows from verb, project and pool alone.
    Fixed,
    /// It is asked each time.
    Varying,
}

/// What a token of fixed answers was asked: the verb, the project, the pool.
type Asked = (Verb, Option<String>, Option<String>);

impl Genuine {
    /// Reads a token that is genuine.
    fn read(text: &str, root: &RootKey) -> Result<Self, Denied> {
        let none = |why: &str| Denied::NoToken(why.to_owned());
        let biscuit = Biscuit::from_base64(text, root.public())
            .map_err(|_| none("this token was not made by this server, or not copied whole"))?;
        let revocation: Vec<String> =
            biscuit.revocation_identifiers().iter().map(|id| graph::hex::digits(id)).collect();
        let damaged = |error: error::Token| why(&error, || none("this token is damaged"));
        let mut authorizer = AuthorizerBuilder::new().set_limits(LIMITS).build(&biscuit).map_err(damaged)?;
        let ids: Vec<(String,)> = authorizer.query_with_limits("data($id) <- id($id)", LIMITS).map_err(damaged)?;
        let [(id,)] = ids.as_slice() else { return Err(none("this token has no id")) };
        let said = inspect(text).ok();
        let is_plain = said.as_ref().is_some_and(|said| said.checks.is_empty() && said.narrowed.is_empty());
        let answers = if is_plain { Answers::Fixed } else { Answers::Varying };
        let is_read_whole = said.as_ref().is_some_and(|said| said.unread == 0);
        let (ends, limits) = said.map(|said| (said.ends, said.limits)).unwrap_or_default();
        let (id, granted) = (id.clone(), Mutex::default());
        Ok(Self { id, revocation, biscuit, ends, limits, is_read_whole, answers, granted })
    }

    fn asked(verb: Verb, target: &Target<'_>) -> Asked {
        (verb, target.project.map(str::to_owned), target.pool.map(str::to_owned))
    }

    /// Whether it granted this before, and grants it always.
    fn has_granted(&self, verb: Verb, target: &Target<'_>) -> bool {
        self.answers == Answers::Fixed && lock(&self.granted).contains(&Self::asked(verb, target))
    }

    /// Remembers a yes. A no is worked out again each time.
    fn note_granted(&self, verb: Verb, target: &Target<'_>) {
        if self.answers == Answers::Fixed {
            let mut granted = lock(&self.granted);
            if granted.len() >= GRANTED_MAX {
                granted.clear();
            }
            granted.insert(Self::asked(verb, target));
        }
    }
}

/// Whoever sent a request, by a token that is genuine and listed.
#[derive(Debug)]
pub struct Bearer {
    /// Who it is.
    pub subject: Subject,
    /// The token's id.
    pub token: String,
    /// What the token granted before it was narrowed; of a member, on some target at least.
    pub grant: GrantRequest,
    /// The member whose session it is.
    member: Option<Member>,
    genuine: Arc<Genuine>,
}

impl Access {
    /// The gate of a server with this root key.
    #[must_use]
    pub fn new(root: RootKey, ledger: Arc<dyn Ledger>) -> Self {
        Self { root, ledger, genuine: Mutex::default() }
    }

    /// The tokens that were made here.
    #[must_use]
    pub fn ledger(&self) -> &dyn Ledger {
        &*self.ledger
    }

    /// Makes and lists a token; `id` is fresh and names it. Gives its text.
    ///
    /// # Errors
    /// As the ledger, or the grant's names, refuse.
    pub fn create(&self, id: &str, grant: GrantRequest, by: &str, at: Timestamp) -> Result<String, CreateError> {
        let text = mint(&self.root, id, &grant)?;
        let (id, by) = (id.to_owned(), by.to_owned());
        self.ledger.put(&super::TokenRow { id, grant, created: at, by, member: None, revoked: None }, at)?;
        Ok(text)
    }

    /// Makes and lists a token of a member, which grants nothing by itself; its end stands in the ledger alone. Gives its text.
    ///
    /// # Errors
    /// As the ledger, or the member's name, refuses.
    pub fn create_session(
        &self,
        id: &str,
        grant: GrantRequest,
        member: &Member,
        at: Timestamp,
    ) -> Result<String, CreateError> {
        let text = mint(&self.root, id, &GrantRequest { until: None, ..grant.clone() })?;
        let (id, by) = (id.to_owned(), member.name.clone());
        let row = super::TokenRow { id, grant, created: at, by, member: Some(member.id.clone()), revoked: None };
        self.ledger.put(&row, at)?;
        Ok(text)
    }

    /// Revokes a token with all that was narrowed from it. Gives whether there was such a token.
    ///
    /// # Errors
    /// As the ledger refuses.
    pub fn revoke(&self, id: &str, by: &str, at: Timestamp) -> Result<bool, LedgerError> {
        let Some(mut row) = self.ledger.token(id)? else { return Ok(false) };
        if row.revoked.is_none() {
            row.revoked = Some((at, by.to_owned()));
            self.ledger.put(&row, at)?;
        }
        Ok(true)
    }

    /// Who sent this token.
    ///
    /// # Errors
    /// [`Denied`], never `Forbidden`.
    pub fn admit(&self, text: &str) -> Result<Bearer, Denied> {
        let none = |why: &str| Denied::NoToken(why.to_owned());
        let text = text.trim();
        if text.is_empty() {
            return Err(none("a token is needed"));
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Denied::NoToken(TokenError::TooLong.to_string()));
        }
        self.listed(self.genuine(text)?)
    }

    /// Who was let in before, as the list of tokens and the members say it now.
    ///
    /// # Errors
    /// [`Denied`], never `Forbidden`.
    pub fn admit_again(&self, before: &Bearer) -> Result<Bearer, Denied> {
        self.listed(Arc::clone(&before.genuine))
    }

    /// What is listed of a token, if neither it nor a narrowing of it was revoked.
    pub(super) fn row(&self, id: &str, revocation: &[String]) -> Result<super::TokenRow, Denied> {
        let unlisted = || Denied::NoToken("this token is not listed on this server".to_owned());
        let row = self.ledger.token(id)?.ok_or_else(unlisted)?;
        if row.revoked.is_some() || self.ledger.is_revoked(revocation)? {
            return Err(Denied::Revoked);
        }
        Ok(row)
    }

    fn listed(&self, genuine: Arc<Genuine>) -> Result<Bearer, Denied> {
        let row = self.row(&genuine.id, &genuine.revocation)?;
        let (grant, member) = self.standing(&row)?;
        Ok(Bearer { subject: row.grant.subject, token: row.id, grant, member, genuine })
    }

    /// What a listed token grants now, and the member whose session it is.
    ///
    /// # Errors
    /// [`Denied::Revoked`] if the member is gone, or another of the same name.
    pub fn standing(&self, row: &super::TokenRow) -> Result<(GrantRequest, Option<Member>), Denied> {
        let Some(id) = &row.member else { return Ok((row.grant.clone(), None)) };
        let member = self.ledger.member(&row.grant.subject.name)?.filter(|member| member.id == *id);
        let member = member.ok_or(Denied::Revoked)?;
        let (verbs, projects) = (member.verbs(), member.projects());
        Ok((GrantRequest { verbs, projects, pools: None, ..row.grant.clone() }, Some(member)))
    }

    /// A token by its text, whose signatures are checked once: they take longer than all else about a small request.
    fn genuine(&self, text: &str) -> Result<Arc<Genuine>, Denied> {
        let digest = store::blob::digest(text.as_bytes());
        if let Some(known) = lock(&self.genuine).get(&digest) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(Genuine::read(text, &self.root)?);
        let mut known = lock(&self.genuine);
        if known.len() >= GENUINE_MAX {
            known.clear();
        }
        known.insert(digest, Arc::clone(&read));
        Ok(read)
    }
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It cannot say what it should.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It cannot be listed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Bearer {
    /// The id of the member's session that this token is; `None` of another token, and of one that was narrowed from a session.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        let is_whole = self.genuine.revocation.len() == 1;
        self.member.as_ref().filter(|_| is_whole).map(|_| self.token.as_str())
    }

    /// Whether the token's time is up, as it was made or as somebody narrowed it: it grants nothing more, whatever it is asked.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.grant.until.into_iter().chain(self.genuine.ends).any(|until| until < now)
    }

    /// Names the token as it was presented: another one if it was narrowed further.
    #[must_use]
    pub fn presented(&self) -> Digest {
        store::blob::digest(self.genuine.revocation.join("\n").as_bytes())
    }

    /// What is kept of it.
    pub(super) fn kept(&self) -> KeptPass {
        let until = self.grant.until.into_iter().chain(self.genuine.ends).min();
        KeptPass { token: self.token.clone(), revocation: self.genuine.revocation.clone(), until }
    }

    /// Whether the token granted `verb` on something, before it was narrowed.
    #[must_use]
    pub fn has_verb(&self, verb: Verb) -> bool {
        self.grant.verbs.contains(&verb) || self.grant.verbs.contains(&Verb::Admin)
    }

    /// Whether the same token grants the same as it did.
    pub(super) fn stands_as(&self, before: &Self) -> bool {
        self.grant == before.grant && self.member == before.member
    }

    /// Whether the token grants `verb` on `target` at `now`.
    ///
    /// # Errors
    /// [`Denied::Forbidden`], [`Denied::Slow`].
    pub fn may(&self, verb: Verb, target: &Target<'_>, now: Timestamp) -> Result<(), Denied> {
        if let Some(member) = &self.member {
            // Roles change; only what a holder added is left to the token.
            if self.has_ended(now) || !member.grants(verb, target) {
                return Err(Denied::Forbidden { verb, target: target.to_string() });
            }
            if self.genuine.answers == Answers::Fixed {
                return Ok(());
            }
            return self.may_within(verb, target, now, &LIMITS);
        }
        if self.genuine.has_granted(verb, target) {
            return Ok(());
        }
        self.may_within(verb, target, now, &LIMITS)?;
        self.genuine.note_granted(verb, target);
        Ok(())
    }

    pub(super) fn may_within(
        &self,
        verb: Verb,
        target: &Target<'_>,
        now: Timestamp,
        limits: &AuthorizerLimits,
    ) -> Result<(), Denied> {
        let denied = || Denied::Forbidden { verb, target: target.to_string() };
        let refused = |error: error::Token| why(&error, denied);
        let mut builder = AuthorizerBuilder::new().set_limits(limits.clone());
        let mut facts =
            vec![("operation({value});", Term::from(verb.name())), ("time_us({value});", Term::from(now.0))];
        if let Some(project) = target.project {
            facts.push(("on_project({value});", Term::from(project)));
        }
        match target.pool {
            Some(pool) => facts.push(("on_pool({value});", Term::from(pool_name(pool)))),
            None => facts.push(("on_no_pool({value});", Term::from(true))),
        }
        if verb == Verb::Read && target.pool.is_some() && target.project.is_none() {
            facts.push(("on_pools_alone({value});", Term::from(true)));
        }
        if let Some(build) = target.build {
            facts.push(("on_build({value});", Term::from(i64::try_from(build.0).unwrap_or(i64::MAX))));
        }
        for (code, value) in facts {
            let values = super::token::value_of(value);
            builder = builder.code_with_params(code, values, Default::default()).map_err(|_| denied())?;
        }
        // What a request is about must be granted; what it is not about need not be.
        let mut wanted = vec!["operation($verb), verb($verb)"];
        let mut checks = Vec::new();
        if self.member.is_some() {
            // The member's role grants it; the token's blocks may only limit that.
            wanted = vec!["operation($verb)"];
        } else {
            if target.project.is_some() {
                checks.push("check if every_project(true) or on_project($p), project($p);");
            }
            if target.pool.is_some() {
                // The default pool, by its other name.
                checks.push("check if every_pool(true) or on_pool($p), pool($p) or on_pool(\"default\"), pool(\"\");");
            }
            // All projects share the pools: whoever holds one, or takes its jobs, touches them all.
            let is_of_all = target.pool.is_none() || matches!(verb, Verb::Control | Verb::Admin | Verb::Work);
            if target.project.is_none() && is_of_all {
                // Nothing in particular: the server as a whole, which a grant on some projects does not cover.
                wanted.push("every_project(true)");
            }
        }
        let code = format!("{} allow if {};", checks.join(" "), wanted.join(", "));
        let builder = builder.code(code).map_err(|_| denied())?;
        let mut authorizer = builder.build(&self.genuine.biscuit).map_err(refused)?;
        authorizer.authorize_with_limits(limits.clone()).map(drop).map_err(refused)
    }

    /// Whether the token grants `verb` on the server as a whole.
    ///
    /// # Errors
    /// As [`Bearer::may`].
    pub fn may_everywhere(&self, verb: Verb, now: Timestamp) -> Result<(), Denied> {
        self.may(verb, &Target::SERVER, now)
    }

    /// The pools that the token, narrowed as it is, names, the default one by its name; `None` if it is for every one.
    #[must_use]
    pub fn pools(&self) -> Option<BTreeSet<String>> {
        let granted = self.grant.pools.as_ref();
        let granted = granted.map(|pools| pools.iter().map(|pool| pool_name(pool).to_owned()).collect());
        left_of(granted, self.genuine.limits.get("pools"))
    }

    /// Whether the token, narrowed as it is, is limited to no project.
    #[must_use]
    pub fn is_of_every_project(&self) -> bool {
        self.grant.projects.is_none() && !self.genuine.limits.contains_key("projects")
    }

    /// The end in time that stands in the token, the earliest if it was narrowed; that of a member's session ends the session alone.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        self.genuine.ends
    }

    /// Whether the holder may give somebody else all of this: nobody gives more than the token grants, or for longer. What is given without an end
    /// outlives every end.
    ///
    /// # Errors
    /// As [`Bearer::may`], of the first thing that it does not grant.
    pub fn may_give(&self, wanted: &GrantRequest, now: Timestamp) -> Result<(), Denied> {
        let verbs = wanted.expanded_verbs();
        let Some(&first) = verbs.first() else { return Ok(()) };
        let refused = |target: String| Err(Denied::Forbidden { verb: first, target });
        if !self.genuine.is_read_whole {
            return refused(
                "what is given to others, since it was narrowed by rules that are not Ropewalk's".to_owned(),
            );
        }
        if let Some(end) = self.genuine.ends
            && wanted.until.is_none_or(|until| until > end)
        {
            return refused(format!("anything after {}", Time(end).in_seconds()));
        }
        match (&wanted.pools, self.pools()) {
            (_, None) => {}
            (None, Some(_)) => return refused("every pool".to_owned()),
            (Some(pools), Some(held)) => {
                if let Some(pool) = pools.iter().find(|pool| !held.contains(pool_name(pool))) {
                    return refused(Target::pool(pool).to_string());
                }
            }
        }
        let targets = match &wanted.projects {
            None if !self.is_of_every_project() => return refused("every project".to_owned()),
            None => vec![Target::SERVER],
            Some(projects) => projects.iter().map(|project| Target::project(project)).collect(),
        };
        for verb in verbs {
            for target in &targets {
                self.may_give_verb(verb, target, now)?;
            }
        }
        Ok(())
    }

    fn may_give_verb(&self, verb: Verb, target: &Target<'_>, now: Timestamp) -> Result<(), Denied> {
        if self.genuine.limits.get("verbs").is_some_and(|verbs| !verbs.contains(verb.name())) {
            return Err(Denied::Forbidden { verb, target: target.to_string() });
        }
        // No role has it, and administrators let workers in.
        let is_for_workers = self.member.is_some() && verb == Verb::Work;
        self.may(if is_for_workers { Verb::Admin } else { verb }, target, now)
    }

    /// Whether the token, narrowed as it is, grants `verb` on some project and some pool, and on no build in particular.
    ///
    /// # Errors
    /// As [`Bearer::may`].
    pub fn may_somewhere(&self, verb: Verb, now: Timestamp) -> Result<(), Denied> {
        let some = || BTreeSet::from(["any".to_owned()]);
        let projects = left_of(self.grant.projects.clone(), self.genuine.limits.get("projects")).unwrap_or_else(some);
        let pools = self.pools().unwrap_or_else(some);
        let grants = |project: &&String| {
            self.member.as_ref().is_none_or(|member| member.grants(verb, &Target::project(project)))
        };
        // On each that is left it grants the same.
        let found = projects.iter().find(grants).zip(pools.first());
        let granted = found.map(|(project, pool)| {
            self.may(verb, &Target { project: Some(project), pool: Some(pool), build: None }, now)
        });
        match granted {
            None | Some(Err(Denied::Forbidden { .. })) => {
                Err(Denied::Forbidden { verb, target: "anything".to_owned() })
            }
            Some(answer) => answer,
        }
    }
}
