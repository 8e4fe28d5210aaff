//! Results that a test gives to jobs which are not there: such a test would say nothing.

use std::collections::BTreeSet;

use super::Event;
use crate::json::Json;

/// Adds the names of jobs that a reply holds, and of those whose outcomes it asks for.
pub(super) fn names_of(reply: &Json, names: &mut BTreeSet<String>) {
    let questions = reply.get("questions").map(Json::items).unwrap_or_default();
    let asked = questions.iter().filter_map(|question| question.get("outcome")?.as_str());
    let Some(jobs) = reply.get("document").and_then(|document| document.get("jobs")) else { return };
    // By name, or a list where there are barriers between.
    let by_name = jobs.entries().iter().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with('@'));
    let listed = jobs.items().iter().filter_map(|job| job.get("job")?.as_str());
    names.extend(asked.chain(by_name).chain(listed).map(str::to_owned));
}

/// What is wrong with the results that were given: the first for a job, or a group of jobs, that is not among these names.
pub(super) fn told(event: &Event, names: &BTreeSet<String>) -> Option<String> {
    let is_there = |name: &str| {
        let is_member = |job: &String| job.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
        names.contains(name) || names.iter().any(is_member)
    };
    let name = event.given_names().find(|name| !is_there(name))?;
    let nearest = names.iter().map(|job| (distance(name, job), job)).min();
    let hint = match nearest {
        Some((distance, job)) if distance <= name.len().div_ceil(3) => format!("did you mean `{job}`?"),
        _ => "take it out, or give the jobs before it the results by which the pipeline grows to it".to_owned(),
    };
    Some(format!("the test gives a result to `{name}`, but for this event the pipeline has no such job: {hint}"))
}

/// How many letters must be put in, taken out or replaced to make one name of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{failed, passed, push, run_fn};
    use crate::Ci;
    use crate::testing::{Event, Recorded};

    fn ci(ci: &Ci) {
        let plan = ci.job("plan").run_fn(|_, ()| Ok(vec!["a".to_owned()]));
        ci.then(&plan, |ci, names| names.iter().for_each(|name| drop(ci.job(format!("test/{name}")).run("true"))));
        ci.job("build").run_fn(|_, ()| Ok(1_u8));
    }

    /// What the panic says, if there is one.
    fn told(event: Event) -> Option<String> {
        let run = std::panic::AssertUnwindSafe(|| drop(run_fn::<u8>(ci, event, "build", &Recorded::new())));
        std::panic::catch_unwind(run).err().map(|panic| *panic.downcast::<String>().expect("a text"))
    }

    #[test]
    fn a_result_for_nobody_fails_the_test() {
        let names = || passed().value(&vec!["a".to_owned(), "b".to_owned()]);
        let misspelt = told(push("main").given("biuld", failed(1))).expect("it is told");
        assert!(
            misspelt.contains("gives a result to `biuld`") && misspelt.ends_with("did you mean `build`?"),
            "{misspelt}"
        );
        assert_eq!(told(push("main").given("build", failed(1)).given("plan", names())), None);
        // What has grown is there, and so is the group; what has not is not.
        let grown = || push("main").given("test/b", failed(1)).given("test", failed(1));
        assert_eq!(told(grown().given("plan", names())), None);
        assert!(told(grown()).expect("it is told").contains("grows to it"));
        let far = told(push("main").given("deploy-everything", passed())).expect("it is told");
        assert!(far.contains("take it out"), "{far}");
    }
}
