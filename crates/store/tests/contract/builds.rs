//! Builds, their facts and rows, operations, caches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;

use engine::fact::{Ended, What};
use engine::operation::Manifest;
use graph::{
    AttemptNumber, BuildId, EventKind, Failure, Graph, Job, JobName, Outcome, SkipReason, Timestamp, Trust, Verdict,
};
use ropewalk_store::cache::{CacheAct, CacheRow, CacheTotals, CacheUse, CacheUser, CacheWanted, Saved, cache_uses};
use ropewalk_store::rows::{Counts, JobState, OperationRow, OperationTotals, Replaced, VerdictWord};
use ropewalk_store::{BuildFilter, FaultyStore, MemoryStore, Store, StoreError};

use crate::check;
use crate::sample::{self, artifact, at, created, digest, fact, failed, finished, leased, passed};

pub fn begun(store: &dyn Store) -> BuildId {
    let build = store.reserve_build().unwrap();
    store.append(&[created(build)]).unwrap();
    build
}

pub fn ended(build: BuildId, verdict: Verdict) -> engine::Fact {
    fact(build, 90, What::BuildEnded { verdict })
}

#[test]
pub fn numbers_of_builds_begin_at_one_and_are_never_given_twice() {
    check(|store| {
        assert_eq!(store.reserve_build().unwrap(), BuildId(1));
        let drawn = thread::scope(|scope| {
            let draw = || (0..20).map(|_| store.reserve_build().unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(drawn, (2..=81).map(BuildId).collect());
    });
}

#[test]
pub fn facts_come_back_as_they_were_and_in_order() {
    check(|store| {
        let (one, two) = (begun(store), begun(store));
        let facts: Vec<_> = sample::every_kind(one).into_iter().skip(1).collect();
        for (index, fact) in facts.iter().enumerate() {
            // Builds mixed in one append, and appends of one.
            let other = leased(two, "a", u32::try_from(index).unwrap() + 1);
            store.append(&[other, fact.clone()]).unwrap();
        }
        let expected: Vec<_> = [created(one)].into_iter().chain(facts).collect();
        assert_eq!(store.facts(one).unwrap(), expected);
        assert_eq!(store.facts(two).unwrap().len(), expected.len());
        assert_eq!(store.facts(BuildId(99)).unwrap(), []);
    });
}

#[test]
pub fn a_refused_append_leaves_nothing() {
    check(|store| {
        let build = begun(store);
        let refused = store.append(&[leased(build, "a", 1), leased(BuildId(77), "a", 1), leased(build, "b", 2)]);
        assert!(matches!(refused, Err(StoreError::NoBuild(BuildId(77)))), "{refused:?}");
        assert_eq!(store.facts(build).unwrap(), [created(build)]);
        assert_eq!(store.jobs(build).unwrap(), []);
        store.append(&[leased(build, "b", 1)]).unwrap();
        assert_eq!(store.jobs(build).unwrap().len(), 1);
    });
}

#[test]
pub fn no_build_takes_the_place_of_another() {
    check(|store| {
        let build = begun(store);
        store.append(&[leased(build, "a", 1)]).unwrap();
        let twice = [created(BuildId(77)), created(BuildId(77))];
        for refused in [&[created(build)][..], &[leased(build, "b", 2), created(build)], &twice] {
            let refused = store.append(refused);
            assert!(matches!(refused, Err(StoreError::NotEmpty)), "{refused:?}");
        }
        assert_eq!(store.facts(build).unwrap(), [created(build), leased(build, "a", 1)]);
        assert_eq!(store.facts(BuildId(77)).unwrap(), []);
        store.append(&[leased(build, "b", 2)]).unwrap();
        assert_eq!(store.jobs(build).unwrap().len(), 2);
    });
}

#[test]
pub fn an_empty_append_does_nothing() {
    check(|store| store.append(&[]).unwrap());
}

#[test]
pub fn builds_without_an_end_are_unfinished() {
    check(|store| {
        let (one, two, three) = (begun(store), begun(store), begun(store));
        store.append(&[ended(two, Verdict::Passed { note: None })]).unwrap();
        assert_eq!(store.unfinished().unwrap(), [one, three]);
        let retried = What::JobRetried { job: "a".into(), by: "ann".to_owned(), tests: None, key: None };
        store.append(&[fact(two, 95, retried)]).unwrap();
        assert_eq!(store.unfinished().unwrap(), [one, two, three]);
    });
}

#[test]
pub fn a_row_of_a_job_follows_its_facts() {
    check(|store| {
        let build = begun(store);
        let job = |store: &dyn Store| store.jobs(build).unwrap().remove(0);
        store.append(&[leased(build, "a", 1)]).unwrap();
        assert_eq!((job(store).state, job(store).started, job(store).attempts), (JobState::Running, Some(at(10)), 1));

        let lost = Outcome::Failed(Failure::Lost);
        store.append(&[finished(build, "a", 1, lost, Some(at(30)))]).unwrap();
        assert_eq!((job(store).state, job(store).retry_at), (JobState::Waiting, Some(at(30))));
        assert_eq!(store.build(build).unwrap().unwrap().counts, Counts::default());

        store.append(&[leased(build, "a", 2), finished(build, "a", 2, failed(3), None)]).unwrap();
        let row = job(store);
        assert_eq!((row.state, row.outcome, row.finished), (JobState::Ended, Some(failed(3)), Some(at(20))));
        assert_eq!((row.attempts, row.attempt, row.retry_at), (2, Some(AttemptNumber(2)), None));
        assert_eq!(store.build(build).unwrap().unwrap().counts, Counts { failed: 1, ..Counts::default() });

        let retried = What::JobRetried { job: "a".into(), by: "ann".to_owned(), tests: None, key: None };
        store.append(&[fact(build, 40, retried)]).unwrap();
        assert_eq!((job(store).state, job(store).outcome), (JobState::Waiting, None));
        assert_eq!(store.build(build).unwrap().unwrap().counts, Counts::default());

        store.append(&[leased(build, "a", 3), finished(build, "a", 3, passed(), None)]).unwrap();
        assert_eq!(store.build(build).unwrap().unwrap().counts, Counts { passed: 1, ..Counts::default() });
        let attempts = store.attempts(build, Some(&"a".into())).unwrap();
        let words: Vec<_> = attempts.iter().map(|row| row.ended.as_ref().unwrap().outcome.word()).collect();
        assert_eq!(words, ["failed", "failed", "passed"]);
        assert_eq!(store.attempts(build, Some(&"b".into())).unwrap(), []);
    });
}

#[test]
pub fn counts_tell_endings_apart() {
    check(|store| {
        let build = begun(store);
        let canceled = Outcome::Failed(Failure::Canceled { by: "ann".to_owned() });
        let skipped = Outcome::Skipped(graph::SkipReason::Dropped);
        store
            .append(&[
                leased(build, "a", 1),
                finished(build, "a", 1, canceled, None),
                sample::decided(build, "b", skipped),
                sample::reused(build, "c", BuildId(7)),
            ])
            .unwrap();
        let counts = store.build(build).unwrap().unwrap().counts;
        assert_eq!(counts, Counts { passed: 1, failed: 0, canceled: 1, skipped: 1, reused: 1 });
        assert_eq!(counts.ended(), 3);
    });
}

#[test]
pub fn reports_and_tests_are_found_again() {
    check(|store| {
        let build = begun(store);
        let mut facts = Vec::new();
        // More than fits one row of facts.
        for number in 1..=400 {
            facts.extend([leased(build, "a", number), sample::with_tests(build, "a", number)]);
        }
        facts.extend([leased(build, "b", 500), finished(build, "b", 500, passed(), None), leased(build, "c", 501)]);
        store.append(&facts).unwrap();
        let reports = store.reports(build, None).unwrap();
        assert_eq!(reports.len(), 401);
        for (attempt, report) in &reports[..400] {
            assert_eq!(report.tests[1].name, format!("test of {attempt}"));
        }
        let tests = store.tests(build).unwrap();
        assert_eq!(tests.len(), 800);
        assert_eq!((tests[1].attempt, tests[1].case.name.as_str()), (AttemptNumber(1), "test of 1"));
        let end = store.attempts(build, Some(&"a".into())).unwrap()[0].ended.clone().unwrap();
        assert_eq!((end.tests, end.tests_failed), (2, 1));
        assert_eq!(store.reports(build, Some(&"b".into())).unwrap().len(), 1);
    });
}

#[test]
pub fn the_graph_is_the_last_one_evaluated() {
    check(|store| {
        let (one, two) = (begun(store), begun(store));
        assert_eq!(store.graph(one).unwrap(), None);
        let graph = |names: &[&str]| {
            let jobs = names.iter().map(|&name| (JobName::from(name), Arc::new(Job::default()))).collect();
            Arc::new(Graph { name: "ci".to_owned(), jobs, ..Graph::default() })
        };
        for (build, names) in [(one, vec!["a"]), (two, vec!["a"]), (one, vec!["a", "b"])] {
            store.append(&[sample::evaluated(build, graph(&names))]).unwrap();
        }
        assert_eq!(store.graph(one).unwrap(), Some(graph(&["a", "b"])));
        assert_eq!(store.graph(two).unwrap(), Some(graph(&["a"])));
        let row = store.build(one).unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.jobs, row.errors, row.warnings), ("ci", 2, 0, 1));
        // The other build's graph stays when one goes.
        store.delete_build(one).unwrap().unwrap();
        assert_eq!(store.graph(two).unwrap(), Some(graph(&["a"])));
        assert_eq!(store.facts(two).unwrap()[1], sample::evaluated(two, graph(&["a"])));
    });
}

#[test]
pub fn builds_are_listed_newest_first_page_by_page() {
    check(|store| {
        for number in 1..=5 {
            let build = store.reserve_build().unwrap();
            let mut fact = created(build);
            if let What::BuildCreated(request) = &mut fact.what {
                request.event.branch = Some(if number == 2 { "topic" } else { "main" }.to_owned());
            }
            store.append(&[fact]).unwrap();
        }
        store.append(&[ended(BuildId(4), Verdict::Failed { because: None })]).unwrap();
        let listed = |filter: &BuildFilter, before, limit| {
            let rows = store.builds(filter, before, limit).unwrap();
            let versions = store.build_versions(filter, before, limit).unwrap();
            let facts = |build: BuildId| store.facts(build).unwrap().len() as u64;
            assert_eq!(versions, rows.iter().map(|row| (row.build, facts(row.build))).collect::<Vec<_>>());
            rows.into_iter().map(|row| row.build.0).collect::<Vec<_>>()
        };
        let all = BuildFilter::default();
        assert_eq!(listed(&all, None, 2), [5, 4]);
        assert_eq!(listed(&all, Some(BuildId(4)), 2), [3, 2]);
        assert_eq!(listed(&all, Some(BuildId(1)), 2), [0; 0]);
        assert_eq!(listed(&all, None, 0), [0; 0]);
        let main = BuildFilter { branch: Some("main".to_owned()), ..BuildFilter::default() };
        assert_eq!(listed(&main, Some(BuildId(4)), 9), [3, 1]);
        let failed = BuildFilter { verdict: Some(VerdictWord::Failed), ..main.clone() };
        assert_eq!(listed(&failed, None, 9), [4]);
        let running = BuildFilter { verdict: Some(VerdictWord::Running), ..BuildFilter::default() };
        assert_eq!(listed(&running, None, 9), [5, 3, 2, 1]);
        let pushes = BuildFilter { kind: Some(EventKind::Push), ..BuildFilter::default() };
        assert_eq!(listed(&pushes, None, 9), [0; 0]);
        let pipeline = BuildFilter { pipeline: Some("other.yaml".to_owned()), ..BuildFilter::default() };
        assert_eq!(listed(&pipeline, None, 9), [0; 0]);
        store.append(&[ended(BuildId(5), Verdict::Failed { because: None })]).unwrap();
        assert_eq!(listed(&failed, None, 9), [5, 4]);
        store.delete_build(BuildId(5)).unwrap().unwrap();
        assert_eq!(listed(&failed, None, 9), [4]);
    });
}

#[test]
pub fn barriers_count_as_no_jobs() {
    check(|store| {
        let build = begun(store);
        let jobs = ["a", "wait:1", "b"].map(|name| (name.into(), Arc::new(Job::default())));
        let ended =
            |job: &str, outcome| fact(build, 14, What::JobEnded { job: job.into(), outcome, how: Ended::Decided });
        store.append(&[sample::evaluated(build, Arc::new(Graph { jobs: jobs.into(), ..Graph::default() }))]).unwrap();
        store.append(&[ended("a", passed()), ended("wait:1", passed())]).unwrap();
        let told = || store.build(build).unwrap().map(|row| (row.jobs, row.counts)).unwrap();
        let counts = Counts { passed: 1, ..Counts::default() };
        assert_eq!(told(), (2, counts));
        assert_eq!(store.jobs(build).unwrap().len(), 2, "its row is there");
        store
            .append(&[fact(
                build,
                15,
                What::JobRetried { job: "wait:1".into(), by: "ann".to_owned(), tests: None, key: None },
            )])
            .unwrap();
        assert_eq!(told(), (2, counts));
    });
}

#[test]
pub fn gates_open_and_are_answered_once() {
    check(|store| {
        let build = begun(store);
        let open_gate =
            |job: &str| fact(build, 11, What::GateOpened { job: job.into(), prompt: format!("deploy {job}?") });
        let answer = |job: &str, by: &str, answer| {
            let (by, reason) = (by.to_owned(), format!("{by} knows why"));
            fact(build, 12, What::GateAnswered { job: job.into(), answer, by, reason })
        };
        store.append(&[open_gate("b"), open_gate("a"), open_gate("a"), answer("c", "eve", None)]).unwrap();
        let jobs: Vec<_> = store.open_gates(build).unwrap().into_iter().map(|gate| gate.job).collect();
        assert_eq!(jobs, [JobName::from("a"), "b".into()]);
        assert_eq!(store.build(build).unwrap().unwrap().open_gates, 2);
        let yes = BTreeMap::from([("version".to_owned(), "1.2".into())]);
        store.append(&[answer("a", "ann", Some(yes.clone())), answer("a", "eve", None)]).unwrap();
        let answered = store.gates(build).unwrap().remove(0).answered.unwrap();
        assert_eq!((answered.answer, answered.by.as_str()), (Some(yes), "ann"));
        assert_eq!(answered.reason, "ann knows why");
        assert_eq!(store.build(build).unwrap().unwrap().open_gates, 1);
        // A job that is tried again asks again.
        store.append(&[open_gate("a")]).unwrap();
        assert_eq!(store.open_gates(build).unwrap().len(), 2);
        // Whoever canceled its job answered nothing, and nobody is asked any more.
        let outcome = Outcome::Failed(Failure::Canceled { by: "ann".to_owned() });
        store.append(&[fact(build, 13, What::JobEnded { job: "a".into(), outcome, how: Ended::Decided })]).unwrap();
        let open = || (store.open_gates(build).unwrap().len(), store.build(build).unwrap().unwrap().open_gates);
        assert_eq!(open(), (1, 1));
        // Nor is anybody of a job that was skipped, until it is put back.
        let outcome = Outcome::Skipped(SkipReason::Dropped);
        store.append(&[fact(build, 14, What::JobEnded { job: "b".into(), outcome, how: Ended::Decided })]).unwrap();
        assert_eq!(open(), (0, 0));
        store
            .append(&[fact(
                build,
                15,
                What::JobRetried { job: "b".into(), by: "ann".to_owned(), tests: None, key: None },
            )])
            .unwrap();
        assert_eq!(open(), (1, 1));
        // One of a job that was skipped because of another, which is tried again, opens as any does.
        store.append(&[open_gate("a")]).unwrap();
        assert_eq!(open(), (2, 2));
    });
}

#[test]
pub fn the_usual_duration_is_the_median_of_the_last_ten_that_passed() {
    check(|store| {
        let build = begun(store);
        let run = |number: u32, outcome: Outcome, milliseconds: i64| {
            let mut end = finished(build, "a", number, outcome, None);
            if let What::AttemptFinished { report, .. } = &mut end.what {
                report.started = Timestamp(0);
                report.finished = Timestamp(milliseconds * 1000);
            }
            store.append(&[leased(build, "a", number), end]).unwrap();
        };
        assert_eq!(store.usual_duration_ms("", &"a".into()).unwrap(), None);
        run(1, failed(1), 5);
        assert_eq!(store.usual_duration_ms("", &"a".into()).unwrap(), None);
        run(2, passed(), 1_000_000);
        assert_eq!(store.usual_duration_ms("", &"a".into()).unwrap(), Some(1_000_000));
        for number in 3..=12 {
            run(number, passed(), i64::from(number) * 100);
        }
        let names = [JobName::from("a"), "b".into()];
        assert_eq!(store.durations("", &names).unwrap(), BTreeMap::from([("a".into(), 700)]));
    });
}

#[test]
pub fn jobs_of_different_projects_have_durations_of_their_own() {
    check(|store| {
        let of_project = |project: &str, milliseconds: [i64; 2]| {
            let build = store.reserve_build().unwrap();
            let mut fact = created(build);
            if let What::BuildCreated(request) = &mut fact.what {
                request.origin.project = project.to_owned();
            }
            let facts = milliseconds.into_iter().zip(1..).flat_map(|(milliseconds, number)| {
                let mut end = finished(build, "a", number, passed(), None);
                if let What::AttemptFinished { report, .. } = &mut end.what {
                    report.started = Timestamp(0);
                    report.finished = Timestamp(milliseconds * 1000);
                }
                [leased(build, "a", number), end]
            });
            let facts: Vec<_> = facts.collect();
            // The first together with the request, the others alone.
            store.append(&[&[fact], &facts[..2]].concat()).unwrap();
            facts[2..].iter().for_each(|fact| store.append(std::slice::from_ref(fact)).unwrap());
        };
        of_project("sails", [7, 7]);
        of_project("masts", [90_000, 90_000]);
        of_project("sails", [7, 9]);
        let usual = |project: &str| store.usual_duration_ms(project, &"a".into()).unwrap();
        assert_eq!([usual("sails"), usual("masts"), usual("")], [Some(7), Some(90_000), None]);
    });
}

fn operation(name: &str, job: &str, at_second: i64) -> OperationRow {
    OperationRow {
        digest: digest(name),
        trust: Trust::Trusted,
        build: BuildId(1),
        attempt: AttemptNumber(3),
        job: job.into(),
        outcome: Outcome::Passed { outputs: BTreeMap::from([("version".to_owned(), "1.2".into())]) },
        artifacts: BTreeMap::from([("bin".to_owned(), artifact(name))]),
        at: at(at_second),
        used_at: at(at_second),
        evicted: None,
        replaced: None,
    }
}

fn manifest(value: &str) -> Manifest {
    Manifest(BTreeMap::from([("file:src/main.rs".to_owned(), value.to_owned())]))
}

#[test]
pub fn an_operation_is_found_until_it_is_evicted_and_then_explained() {
    check(|store| {
        let row = operation("one", "test/1", 5);
        assert_eq!(store.operation(row.digest, Trust::Trusted).unwrap(), None);
        // Long enough to be packed.
        let long = manifest(&"x".repeat(100_000));
        store.record_operations(&[(row.clone(), &long)]).unwrap();
        assert_eq!(store.operation(row.digest, Trust::Trusted).unwrap(), Some(row.clone()));
        assert_eq!(store.manifest(row.digest).unwrap(), Some(long.clone()));
        store.touch_operations(&[row.digest, digest("none")], at(9)).unwrap();
        store.touch_operations(&[row.digest], at(8)).unwrap();
        assert_eq!(store.operation(row.digest, Trust::Trusted).unwrap().unwrap().used_at, at(9));

        assert_eq!(store.evictions(&[row.digest, digest("none")]).unwrap(), BTreeMap::new());
        store.evict(row.digest, "no room", at(20)).unwrap();
        store.evict(row.digest, "again", at(21)).unwrap();
        assert_eq!(store.operation(row.digest, Trust::Trusted).unwrap(), None);
        let evictions = store.evictions(&[row.digest, digest("none")]).unwrap();
        assert_eq!(evictions, BTreeMap::from([(row.digest, at(20))]));
        let (found, kept) = store.recent_operations("test", 5).unwrap().remove(0);
        let tombstone = found.evicted.unwrap();
        assert_eq!((tombstone.reason.as_str(), tombstone.at, kept), ("no room", at(20), long.clone()));
        assert_eq!(store.referenced_blobs().unwrap(), BTreeSet::new());

        // What comes after it remembers the tombstone, however often it is recorded.
        let replaced = Some(Replaced { build: row.build, eviction: tombstone });
        for build in [BuildId(2), BuildId(3)] {
            let again = OperationRow { build, ..row.clone() };
            store.record_operations(&[(again.clone(), &long)]).unwrap();
            let expected = OperationRow { replaced: replaced.clone(), ..again };
            assert_eq!(store.operation(row.digest, Trust::Trusted).unwrap(), Some(expected));
            assert_eq!(store.evictions(&[row.digest]).unwrap(), BTreeMap::new());
        }
        assert_eq!(store.referenced_blobs().unwrap(), BTreeSet::from([artifact("one").digest]));
    });
}

#[test]
pub fn what_was_tried_is_known_and_never_reused() {
    check(|store| {
        store.record_tried(&[(digest("failed"), &manifest("1"))], at(1)).unwrap();
        assert_eq!(store.manifest(digest("failed")).unwrap(), Some(manifest("1")));
        assert_eq!(store.operation(digest("failed"), Trust::Trusted).unwrap(), None);
        assert_eq!(store.recent_operations("a", 9).unwrap(), []);
        // One that has a result too outlives the bound.
        store.record_tried(&[(digest("both"), &manifest("2"))], at(2)).unwrap();
        store.record_operations(&[(operation("both", "a", 3), &manifest("2"))]).unwrap();
        let empty = Manifest::default();
        for index in 0..u64::from(ropewalk_store::TRIED_MAX) {
            store.record_tried(&[(digest(&index.to_string()), &empty)], at(3)).unwrap();
        }
        assert_eq!(store.manifest(digest("failed")).unwrap(), None, "the oldest went first");
        assert_eq!(store.manifest(digest("both")).unwrap(), Some(manifest("2")));
        assert_eq!(store.manifest(digest("0")).unwrap(), Some(empty.clone()));
    });
}

#[test]
pub fn the_operations_of_a_job_are_evicted() {
    check(|store| {
        let rows = [operation("one", "a/1", 5), operation("two", "b", 7), operation("three", "a/2", 6)];
        let empty = Manifest::default();
        store.record_operations(&rows.clone().map(|row| (row, &empty))).unwrap();
        assert_eq!(store.evict_job(&"a/1".into(), "one leg", at(9)).unwrap(), 1);
        assert_eq!(
            store.referenced_blobs().unwrap(),
            BTreeSet::from([artifact("two"), artifact("three")].map(|a| a.digest))
        );
        assert_eq!(store.evict_job(&"a".into(), "all legs", at(10)).unwrap(), 1);
        assert_eq!(store.evict_job(&"b/1".into(), "no such leg", at(11)).unwrap(), 0);
        let reasons = |job| {
            let recent = store.recent_operations(job, 9).unwrap().into_iter();
            recent.map(|(row, _)| row.evicted.map_or(String::new(), |tombstone| tombstone.reason)).collect::<Vec<_>>()
        };
        assert_eq!(
            (reasons("a"), reasons("b")),
            (vec!["all legs".to_owned(), "one leg".to_owned()], vec![String::new()])
        );
    });
}

#[test]
pub fn what_an_untrusted_build_wrote_a_trusted_one_never_reads() {
    check(|store| {
        let poisoned = OperationRow { trust: Trust::Untrusted, ..operation("one", "a", 1) };
        store.record_operations(&[(poisoned.clone(), &manifest("1"))]).unwrap();
        assert_eq!(store.operation(digest("one"), Trust::Trusted).unwrap(), None);
        assert_eq!(store.operation(digest("one"), Trust::Untrusted).unwrap(), Some(poisoned.clone()));
        let good = OperationRow { build: BuildId(9), ..operation("one", "a", 2) };
        store.record_operations(&[(good.clone(), &manifest("1"))]).unwrap();
        assert_eq!(store.operation(digest("one"), Trust::Trusted).unwrap(), Some(good.clone()));
        assert_eq!(store.operation(digest("one"), Trust::Untrusted).unwrap(), Some(poisoned));
        let other = operation("two", "a", 3);
        store.record_operations(&[(other.clone(), &manifest("2"))]).unwrap();
        let found = store.operations(&[digest("one"), digest("two"), digest("none")], Trust::Untrusted).unwrap();
        assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([digest("one"), digest("two")]));
    });
}

#[test]
pub fn operations_are_listed_and_cleared() {
    check(|store| {
        let rows = [operation("one", "a/1", 5), operation("two", "b", 7), operation("three", "a/2", 6)];
        let empty = Manifest::default();
        store.record_operations(&rows.clone().map(|row| (row, &empty))).unwrap();
        let jobs = |rows: Vec<OperationRow>| rows.into_iter().map(|row| row.job.to_string()).collect::<Vec<_>>();
        assert_eq!(jobs(store.list_operations(9).unwrap()), ["b", "a/2", "a/1"]);
        assert_eq!(jobs(store.list_operations(1).unwrap()), ["b"]);
        let recent = store.recent_operations("a", 9).unwrap().into_iter().map(|(row, _)| row).collect();
        assert_eq!(jobs(recent), ["a/2", "a/1"]);
        assert_eq!(jobs(store.unused_operations(at(7), 9).unwrap()), ["a/1", "a/2"]);
        store.evict(digest("two"), "old", at(9)).unwrap();
        let totals = store.operation_totals().unwrap();
        assert_eq!(totals, OperationTotals { live: 2, evicted: 1, artifact_bytes: 2000 });
        assert_eq!(store.clear_operations("cleared", at(10)).unwrap(), 2);
        assert_eq!(store.operation_totals().unwrap().live, 0);
        assert_eq!(store.list_operations(9).unwrap().len(), 3);
    });
}

#[test]
pub fn only_so_many_tombstones_are_kept() {
    check(|store| {
        let empty = Manifest::default();
        let many = u64::from(ropewalk_store::TOMBSTONES_MAX) + 1;
        let row = |index: u64| OperationRow {
            artifacts: BTreeMap::new(),
            ..operation(&index.to_string(), "a", i64::try_from(index).unwrap())
        };
        store.record_operations(&(0..many).map(|index| (row(index), &empty)).collect::<Vec<_>>()).unwrap();
        store.evict(digest("7"), "first", at(1)).unwrap();
        store.clear_operations("cleared", at(2)).unwrap();
        assert_eq!(store.operation_totals().unwrap().evicted, many - 1);
        assert_eq!(store.manifest(digest("7")).unwrap(), None, "the oldest went first");
        assert_eq!(store.manifest(digest("8")).unwrap(), Some(empty.clone()));
    });
}

fn cache(scope: &str, key: &str, at_second: i64) -> CacheRow {
    CacheRow {
        scope: scope.to_owned(),
        key: key.to_owned(),
        blobs: vec![digest(key), digest("shared")],
        bytes: 10,
        written_by: user(1),
        at: at(at_second),
        used_at: at(at_second),
        evicted: None,
    }
}

fn user(build: u64) -> CacheUser {
    CacheUser { build: BuildId(build), job: "a".into() }
}

#[test]
pub fn caches_are_found_by_how_long_nobody_used_them() {
    check(|store| {
        for (key, second) in [("young", 5), ("old", 1), ("read", 2), ("gone", 1)] {
            store.save_cache(&cache("main", key, second)).unwrap();
        }
        let wanted = CacheWanted { scopes: &["main"], key: "read", prefixes: &[] };
        store.restore_cache(&wanted, &user(2), at(7)).unwrap();
        store.evict_cache("main", "gone", "old", at(8)).unwrap();
        let unused = |before, limit| -> Vec<String> {
            store.unused_caches(at(before), limit).unwrap().into_iter().map(|row| row.key).collect()
        };
        assert_eq!(unused(5, 9), ["old"]);
        assert_eq!(unused(9, 9), ["old", "young", "read"]);
        assert_eq!(unused(9, 2), ["old", "young"]);
        assert_eq!(store.cache_totals().unwrap(), CacheTotals { live: 3, bytes: 30 });
        store.save_cache(&cache("ma_n/trusted", "k", 1)).unwrap();
        for (prefix, live) in [("", 4), ("main", 3), ("ma", 4), ("ma_n/", 1), ("ma%", 0), ("n", 0)] {
            let expected = CacheTotals { live, bytes: live * 10 };
            assert_eq!(store.cache_totals_of(prefix).unwrap(), expected, "{prefix}");
        }
    });
}

#[test]
pub fn uses_of_caches_are_told_newest_first_and_pruned() {
    check(|store| {
        let of = |project: &str, key: &str, act, second| {
            let (scope, key) = (format!("{project}/trusted/x"), key.to_owned());
            let used = CacheUse { scope, key, act, by: user(1), at: at(second) };
            cache_uses::note(store, project, &used).unwrap();
            used
        };
        let missed = of("web", "k", CacheAct::Missed, 1);
        let written = of("web", "k", CacheAct::Written { bytes: 7 }, 2);
        let read = of("web", "l", CacheAct::Read { found: "k".to_owned() }, 3);
        let other = of("webs", "k", CacheAct::Missed, 4);
        let uses = |project: &str, after: Option<&str>, limit| -> Vec<(String, CacheUse)> {
            cache_uses::list(store, project, after, limit).unwrap()
        };
        let plain = |uses: Vec<(String, CacheUse)>| uses.into_iter().map(|(_, used)| used).collect::<Vec<_>>();
        assert_eq!(plain(uses("web", None, 9)), [read.clone(), written.clone(), missed.clone()]);
        assert_eq!(plain(uses("webs", None, 9)), std::slice::from_ref(&other));
        assert_eq!(plain(uses("we", None, 9)), []);
        let first = uses("web", None, 1);
        assert_eq!(plain(uses("web", Some(&first[0].0), 9)), [written.clone(), missed]);
        assert_eq!(plain(uses("web", Some("nonsense"), 9)), []);
        assert_eq!(cache_uses::prune(store, 2).unwrap(), 1);
        assert_eq!(plain(uses("web", None, 9)), [read, written]);
        assert_eq!(plain(uses("webs", None, 9)), [other]);
    });
}

#[test]
pub fn an_entry_of_a_cache_never_changes_while_it_lives() {
    check(|store| {
        let first = cache("main", "k", 1);
        assert_eq!(store.save_cache(&first).unwrap(), Saved::Written);
        assert_eq!(store.save_cache(&CacheRow { bytes: 99, ..first.clone() }).unwrap(), Saved::Kept);
        assert_eq!(store.list_caches(9).unwrap(), std::slice::from_ref(&first));
        store.evict_cache("main", "k", "old", at(5)).unwrap();
        assert_eq!(store.list_caches(9).unwrap()[0].evicted.as_ref().unwrap().reason, "old");
        assert_eq!(store.referenced_blobs().unwrap(), BTreeSet::new());
        let second = CacheRow { bytes: 99, ..cache("main", "k", 6) };
        assert_eq!(store.save_cache(&second).unwrap(), Saved::Written);
        assert_eq!(store.list_caches(9).unwrap(), [second]);
        assert_eq!(store.clear_caches("cleared", at(9)).unwrap(), 1);
        assert_eq!(store.clear_caches("cleared", at(9)).unwrap(), 0);
    });
}

#[test]
pub fn a_cache_is_restored_by_key_then_by_prefix_newest_first_scope_by_scope() {
    check(|store| {
        let entries = [
            cache("main", "cargo-linux-1", 1),
            cache("main", "cargo-linux-2", 3),
            cache("main", "cargo-linux-0", 2),
            cache("main", "cargp", 9),
            cache("topic", "cargo-mac", 0),
        ];
        for entry in &entries {
            store.save_cache(entry).unwrap();
        }
        let restored = |scopes: &[&str], key: &str, prefixes: &[&str]| {
            let wanted = CacheWanted { scopes, key, prefixes };
            store.restore_cache(&wanted, &user(4), at(50)).unwrap().map(|row| row.key)
        };
        assert_eq!(restored(&["main"], "cargo-linux-1", &["cargo-"]).as_deref(), Some("cargo-linux-1"));
        assert_eq!(restored(&["main"], "cargo-linux-9", &["cargo-mac", "cargo-"]).as_deref(), Some("cargo-linux-2"));
        assert_eq!(restored(&["topic", "main"], "cargo-linux-1", &["cargo-"]).as_deref(), Some("cargo-mac"));
        assert_eq!(restored(&["topic", "main"], "cargo-linux-1", &[]).as_deref(), Some("cargo-linux-1"));
        assert_eq!(restored(&["other"], "cargo-linux-1", &[""]), None);
        assert_eq!(restored(&[], "cargo-linux-1", &[]), None);
        store.evict_cache("main", "cargo-linux-2", "old", at(60)).unwrap();
        assert_eq!(restored(&["main"], "x", &["cargo-"]).as_deref(), Some("cargo-linux-0"));

        let reads = store.cache_reads("main", "cargo-linux-1", 9).unwrap();
        assert_eq!(reads.iter().map(|read| (read.reader.clone(), read.at)).collect::<Vec<_>>(), [(user(4), at(50))]);
        let used = store.list_caches(9).unwrap().into_iter().find(|row| row.key == "cargo-linux-1").unwrap();
        assert_eq!(used.used_at, at(50));
    });
}

#[test]
pub fn a_deleted_build_names_the_blobs_that_nothing_else_names() {
    check(|store| {
        let (one, two) = (begun(store), begun(store));
        let with = |build, names: &[&str]| {
            let mut end = finished(build, "a", 1, passed(), None);
            if let What::AttemptFinished { report, .. } = &mut end.what {
                report.artifacts = names.iter().map(|&name| (name.to_owned(), artifact(name))).collect();
            }
            [leased(build, "a", 1), end]
        };
        store.append(&with(one, &["mine", "both", "operation", "cache"])).unwrap();
        store.append(&with(two, &["both"])).unwrap();
        store.record_operations(&[(operation("operation", "a", 1), &Manifest::default())]).unwrap();
        store.save_cache(&CacheRow { blobs: vec![artifact("cache").digest], ..cache("main", "k", 1) }).unwrap();
        let names: Vec<_> = store.artifacts(one).unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["both", "cache", "mine", "operation"]);

        let claim = store.claim(one).unwrap().expect("nobody has it");
        assert!(matches!(store.delete_build(one), Err(StoreError::Running(_))));
        drop(claim);
        let deleted = store.delete_build(one).unwrap().expect("it was there");
        assert_eq!(deleted.blobs, BTreeSet::from([artifact("mine").digest]));
        assert_eq!(store.delete_build(one).unwrap(), None);
        assert_eq!(store.build(one).unwrap(), None);
        assert_eq!((store.facts(one).unwrap().len(), store.jobs(one).unwrap().len()), (0, 0));
        assert!(matches!(store.append(&[leased(one, "a", 2)]), Err(StoreError::NoBuild(_))));
        assert_eq!(store.reserve_build().unwrap(), BuildId(3), "numbers are not used again");
        let named = BTreeSet::from(["both", "operation", "cache"].map(|name| artifact(name).digest));
        assert_eq!(store.referenced_blobs().unwrap(), named);
    });
}

#[test]
pub fn a_build_is_claimed_by_one() {
    check(|store| {
        let build = begun(store);
        assert_eq!(store.claimant(build).unwrap(), None);
        let claim = store.claim(build).unwrap().expect("nobody has it");
        assert!(store.claim(build).unwrap().is_none());
        assert_eq!(store.claimant(build).unwrap().unwrap().process, Some(std::process::id()));
        assert!(store.claim(BuildId(55)).unwrap().is_some(), "another build is free");
        drop(claim);
        assert_eq!(store.claimant(build).unwrap(), None);
        assert!(store.claim(build).unwrap().is_some());
    });
}

#[test]
fn faults_come_by_schedule_and_leave_nothing() {
    let run = |seed| {
        let store = FaultyStore::new(MemoryStore::new(), seed, 3);
        let refused: Vec<_> = (0..60).map(|_| store.reserve_build().is_err()).collect();
        let faults = store.faults();
        assert_eq!(faults, refused.iter().filter(|&&refused| refused).count() as u64);
        assert_eq!(store.inner().reserve_build().unwrap(), BuildId(61 - faults));
        refused
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!((10..=30).contains(&run(1).iter().filter(|&&refused| refused).count()));
}
