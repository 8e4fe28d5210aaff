//! Members: people with a role on the server or on some of its projects, and what each role may do.
//!
//! A member signs in by tokens that grant nothing by themselves: what such a token lets through follows from the member's roles at each request. So a
//! role that is changed or taken away counts at once, wherever the member is signed in.

use std::collections::{BTreeMap, BTreeSet};

use graph::Timestamp;
use serde::{Deserialize, Serialize};

use super::verb::{Target, Verb};
use crate::one_time::OneTimeLink;
use crate::records::Document;

/// What a member may do. The greater role may do all that the lesser may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Reader,
    /// Works on what is built.
    Developer,
    /// Does everything, members among it.
    Administrator,
}

/// The one table of roles: the verbs that each holds. Being a worker is no person's.
const ROLES: [(Role, &str, &[Verb]); 3] = [
    (Role::Reader, "reader", &[Verb::Read]),
    (Role::Developer, "developer", &[Verb::Read, Verb::Submit, Verb::Control, Verb::Shell]),
    (Role::Administrator, "administrator", &[Verb::Read, Verb::Submit, Verb::Control, Verb::Shell, Verb::Admin]),
];

impl Role {
    fn row(self) -> (Self, &'static str, &'static [Verb]) {
        ROLES[self as usize]
    }

    /// Its name in the API and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What it may do, on what it is held on.
    #[must_use]
    pub fn verbs(self) -> &'static [Verb] {
        self.row().2
    }
}

/// A person, by name, who may sign in. The name is also the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// The person's name: who stands in the audit, at gates and with builds.
    pub name: String,
    /// What sessions are signed in to. With another id the sessions before are worth nothing: those of an earlier member of the same name, and those
    /// that began before a role on something more.
    pub id: String,
    /// The role on the server as a whole and so on every project.
    pub everywhere: Option<Role>,
    /// The roles on single projects.
    pub projects: BTreeMap<String, Role>,
    /// When the member was added.
    pub created: Timestamp,
    /// Who added them.
    pub by: String,
    /// The way to sign in that is open now.
    pub link: Option<OneTimeLink>,
    /// The ids of the tokens by which the member has signed in, the oldest first.
    pub sessions: Vec<String>,
}

impl Document for Member {
    const KIND: &'static str = "member";
}

impl Member {
    /// The role on a target: the greater of that on its project and that on everything. What is about no project needs the latter.
    #[must_use]
    pub fn role_on(&self, target: &Target<'_>) -> Option<Role> {
        self.everywhere.max(target.project.and_then(|project| self.projects.get(project)).copied())
    }

    /// Whether a role of the member's grants `verb` on `target`. Pools, which all projects share, whoever has any role may look at.
    #[must_use]
    pub fn grants(&self, verb: Verb, target: &Target<'_>) -> bool {
        let is_look_at_pool = verb == Verb::Read && target.project.is_none() && target.pool.is_some();
        is_look_at_pool && !self.has_no_role() || self.role_on(target).is_some_and(|role| role.verbs().contains(&verb))
    }

    /// All that the member may do on something.
    #[must_use]
    pub fn verbs(&self) -> BTreeSet<Verb> {
        let roles = self.everywhere.into_iter().chain(self.projects.values().copied());
        roles.flat_map(|role| role.verbs()).copied().collect()
    }

    /// The projects on which the member has a role; `None` means every one.
    #[must_use]
    pub fn projects(&self) -> Option<BTreeSet<String>> {
        self.everywhere.is_none().then(|| self.projects.keys().cloned().collect())
    }

    /// Whether no role is left.
    #[must_use]
    pub fn has_no_role(&self) -> bool {
        self.everywhere.is_none() && self.projects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_its_rows_in_the_order_of_roles() {
        for (index, (role, name, verbs)) in ROLES.iter().enumerate() {
            assert_eq!((*role as usize, role.name(), role.verbs()), (index, *name, *verbs));
            assert!(!verbs.contains(&Verb::Work));
            // The greater may do all that the lesser may.
            assert!(index == 0 || ROLES[index - 1].2.iter().all(|verb| verbs.contains(verb)));
        }
    }

    #[test]
    fn the_greater_of_two_roles_counts() {
        let projects = [("sails".to_owned(), Role::Developer), ("oars".to_owned(), Role::Reader)].into();
        let mut member = Member { projects, ..Member::default() };
        assert_eq!(member.role_on(&Target::SERVER), None);
        assert_eq!(member.role_on(&Target::pool("linux")), None);
        assert_eq!(member.role_on(&Target::project("sails")), Some(Role::Developer));
        assert_eq!(member.role_on(&Target::project("hulls")), None);
        assert!(
            member.grants(Verb::Read, &Target::pool("linux")) && !member.grants(Verb::Control, &Target::pool("linux"))
        );
        assert!(!member.grants(Verb::Read, &Target::SERVER) && !member.grants(Verb::Read, &Target::project("hulls")));
        member.everywhere = Some(Role::Reader);
        assert_eq!(member.role_on(&Target::SERVER), Some(Role::Reader));
        assert_eq!(member.role_on(&Target::project("sails")), Some(Role::Developer));
        member.everywhere = Some(Role::Administrator);
        assert!(member.grants(Verb::Admin, &Target::project("oars")) && !member.grants(Verb::Work, &Target::SERVER));
    }
}
