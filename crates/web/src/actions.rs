//! What forms do: each is a call of the API, and leads to a page afterwards.

use std::collections::BTreeMap;

use graph::Timestamp;
use serde_json::{Map, Value, json};

use crate::paths;

mod settings;

pub(crate) use settings::VERBS;

/// How an action is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It does something.
    Post,
    /// It puts something in its place.
    Put,
    /// It removes something.
    Delete,
}

/// The tests that were chosen, by job: fields whose names begin with `test.`, each a job and the test's line with a tab between
/// them. Of what is no such field nothing is said.
fn chosen(form: &BTreeMap<String, String>) -> BTreeMap<&str, Vec<&str>> {
    let mut tests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let fields = form.iter().filter(|(name, _)| name.starts_with("test."));
    for (job, line) in fields.filter_map(|(_, value)| value.split_once('\t')) {
        tests.entry(job).or_default().push(line);
    }
    tests
}

/// What is shown of the answer itself, once, instead of another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A token that was made.
    NewToken,
    /// What a token's text says.
    Inspected,
    /// A link for a member.
    Invited,
}

/// A form that was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// How it is sent.
    pub method: Method,
    /// The path of the API to which `body` is sent.
    pub path: String,
    /// JSON.
    pub body: Value,
    /// The page that comes next, unless the answer names another build.
    pub next: String,
    /// Set if the answer itself is shown.
    pub shown: Option<Shown>,
}

impl Default for Action {
    fn default() -> Self {
        Self { method: Method::Post, path: String::new(), body: Value::Null, next: "/".to_owned(), shown: None }
    }
}

impl Action {
    /// What a form of this path does; `None` if there is no such form.
    #[must_use]
    pub fn of(path: &[String], form: &BTreeMap<String, String>, now: Timestamp) -> Option<Self> {
        let reason = form.get("reason").map_or("", String::as_str);
        let said = json!({ "reason": reason });
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(match parts.as_slice() {
            ["builds", build, verb @ ("cancel" | "rebuild")] => Self {
                path: format!("/api/v1/builds/{}/{verb}", paths::encoded(build)),
                body: said,
                next: paths::build(paths::encoded(build)),
                ..Self::default()
            },
            ["builds", build, "urge"] => Self {
                path: format!("/api/v1/builds/{}/urge", paths::encoded(build)),
                body: said,
                next: "/queue".to_owned(),
                ..Self::default()
            },
            ["builds", build, "retry"] => {
                let what = form.get("what").map_or("failed", String::as_str);
                Self {
                    path: format!("/api/v1/builds/{}/retry", paths::encoded(build)),
                    body: match form
                        .get("jobs")
                        .filter(|_| what != "tests")
                        .and_then(|jobs| serde_json::from_str::<Value>(jobs).ok())
                    {
                        Some(jobs) => json!({ "what": what, "jobs": jobs, "reason": reason }),
                        None if what == "tests" => json!({ "what": what, "tests": chosen(form), "reason": reason }),
                        None => json!({ "what": what, "reason": reason }),
                    },
                    next: paths::build(paths::encoded(build)),
                    ..Self::default()
                }
            }
            ["builds", build, "jobs", job, verb @ ("cancel" | "retry")] => Self {
                path: format!("{}/{verb}", paths::api_job(paths::encoded(build), job)),
                body: said,
                next: paths::job(paths::encoded(build), job),
                ..Self::default()
            },
            ["builds", build, "gates", job] => Self {
                path: format!("/api/v1/builds/{}/gates/{}", paths::encoded(build), paths::encoded(job)),
                body: answer_of(form, reason),
                next: paths::build(paths::encoded(build)),
                ..Self::default()
            },
            _ => return settings::of(&parts, form, now),
        })
    }

    /// The page after an answer: that of the build it names, if it names another one than was asked about.
    #[must_use]
    pub fn next_after(&self, answer: &[u8]) -> String {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        match answer.get("build").and_then(Value::as_u64) {
            Some(build) if !self.path.starts_with(&format!("/api/v1/builds/{build}/")) => paths::build(build),
            _ => self.next.clone(),
        }
    }
}

/// What was filled in at a gate. A field left empty is an empty text, and what is no number travels as text: so the API says what is wrong with it, and
/// nothing takes a default that nobody saw.
fn answer_of(form: &BTreeMap<String, String>, reason: &str) -> Value {
    if form.get("answer").is_none_or(|answer| answer != "approve") {
        return json!({ "answer": "reject", "reason": reason });
    }
    let mut fields = Map::new();
    for (name, text) in form.iter().filter_map(|(name, text)| Some((name.strip_prefix("field.")?, text))) {
        let as_read = || serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        let value = match form.get(&format!("kind.{name}")).map(String::as_str) {
            Some("number" | "boolean") => as_read(),
            _ => Value::from(text.as_str()),
        };
        fields.insert(name.to_owned(), value);
    }
    json!({ "answer": "approve", "fields": fields, "reason": reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &[&str], form: &[(&str, &str)], expected: Option<(&str, Value)>) {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        let form = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let action = Action::of(&path, &form, Timestamp(0));
        assert_eq!(action.as_ref().map(|it| (it.path.as_str(), it.body.clone())), expected);
    }

    #[test]
    fn forms_are_calls() {
        check(&["builds", "7", "cancel"], &[], Some(("/api/v1/builds/7/cancel", json!({ "reason": "" }))));
        check(
            &["builds", "7", "jobs", "test/1.80", "retry"],
            &[("reason", "flaky")],
            Some(("/api/v1/builds/7/jobs/test%2F1.80/retry", json!({ "reason": "flaky" }))),
        );
        check(&["builds", "7", "urge"], &[], Some(("/api/v1/builds/7/urge", json!({ "reason": "" }))));
        // A part of the path stays a part.
        check(
            &["builds", "7/../8", "cancel"],
            &[],
            Some(("/api/v1/builds/7%2F..%2F8/cancel", json!({ "reason": "" }))),
        );
        check(&["builds", "7"], &[], None);
        check(&["workers", "w", "sell"], &[], None);
    }

    #[test]
    fn answers_at_gates_have_the_types_of_their_fields() {
        let form = [
            ("answer", "approve"),
            ("field.n", "3"),
            ("kind.n", "number"),
            ("field.b", "true"),
            ("kind.b", "boolean"),
            ("field.s", "3"),
            ("kind.s", "string"),
            ("field.empty", ""),
            ("kind.empty", "string"),
            ("field.none", ""),
            ("kind.none", "number"),
        ];
        let fields = json!({ "n": 3, "b": true, "s": "3", "empty": "", "none": "" });
        let body = json!({ "answer": "approve", "fields": fields, "reason": "" });
        check(&["builds", "7", "gates", "ship"], &form, Some(("/api/v1/builds/7/gates/ship", body)));
        let body = json!({ "answer": "reject", "reason": "" });
        check(&["builds", "7", "gates", "ship"], &[], Some(("/api/v1/builds/7/gates/ship", body)));
    }

    #[test]
    fn another_build_is_shown_next() {
        let rebuild =
            Action { path: "/api/v1/builds/7/rebuild".to_owned(), next: "/builds/7".to_owned(), ..Action::default() };
        assert_eq!(rebuild.next_after(br#"{"build":9}"#), "/builds/9");
        assert_eq!(rebuild.next_after(br#"{"build":7}"#), "/builds/7");
        assert_eq!(rebuild.next_after(b""), "/builds/7");
    }
}
