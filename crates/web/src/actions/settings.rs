//! The forms about pools, workers, projects, secrets, tokens and caches.

use std::collections::BTreeMap;

use api::time::Time;
use api::token::Verb;
use graph::Timestamp;
use serde_json::{Map, Value, json};

use super::{Action, Method, Shown};
use crate::paths;

/// Microseconds of a day.
const DAY_US: i64 = 24 * 3600 * 1_000_000;
/// All verbs, in the order shown.
pub(crate) const VERBS: [Verb; 6] = [Verb::Read, Verb::Submit, Verb::Control, Verb::Shell, Verb::Work, Verb::Admin];

/// What a form of this path does; `None` if there is no such form.
pub(super) fn of(parts: &[&str], form: &BTreeMap<String, String>, now: Timestamp) -> Option<Action> {
    let text = |name: &str| form.get(name).map_or("", |text| text.trim());
    let reason = json!({ "reason": text("reason") });
    let action = match *parts {
        ["workers", worker, "forget"] => Action {
            method: Method::Delete,
            path: format!("/api/v1/workers/{}?reason={}", paths::encoded(worker), paths::encoded(text("reason"))),
            next: "/queue".to_owned(),
            ..Action::default()
        },
        ["workers", worker, verb @ ("pause" | "resume" | "drain" | "update")] => Action {
            path: format!("/api/v1/workers/{}/{verb}", paths::encoded(worker)),
            body: reason,
            next: "/queue".to_owned(),
            ..Action::default()
        },
        ["pools", pool, verb @ ("hold" | "release")] => Action {
            path: format!("/api/v1/pools/{}/{verb}", paths::encoded(pool)),
            body: reason,
            next: "/queue".to_owned(),
            ..Action::default()
        },
        ["projects", project, ref rest @ ..] => return of_project(project, rest, form),
        ["settings", "members", ref rest @ ..] => return of_members(rest, form, None, "/settings/members".to_owned()),
        ["settings", "tokens"] => Action {
            path: "/api/v1/tokens".to_owned(),
            body: grant(form, now),
            next: "/settings/tokens".to_owned(),
            shown: Some(Shown::NewToken),
            ..Action::default()
        },
        ["settings", "tokens", token, "revoke"] => Action {
            method: Method::Delete,
            path: format!("/api/v1/tokens/{}", paths::encoded(token)),
            next: "/settings/tokens".to_owned(),
            ..Action::default()
        },
        ["settings", "narrow"] => Action {
            path: "/api/v1/tokens/narrow".to_owned(),
            body: Value::Object(limits(form, now)),
            next: "/settings".to_owned(),
            shown: Some(Shown::NewToken),
            ..Action::default()
        },
        ["settings", "inspect"] => Action {
            path: "/api/v1/tokens/inspect".to_owned(),
            body: json!({ "token": text("token") }),
            next: "/settings".to_owned(),
            shown: Some(Shown::Inspected),
            ..Action::default()
        },
        ["settings", "caches", "evict"] => {
            let named = ["digest", "job", "scope", "key"].into_iter().filter(|name| form.contains_key(*name));
            let mut body: Map<String, Value> =
                named.map(|name| (name.to_owned(), Value::from(form[name].as_str()))).collect();
            body.insert("what".to_owned(), Value::from(text("what")));
            body.insert("reason".to_owned(), Value::from(text("reason")));
            Action {
                path: "/api/v1/caches/evict".to_owned(),
                body: Value::Object(body),
                next: "/settings/caches".to_owned(),
                ..Action::default()
            }
        }
        _ => return None,
    };
    Some(action)
}

fn of_project(project: &str, rest: &[&str], form: &BTreeMap<String, String>) -> Option<Action> {
    let text = |name: &str| form.get(name).map_or("", |text| text.trim());
    let api = format!("/api/v1/projects/{}", paths::encoded(project));
    let next = format!("{}/settings", paths::project(project));
    Some(match *rest {
        ["members", ref rest @ ..] => return of_members(rest, form, Some(project), next),
        ["settings"] => Action { method: Method::Put, path: api, body: settings(form), next, ..Action::default() },
        // What is deleted for good is named by who deletes it.
        ["remove"] if text("name") == project => {
            Action { method: Method::Delete, path: api, next: "/".to_owned(), ..Action::default() }
        }
        ["quarantine", ref rest @ ..] => return of_quarantine(project, rest, form),
        ["secrets"] => Action {
            method: Method::Put,
            path: format!("{api}/secrets/{}", paths::encoded(text("secret"))),
            body: json!({ "value": secret_value(form.get("value").map_or("", String::as_str)) }),
            next,
            ..Action::default()
        },
        ["secrets", secret, "remove"] => Action {
            method: Method::Delete,
            path: format!("{api}/secrets/{}", paths::encoded(secret)),
            next,
            ..Action::default()
        },
        _ => return None,
    })
}

/// A secret's value as it was typed, blanks and all: browsers send each line's end as two letters, of which a key has one, and a last one is left out, as
/// `ropewalk secrets put` does.
fn secret_value(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned)
}

/// A test that is put into quarantine, or taken out.
fn of_quarantine(project: &str, rest: &[&str], form: &BTreeMap<String, String>) -> Option<Action> {
    // Names as their reports have them: blanks may belong to them.
    let as_typed = |name: &str| form.get(name).map_or("", String::as_str);
    let text = |name: &str| as_typed(name).trim();
    let path = format!("/api/v1/projects/{}/quarantine", paths::encoded(project));
    let next = format!("{}/quarantine", paths::project(project));
    let job = Some(text("job")).filter(|job| !job.is_empty());
    Some(match *rest {
        [] => {
            let mut body = json!({
                "suite": as_typed("suite"), "name": as_typed("name"), "owner": text("owner"), "reason": text("reason"),
                "until": api::quarantine::end_of(text("until")),
            });
            if let Some(job) = job {
                body["job"] = Value::from(job);
            }
            Action { method: Method::Put, path, body, next, ..Action::default() }
        }
        ["remove"] => {
            let of_job = job.map_or_else(String::new, |job| format!("&job={}", paths::encoded(job)));
            let [name, suite] = ["name", "suite"].map(|name| paths::encoded(as_typed(name)));
            Action {
                method: Method::Delete,
                path: format!("{path}?name={name}&suite={suite}{of_job}"),
                next,
                ..Action::default()
            }
        }
        _ => return None,
    })
}

/// What is done about members: all of them, or those of one project.
fn of_members(rest: &[&str], form: &BTreeMap<String, String>, project: Option<&str>, next: String) -> Option<Action> {
    let text = |name: &str| form.get(name).map_or("", |text| text.trim());
    let project = project.or(Some(text("project")).filter(|project| !project.is_empty()));
    let mut body = json!({ "role": text("role") });
    if let Some(project) = project {
        body["project"] = Value::from(project);
    }
    let api = "/api/v1/members".to_owned();
    Some(match *rest {
        [] => {
            body["name"] = Value::from(text("name"));
            Action { path: api, body, next, shown: Some(Shown::Invited), ..Action::default() }
        }
        [member, "role"] => Action {
            method: Method::Put,
            path: format!("{api}/{}", paths::encoded(member)),
            body,
            next,
            ..Action::default()
        },
        [member, "link"] => Action {
            path: format!("{api}/{}/link", paths::encoded(member)),
            next,
            shown: Some(Shown::Invited),
            ..Action::default()
        },
        [member, "remove"] => {
            let of = match project {
                Some(project) => format!("?project={}", paths::encoded(project)),
                None if text("everywhere") == "true" => "?everywhere=true".to_owned(),
                None => String::new(),
            };
            Action {
                method: Method::Delete,
                path: format!("{api}/{}{of}", paths::encoded(member)),
                next,
                ..Action::default()
            }
        }
        _ => return None,
    })
}

/// A text as the JSON that its form means; one that is none travels as it is, so that the API says what is wrong with it.
fn as_read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// The settings of a project; what was left empty is the server's.
fn settings(form: &BTreeMap<String, String>) -> Value {
    const TEXTS: [&str; 3] = ["description", "pool", "default_branch"];
    const VALUES: [&str; 5] = ["auto_cancel", "keep_days", "keep_builds", "quota_bytes", "public_badge"];
    let mut settings = Map::new();
    for (name, text) in
        form.iter().map(|(name, text)| (name.as_str(), text.trim())).filter(|(_, text)| !text.is_empty())
    {
        if TEXTS.contains(&name) {
            settings.insert(name.to_owned(), Value::from(text));
        } else if VALUES.contains(&name) {
            settings.insert(name.to_owned(), as_read(text));
        } else if name == "tags" {
            settings.insert(name.to_owned(), json!(names(text)));
        }
    }
    Value::Object(settings)
}

/// The names in a text, apart by blanks or commas.
fn names(text: &str) -> Vec<&str> {
    text.split([',', ' ', '\n', '\t', '\r']).filter(|name| !name.is_empty()).collect()
}

/// What a form limits a token to: verbs that were ticked, projects, pools, days.
fn limits(form: &BTreeMap<String, String>, now: Timestamp) -> Map<String, Value> {
    let mut limits = Map::new();
    let verbs: Vec<&str> =
        VERBS.iter().map(|verb| verb.name()).filter(|verb| form.contains_key(&format!("verb.{verb}"))).collect();
    if !verbs.is_empty() {
        limits.insert("verbs".to_owned(), json!(verbs));
    }
    for name in ["projects", "pools"] {
        let wanted = names(form.get(name).map_or("", String::as_str));
        if !wanted.is_empty() {
            limits.insert(name.to_owned(), json!(wanted));
        }
    }
    match form.get("days").map_or("", |days| days.trim()) {
        "" => {}
        days => {
            let until = days.parse().ok().filter(|days| (1..=36_500).contains(days));
            let until = until.map(|days: i64| json!(Time(Timestamp(now.0 + days * DAY_US))));
            limits.insert("expires".to_owned(), until.unwrap_or_else(|| Value::from(days)));
        }
    }
    limits
}

/// What a new token grants.
fn grant(form: &BTreeMap<String, String>, now: Timestamp) -> Value {
    let text = |name: &str| form.get(name).map_or("", |text| text.trim());
    let mut grant = limits(form, now);
    grant.entry("verbs").or_insert_with(|| json!([]));
    grant.insert("kind".to_owned(), Value::from(text("kind")));
    grant.insert("name".to_owned(), Value::from(text("name")));
    Value::Object(grant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &[&str], form: &[(&str, &str)], expected: Option<(Method, &str, Value)>) {
        let form = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let action = of(path, &form, Timestamp(0));
        assert_eq!(action.as_ref().map(|it| (it.method, it.path.as_str(), it.body.clone())), expected);
    }

    #[test]
    fn settings_are_put_as_a_whole() {
        let form = [
            ("description", "a b"),
            ("keep_days", "7"),
            ("pool", ""),
            ("auto_cancel", "true"),
            ("quota_bytes", "x"),
            ("tags", " web, core "),
        ];
        let body = json!({ "description": "a b", "keep_days": 7, "auto_cancel": true, "quota_bytes": "x", "tags": ["web", "core"] });
        check(&["projects", "sails", "settings"], &form, Some((Method::Put, "/api/v1/projects/sails", body)));
        let body = json!({ "value": " hush " });
        let form = [("secret", "A/B"), ("value", " hush ")];
        check(
            &["projects", "sails", "secrets"],
            &form,
            Some((Method::Put, "/api/v1/projects/sails/secrets/A%2FB", body)),
        );
        for (typed, value) in [("a\r\nb\r\n", "a\nb"), ("a\n\n", "a\n"), (" a", " a"), ("a\rb", "a\rb")] {
            let path = "/api/v1/projects/sails/secrets/KEY";
            let form = [("secret", "KEY"), ("value", typed)];
            check(&["projects", "sails", "secrets"], &form, Some((Method::Put, path, json!({ "value": value }))));
        }
        check(&["projects", "sails", "remove"], &[("name", "sail")], None);
    }

    #[test]
    fn members_are_of_the_server_or_of_a_project() {
        let form = [("name", " Ann B. "), ("role", "reader"), ("project", "")];
        let body = json!({ "name": "Ann B.", "role": "reader" });
        check(&["settings", "members"], &form, Some((Method::Post, "/api/v1/members", body)));
        // The path says which project, whatever the form does.
        let form = [("name", "ann"), ("role", "developer"), ("project", "masts")];
        let body = json!({ "name": "ann", "role": "developer", "project": "sails" });
        check(&["projects", "sails", "members"], &form, Some((Method::Post, "/api/v1/members", body)));
        let body = json!({ "role": "developer", "project": "masts" });
        check(&["settings", "members", "Ann B.", "role"], &form, Some((Method::Put, "/api/v1/members/Ann%20B.", body)));
        let path = "/api/v1/members/ann?project=sails";
        check(&["projects", "sails", "members", "ann", "remove"], &[], Some((Method::Delete, path, Value::Null)));
        check(
            &["settings", "members", "ann", "remove"],
            &[],
            Some((Method::Delete, "/api/v1/members/ann", Value::Null)),
        );
        let everywhere = [("everywhere", "true")];
        let path = "/api/v1/members/ann?everywhere=true";
        check(&["settings", "members", "ann", "remove"], &everywhere, Some((Method::Delete, path, Value::Null)));
        // A project's page takes what stands there, whatever the form says.
        let path = "/api/v1/members/ann?project=sails";
        check(
            &["projects", "sails", "members", "ann", "remove"],
            &everywhere,
            Some((Method::Delete, path, Value::Null)),
        );
        check(
            &["settings", "members", "ann", "link"],
            &[],
            Some((Method::Post, "/api/v1/members/ann/link", Value::Null)),
        );
        check(&["settings", "members", "ann", "praise"], &[], None);
    }

    #[test]
    fn tests_go_into_quarantine_until_the_end_of_a_day() {
        let form = [
            ("suite", "s "),
            ("name", "a b"),
            ("job", ""),
            ("owner", " ann "),
            ("reason", "x"),
            ("until", "2026-12-01"),
        ];
        let body =
            json!({ "suite": "s ", "name": "a b", "owner": "ann", "reason": "x", "until": "2026-12-01T23:59:59Z" });
        check(
            &["projects", "sails", "quarantine"],
            &form,
            Some((Method::Put, "/api/v1/projects/sails/quarantine", body)),
        );
        let form = [("name", "a&b"), ("job", "unit/1")];
        let path = "/api/v1/projects/sails/quarantine?name=a%26b&suite=&job=unit%2F1";
        check(&["projects", "sails", "quarantine", "remove"], &form, Some((Method::Delete, path, Value::Null)));
    }

    #[test]
    fn tokens_grant_what_was_ticked() {
        let form = [("kind", "client"), ("name", "ci"), ("verb.read", "on"), ("projects", "a, b"), ("days", "1")];
        let body = json!({ "kind": "client", "name": "ci", "verbs": ["read"], "projects": ["a", "b"], "expires": "1970-01-02T00:00:00.000000Z" });
        check(&["settings", "tokens"], &form, Some((Method::Post, "/api/v1/tokens", body)));
        let form = [("days", "soon")];
        check(
            &["settings", "narrow"],
            &form,
            Some((Method::Post, "/api/v1/tokens/narrow", json!({ "expires": "soon" }))),
        );
    }
}
