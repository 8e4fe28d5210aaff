//! Builds that nobody runs any more, and that end without being run.

use std::time::Duration;

use engine::{Engine, Fact, Input, fact::What};
use graph::{BuildId, JobName, Verdict, WorkerId};
use store::rows::BuildRow;
use store::{Claim, Store};

use crate::child;
use crate::commands::Stop;
use crate::local::clock::now;
use crate::local::world::WORKER;

/// How often it is looked whether a process is gone that was killed with what had started it.
const DYING_LOOKS_MAX: u32 = 25;
/// How long between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Ends a build that this process has claimed: one that was asked for and has not begun, that waits for a person, or whose process was
/// killed. Gives what to say of it.
///
/// # Errors
/// As the store refuses.
pub fn give_up(store: &dyn Store, build: &BuildRow, by: &str) -> Result<String, Stop> {
    let number = build.build;
    if child::is_request(build) {
        let verdict = Verdict::Canceled { by: by.to_owned() };
        store.append(&[Fact { build: number, at: now(), what: What::BuildEnded { verdict } }])?;
        return Ok(format!("build {number} is given up: it had not begun"));
    }
    let mut engine = Engine::new();
    for fact in &store.facts(number)? {
        engine.apply(fact);
    }
    // What ran is lost: its process died, and whatever it had started with it.
    let left = Input::WorkerLeft { worker: WorkerId(WORKER.into()) };
    let ends = engine.step(now(), vec![left, Input::CancelRequested { build: number, by: by.to_owned() }]);
    store.append(&ends.facts)?;
    if ends.facts.iter().any(|fact| matches!(fact.what, What::BuildEnded { .. })) {
        return Ok(format!("build {number} is given up: no process ran it"));
    }
    Ok(format!(
        "build {number} is canceled; what cleans up after it has not run: `ropewalk run --resume {number}` runs that, and nothing else"
    ))
}

/// Ends the builds for which jobs of `build` waited, or this job of it, and which nobody runs: their processes died with the attempts that
/// had asked for them, and the next attempt asks anew. So it is with those that these had asked for. Gives what to say of each.
///
/// # Errors
/// As the store refuses.
pub fn children_left(store: &dyn Store, build: BuildId, job: Option<&JobName>) -> Result<Vec<String>, Stop> {
    let mut said = Vec::new();
    let mut above = vec![(build, job.cloned())];
    while let Some((build, job)) = above.pop() {
        for number in store.unfinished()?.into_iter().filter(|number| *number > build) {
            let is_left = |row: &BuildRow| {
                let parent = row.event.parent.as_ref().filter(|_| child::has_waiting_job(row));
                parent.is_some_and(|parent| parent.build == build && job.as_ref().is_none_or(|job| *job == parent.job))
            };
            if store.build(number)?.as_ref().is_none_or(|row| !is_left(row)) {
                continue;
            }
            let Some(_claim) = claim(store, number)? else { continue };
            // Whoever ran it may have ended it before it could be claimed.
            let Some(row) = store.build(number)?.filter(|row| row.verdict == Verdict::Running) else { continue };
            let asker = row.event.parent.as_ref().map(|parent| parent.job.to_string()).unwrap_or_default();
            said.push(give_up(store, &row, &format!("the end of job `{asker}` of build {build}"))?);
            above.push((number, None));
        }
    }
    Ok(said)
}

/// The claim on a build, also if the process that has it is just dying; `None` if it lives on.
fn claim(store: &dyn Store, build: BuildId) -> Result<Option<Claim>, Stop> {
    for _ in 0..DYING_LOOKS_MAX {
        if let Some(claim) = store.claim(build)? {
            return Ok(Some(claim));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use graph::Waits;

    use super::*;
    use crate::places::kept::Kept;

    #[test]
    fn children_whose_process_died_end_with_those_below_them() {
        let mut kept = Kept::new();
        kept.build(&["a"]).lease("a");
        kept.child(1, Waits::ForVerdict).lease("a");
        kept.child(2, Waits::ForVerdict).lease("a");
        // Nobody waits for this one, somebody runs that one, and a third belongs to another build.
        kept.child(1, Waits::No);
        kept.child(1, Waits::ForVerdict).lease("a");
        kept.build(&["a"]).lease("a");
        kept.child(6, Waits::ForVerdict).lease("a");
        let store = kept.store();
        let _claim = store.claim(BuildId(5)).expect("the store answers").expect("it is free");
        assert_eq!(children_left(store, BuildId(1), Some(&"b".into())).map_err(|stop| stop.message), Ok(Vec::new()));
        let said = children_left(store, BuildId(1), Some(&"a".into())).map_err(|stop| stop.message);
        let given_up = |number| format!("build {number} is given up: no process ran it");
        assert_eq!(said, Ok(vec![given_up(2), given_up(3)]));
        let verdict = |number| store.build(BuildId(number)).expect("the store answers").expect("it is there").verdict;
        assert_eq!(verdict(2), Verdict::Canceled { by: "the end of job `a` of build 1".to_owned() });
        assert_eq!(verdict(3), Verdict::Canceled { by: "the end of job `a` of build 2".to_owned() });
        for number in [1, 4, 5, 6, 7] {
            assert_eq!(verdict(number), Verdict::Running, "{number}");
        }
    }
}
