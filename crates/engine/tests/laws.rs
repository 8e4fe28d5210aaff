//! The outcome table as laws over random outcomes.

use std::sync::Arc;

use graph::outcome::{JobEnd, Scope, fails_build, failures, is_reusable, verdict};
use graph::{
    Ending, Failure, Graph, Job, JobName, Outcome, Retry, RetryOn, SkipReason, Timestamp, Toleration, Verdict,
};
use proptest::prelude::*;

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        (0..3u16, 1..200i32).prop_map(|(step, exit)| Failure::Step { step, exit, message: None }),
        Just(Failure::Timeout { step: None, limit_ms: 1000 }),
        Just(Failure::Infra { message: "disk full".to_owned() }),
        Just(Failure::Lost),
        Just(Failure::Canceled { by: "me".to_owned() }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::passed()),
        failure().prop_map(Outcome::Failed),
        Just(Outcome::Skipped(SkipReason::Dropped)),
    ]
}

fn job() -> impl Strategy<Value = (bool, Option<Outcome>)> {
    (any::<bool>(), proptest::option::of(outcome()))
}

/// The verdict over jobs `j0, j1, …`, each with whether its failure is allowed and its outcome.
fn verdict_of(jobs: &[(bool, Option<Outcome>)]) -> Verdict {
    let mut graph = Graph::default();
    for (index, &(allow_failure, _)) in jobs.iter().enumerate() {
        graph.jobs.insert(format!("j{index}").into(), Arc::new(Job { allow_failure, ..Job::default() }));
    }
    verdict(&graph, |name| {
        let index = index_of(name);
        Some((jobs[index].1.as_ref()?, Timestamp(0)))
    })
}

fn index_of(name: &JobName) -> usize {
    name.as_str()[1..].parse().expect("an index")
}

proptest! {
    #[test]
    fn a_build_fails_because_of_the_job_that_failed_first(ends in proptest::collection::vec((job(), 0..4_i64), 1..6)) {
        let mut graph = Graph::default();
        for (index, &((allow_failure, _), _)) in ends.iter().enumerate() {
            // The pipeline's order is not that of the names.
            let job = Job { allow_failure, order: 10 - index as u32, ..Job::default() };
            graph.jobs.insert(format!("j{index}").into(), Arc::new(job));
        }
        let end_of = |index: usize| Some((ends[index].0.1.as_ref()?, Timestamp(ends[index].1)));
        let names: Vec<JobName> = graph.jobs.keys().cloned().collect();
        let all = names.iter().filter_map(|name| {
            let (outcome, at) = end_of(index_of(name))?;
            Some(JobEnd { name, outcome, at })
        });
        let first = failures(Some(&graph), all).first().filter(|end| fails_build(&graph.jobs[end.name], end.outcome)).copied();
        if let Verdict::Failed { because } = verdict(&graph, |name| end_of(index_of(name))) {
            let because = because.expect("a job");
            let (outcome, at) = end_of(index_of(&because)).expect("it has ended");
            prop_assert_eq!(first.map(|end| end.name), (!outcome.is_canceled()).then_some(&because));
            for name in &names {
                let Some((other, then)) = end_of(index_of(name)) else { continue };
                if fails_build(&graph.jobs[name], other) && other.is_canceled() == outcome.is_canceled() {
                    prop_assert!((at, graph.jobs[&because].order) <= (then, graph.jobs[name].order));
                }
            }
        } else {
            prop_assert_eq!(first, None);
        }
    }

    #[test]
    fn a_verdict_once_failed_stays_and_a_passed_one_waits_for_all(jobs in proptest::collection::vec(job(), 1..6), index in 0..6usize, end in outcome()) {
        let before = verdict_of(&jobs);
        let mut later = jobs.clone();
        let index = index % jobs.len();
        if later[index].1.is_none() {
            later[index].1 = Some(end);
        }
        let after = verdict_of(&later);
        match before {
            Verdict::Failed { .. } => prop_assert!(matches!(after, Verdict::Failed { .. }), "{after:?}"),
            Verdict::Passed { .. } => prop_assert_eq!(after, before),
            _ => prop_assert!(jobs.iter().any(|(_, outcome)| outcome.is_none())),
        }
    }

    #[test]
    fn only_what_would_end_the_same_again_is_reused(outcome in outcome()) {
        let passed = matches!(outcome, Outcome::Passed { .. });
        let by_step = matches!(outcome, Outcome::Failed(Failure::Step { .. }));
        prop_assert_eq!(is_reusable(&outcome, Scope::OtherBuild), passed);
        prop_assert_eq!(is_reusable(&outcome, Scope::SameBuild), passed || by_step);
    }

    #[test]
    fn a_cancellation_is_never_a_warning_and_never_a_failure_by_itself(outcome in outcome(), allow_failure in any::<bool>()) {
        let job = Job { allow_failure, ..Job::default() };
        let ending = Ending::of(&outcome, job.toleration());
        let is_canceled = matches!(outcome, Outcome::Failed(Failure::Canceled { .. }));
        prop_assert_eq!(ending == Ending::Canceled, is_canceled);
        prop_assert!(!(is_canceled && graph::Accepts::FAILURE.holds(ending)));
        let is_forgiven = allow_failure && !is_canceled;
        prop_assert_eq!(fails_build(&job, &outcome), matches!(outcome, Outcome::Failed(_)) && !is_forgiven);
        prop_assert_eq!(job.toleration() == Toleration::AllowFailure, allow_failure);
    }

    #[test]
    fn retries_are_few_wait_longer_and_spare_what_is_the_jobs_own_fault(failure in failure(), max in 0..5u32, number in 1..8u32) {
        let usual = Retry { max, ..Retry::default() };
        let admits = usual.admits(&failure, number);
        prop_assert!(!admits || number <= max);
        prop_assert_eq!(admits, number <= max && matches!(failure, Failure::Infra { .. } | Failure::Lost));
        prop_assert!(usual.wait_ms(number) <= usual.wait_ms(number + 1));
        prop_assert!(usual.wait_ms(number) <= Retry::BACKOFF_MS_MAX);
        let all = Retry { max, on: vec![RetryOn::Infra, RetryOn::Lost, RetryOn::Timeout, RetryOn::Step], backoff_ms: 1 };
        let is_canceled = matches!(failure, Failure::Canceled { .. });
        prop_assert!(!(all.admits(&failure, number) && is_canceled));
    }
}
