//! Builds from request to verdict, with a store on disk and a worker that follows a script: what it says are the bytes that
//! would travel. The same over HTTP is in `wire.rs`.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::collections::BTreeMap;

use api::event::Moment;
use api::worker::{FromWorker, Then, ToWorker};
use engine::What;
use graph::{AttemptReport, BuildId, LeaseId, Outcome, Verdict};
use ropewalk_server::live::Lines;
use ropewalk_server::records::{Intake, Said, Sharing, WorkerRecord};
use ropewalk_server::server::Wanted;
use site::{Site, Worker, log_section, lost_section, manifest, moments, said, wanted};

const ONE: &str = "jobs:\n  hello:\n    run:\n      - echo hello\n";

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// A build of one job, submitted and in the worker's hands.
async fn begun(site: &Site, worker: &mut Worker, pipeline: &str) -> (BuildId, api::worker::Start) {
    let source = manifest(site, &[(".ropewalk/pipeline.yaml", pipeline)]);
    let submitted = site.server().submit(wanted(source)).await.unwrap();
    (submitted.build, worker.start().await)
}

#[test]
fn a_build_goes_its_way() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        assert_eq!(start.spec.name.as_str(), "hello");
        let lease = start.spec.lease;
        let mut follower = site.server().live.follow(build, None, Lines::Told).await.unwrap();
        let begins = FromWorker::StepStarted { lease, step: 0, name: "echo hello".into(), at: site::now() };
        let taken = worker.say(&site, &[said(&begins), log_section(&start.spec, 0, 0, b"hello\nwor", None)]).await;
        assert_eq!(taken.sections, 2);
        let mut told = moments(&mut follower, |told| told.iter().any(|moment| moment.contains("wor"))).await;
        worker.say(&site, &[log_section(&start.spec, 0, 9, b"ld\n", None)]).await;
        worker.finish(&site, &start.spec).await;
        told.extend(moments(&mut follower, |_| false).await);
        assert_eq!(
            told,
            [
                "build_started",
                "planned 1",
                "job_started hello",
                "step_started hello 0 echo hello",
                "log hello 0.0 hello",
                "log hello 0.1 wor…",
                "log hello 0.1 ld",
                "step_finished hello 0 passed",
                "job_finished hello passed",
                "build_finished passed",
            ]
        );
        let row = site.server().store.build(build).unwrap().unwrap();
        assert_eq!((row.verdict, row.origin.number), (Verdict::Passed { note: None }, 1));
        site.end().await;
    });
}

#[test]
fn what_goes_on_beside_the_steps_ends_none_of_them() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let lease = start.spec.lease;
        let mut follower = site.server().live.follow(build, None, Lines::Told).await.unwrap();
        let begins = |step, name: &str| FromWorker::StepStarted { lease, step, name: name.into(), at: site::now() };
        // A service has the number after those of the steps, and begins before them.
        let of_service = [said(&begins(1, "service db")), log_section(&start.spec, 1, 0, b"ready\n", None)];
        worker.say(&site, &of_service).await;
        worker.say(&site, &[said(&begins(0, "echo hello")), log_section(&start.spec, 0, 0, b"hel", None)]).await;
        let mut told = moments(&mut follower, |told| told.iter().any(|moment| moment.contains("hel…"))).await;
        worker.say(&site, &[log_section(&start.spec, 0, 3, b"lo\n", None)]).await;
        worker.finish(&site, &start.spec).await;
        told.extend(moments(&mut follower, |_| false).await);
        let of_step: Vec<&str> = told.iter().map(String::as_str).filter(|moment| moment.contains("hello 0")).collect();
        let expected = [
            "step_started hello 0 echo hello",
            "log hello 0.0 hel…",
            "log hello 0.0 lo",
            "step_finished hello 0 passed",
        ];
        assert_eq!(of_step, expected, "{told:?}");
        site.end().await;
    });
}

#[test]
fn what_goes_on_beside_the_steps_is_told_as_it_goes() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let lease = start.spec.lease;
        let mut follower = site.server().live.follow(build, None, Lines::Told).await.unwrap();
        let begins = |step, name: &str| FromWorker::StepStarted { lease, step, name: name.into(), at: site::now() };
        let of_service = [said(&begins(1, "service db")), log_section(&start.spec, 1, 0, b"ready\n", None)];
        worker.say(&site, &of_service).await;
        // No step has begun, and the service has not ended.
        let mut told = moments(&mut follower, |told| told.iter().any(|moment| moment.contains("ready"))).await;
        worker.say(&site, &[said(&begins(0, "echo hello")), log_section(&start.spec, 0, 0, b"a\n", None)]).await;
        told.extend(moments(&mut follower, |told| told.iter().any(|moment| moment.contains("0.0 a"))).await);
        worker.say(&site, &[log_section(&start.spec, 1, 6, b"asked\n", None)]).await;
        told.extend(moments(&mut follower, |told| told.iter().any(|moment| moment.contains("asked"))).await);
        let expected = [
            "step_started hello 1 service db",
            "log hello 1.0 ready",
            "step_started hello 0 echo hello",
            "log hello 0.0 a",
            "log hello 1.1 asked",
        ];
        let n_before = told.len() - expected.len();
        assert_eq!(told[n_before..], expected);
        // Who was told of it is not told again, also where the stream was left between two of its lines.
        let mut whole = site.server().live.follow(build, None, Lines::Told).await.unwrap();
        let batch = whole.next().await.unwrap().unwrap();
        let id = batch.last().and_then(|event| event.id.clone()).unwrap();
        assert!(id.contains("_s"), "{id}");
        let mut rest = site.server().live.follow(build, Some(&id), Lines::Told).await.unwrap();
        worker.say(&site, &[log_section(&start.spec, 1, 12, b"left\n", None)]).await;
        worker.finish(&site, &start.spec).await;
        for follower in [&mut rest, &mut follower] {
            let mut told = moments(follower, |_| false).await;
            let expected = [
                "build_finished passed",
                "job_finished hello passed",
                "log hello 1.2 left",
                "step_finished hello 0 passed",
            ];
            told.sort();
            assert_eq!(told, expected);
        }
        site.end().await;
    });
}

#[test]
fn a_stream_is_taken_up_again_anywhere() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        worker.say(&site, &[log_section(&start.spec, 0, 0, b"a\nb", None)]).await;
        worker.say(&site, &[log_section(&start.spec, 0, 3, b"c\nd\n", None)]).await;
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        let whole = moments(&mut site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert_eq!(whole.len(), 11);
        // Who is not told of lines is told of all else, in the same order.
        let mut bare = whole.clone();
        bare.retain(|moment| !moment.starts_with("log "));
        assert_eq!(bare.len(), 7);
        let mut unread = site.server().live.follow(build, None, Lines::Left).await.unwrap();
        assert_eq!(moments(&mut unread, |_| false).await, bare);
        // Followed from the id of each batch on, nothing is told twice and nothing is missing.
        let mut follower = site.server().live.follow(build, None, Lines::Told).await.unwrap();
        let (mut n_told, mut ids) = (0, Vec::new());
        while let Some(batch) = follower.next().await.unwrap() {
            n_told += batch.len();
            ids.extend(batch.last().and_then(|event| event.id.clone()).map(|id| (n_told, id)));
        }
        for (n_told, id) in ids {
            let mut rest = site.server().live.follow(build, Some(&id), Lines::Told).await.unwrap();
            assert_eq!(moments(&mut rest, |_| false).await, whole[n_told..], "behind {id}");
        }
        for wrong in ["x", "1_2", "99", "-1"] {
            assert!(site.server().live.follow(build, Some(wrong), Lines::Told).await.is_err(), "{wrong}");
        }
        site.end().await;
    });
}

#[test]
fn a_worker_drains_until_it_has_left_or_is_resumed() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let id = worker.id.clone();
        let said = Said { reason: "a new kernel".to_owned(), ..Said::default() };
        let drained = Intake::Draining(said);
        site.server().set_intake(&id, drained.clone(), Then::Leave).await.unwrap();
        worker.heard(|line| matches!(line, ToWorker::Drain { .. })).await;
        let intake = || site.server().records.read::<WorkerRecord>(&id.to_string()).unwrap().unwrap().0.intake;
        // Its session was lost: that changes nothing.
        let mut again = Worker::join_again(&site, "w1").await;
        assert_eq!(intake(), drained);
        site.server().set_intake(&id, Intake::Open, Then::Leave).await.unwrap();
        again.heard(|line| *line == ToWorker::Resume).await;
        // Resumed while no session told it.
        Worker::join_again(&site, "w1").await.heard(|line| *line == ToWorker::Resume).await;
        // One that was started anew was meant to come again.
        site.server().set_intake(&id, drained, Then::Leave).await.unwrap();
        Worker::join(&site, "w1", []).await;
        assert_eq!(intake(), Intake::Open);
        site.end().await;
    });
}

#[test]
fn a_pause_holds_beyond_a_drain() {
    run(async {
        let site = Site::new();
        let worker = Worker::join(&site, "w1", []).await;
        let id = worker.id.clone();
        let said = |reason: &str| Said { reason: reason.to_owned(), ..Said::default() };
        let paused = Intake::Paused(said("broken disk"));
        let set = async |intake: Intake, then| site.server().set_intake(&id, intake, then).await.unwrap();
        let intake = || site.server().records.read::<WorkerRecord>(&id.to_string()).unwrap().unwrap().0.intake;
        for then in [Then::StartAnew, Then::Leave] {
            set(paused.clone(), Then::Leave).await;
            set(Intake::Draining(said("a release")), then).await;
            set(Intake::Draining(said("again")), then).await;
            // Its session was lost: it still drains.
            Worker::join_again(&site, "w1").await;
            assert_eq!(intake(), Intake::Draining(said("again")));
            let mut worker = Worker::join(&site, "w1", []).await;
            assert_eq!(intake(), paused);
            let source = manifest(&site, &[(".ropewalk/pipeline.yaml", ONE)]);
            let submitted = site.server().submit(wanted(source)).await.unwrap();
            let why = &submitted.unmatched[0].1;
            assert!(format!("{why:?}").contains("broken disk"), "{why:?}");
            set(Intake::Open, Then::Leave).await;
            let start = worker.start().await;
            worker.finish(&site, &start.spec).await;
            site.ended(submitted.build).await;
        }
        // Resumed, or paused anew, while it drained: that counts.
        set(paused.clone(), Then::Leave).await;
        set(Intake::Draining(said("a release")), Then::StartAnew).await;
        set(Intake::Open, Then::Leave).await;
        set(Intake::Draining(said("a release")), Then::StartAnew).await;
        Worker::join(&site, "w1", []).await;
        assert_eq!(intake(), Intake::Open);
        site.end().await;
    });
}

#[test]
fn what_is_said_twice_counts_once() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let log = log_section(&start.spec, 0, 0, b"once\n", None);
        worker.say(&site, std::slice::from_ref(&log)).await;
        worker.say(&site, &[log.clone(), log]).await;
        worker.finish(&site, &start.spec).await;
        let again = worker.finish(&site, &start.spec).await;
        assert_eq!(again.stale, [start.spec.lease].into());
        let told = moments(&mut site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert_eq!(told.iter().filter(|moment| moment.starts_with("log ")).count(), 1);
        assert_eq!(site.server().store.attempts(build, None).unwrap().len(), 1);
        site.end().await;
    });
}

#[test]
fn nobody_speaks_for_another_lease() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let other = Worker::join(&site, "w2", []).await;
        let taken = other.finish(&site, &start.spec).await;
        assert_eq!(taken.stale, [start.spec.lease].into());
        other.say(&site, &[log_section(&start.spec, 0, 0, b"forged\n", None)]).await;
        assert_eq!(site.server().store.build(build).unwrap().unwrap().verdict, Verdict::Running);
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        let told = moments(&mut site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert!(!told.iter().any(|moment| moment.contains("forged")), "{told:?}");
        assert!(site.server().dispatch.stale_sections() >= 2);
        site.end().await;
    });
}

#[test]
fn a_gap_in_a_log_is_asked_for_again() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (_, start) = begun(&site, &mut worker, ONE).await;
        let taken = worker.say(&site, &[log_section(&start.spec, 0, 5, b"later\n", None)]).await;
        assert_eq!(taken.sections, 0);
        let resend: Vec<_> = taken.resend.iter().map(|resend| (resend.lease, resend.step, resend.from_byte)).collect();
        assert_eq!(resend, [(start.spec.lease, 0, 0)]);
        site.end().await;
    });
}

#[test]
fn an_attempt_does_not_end_before_its_worker_has_sent_again_what_is_missing() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let lease = start.spec.lease;
        let ends = FromWorker::Finished { lease, report: Box::new(site::report(Outcome::passed(), "echo hello")) };
        // The server has lost what it had, and the job ended while it was away.
        let taken = worker.say(&site, &[log_section(&start.spec, 0, 5, b"later\n", None), said(&ends)]).await;
        assert_eq!((taken.sections, taken.resend.len()), (0, 1));
        assert_eq!(site.server().store.build(build).unwrap().unwrap().verdict, Verdict::Running);
        let mut follower = site.server().live.follow(build, None, Lines::Told).await.unwrap();
        let taken = worker.say(&site, &[lost_section(&start.spec, 0, 5, b"later\n"), said(&ends)]).await;
        assert_eq!((taken.sections, taken.resend), (2, Vec::new()));
        let told = moments(&mut follower, |_| false).await;
        let of_log: Vec<&str> = told.iter().map(String::as_str).filter(|moment| moment.starts_with("log")).collect();
        assert_eq!(of_log, ["log_gap hello 0 5 bytes before line 1 are lost", "log hello 0.0 later"], "{told:?}");
        let row = site.server().store.build(build).unwrap().unwrap();
        assert_eq!(row.verdict, Verdict::Passed { note: None });
        site.end().await;
    });
}

#[test]
fn a_start_that_was_lost_on_the_way_is_said_again() {
    run(async {
        let site = Site::new();
        let worker = Worker::join(&site, "w1", []).await;
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", ONE)]);
        // The worker's connection dies before it reads its start.
        site.leased(site.server().submit(wanted(source)).await.unwrap().build).await;
        drop(worker);
        let mut worker = Worker::join(&site, "w1", []).await;
        let start = worker.start().await;
        // One that holds the lease is not told again: the next thing it hears is another job.
        let mut worker = Worker::join(&site, "w1", [start.spec.lease]).await;
        worker.finish(&site, &start.spec).await;
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", "jobs:\n  other:\n    run:\n      - 'true'\n")]);
        site.server().submit(wanted(source)).await.unwrap();
        assert_eq!(worker.start().await.spec.name.as_str(), "other");
        site.end().await;
    });
}

#[test]
fn a_cancel_reaches_a_worker_that_was_away() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let lease = start.spec.lease;
        drop(worker);
        site.server().cancel(build, "ada").await.unwrap();
        let is_stop = |line: &ToWorker| *line == ToWorker::Stop { lease, by: "ada".to_owned() };
        let mut worker = Worker::join(&site, "w1", [lease]).await;
        worker.heard(is_stop).await;
        // One that was told so by a server that is no more.
        let site = site.restart().await;
        let mut worker = Worker::join(&site, "w1", [lease]).await;
        worker.heard(is_stop).await;
        worker.end(&site, &start.spec, Outcome::Failed(graph::Failure::Canceled { by: "ada".into() })).await;
        site.ended(build).await;
        site.end().await;
    });
}

#[test]
fn what_was_canceled_before_its_worker_heard_of_it_is_not_begun() {
    run(async {
        let site = Site::new();
        let worker = Worker::join(&site, "w1", []).await;
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let build = site.server().submit(wanted(source)).await.unwrap().build;
        site.leased(build).await;
        drop(worker);
        site.server().cancel(build, "ada").await.unwrap();
        let mut worker = Worker::join(&site, "w1", []).await;
        site.ended(build).await;
        let row = site.server().store.build(build).unwrap().unwrap();
        assert_eq!(row.verdict, Verdict::Canceled { by: "ada".to_owned() });
        // The first that it hears of is the next build.
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", "jobs:\n  other:\n    run:\n      - 'true'\n")]);
        site.server().submit(wanted(source)).await.unwrap();
        let heard = worker.heard(|line| matches!(line, ToWorker::Start(_) | ToWorker::Stop { .. })).await;
        assert!(matches!(heard, ToWorker::Start(start) if start.spec.name.as_str() == "other"));
        site.end().await;
    });
}

#[test]
fn a_server_that_is_started_again_goes_on() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        worker.say(&site, &[log_section(&start.spec, 0, 0, b"before\n", None)]).await;
        let site = site.restart().await;
        assert!(worker.next().await.is_none(), "the stream of a session ends with its server");
        let worker = Worker::join(&site, "w1", [start.spec.lease]).await;
        worker.say(&site, &[log_section(&start.spec, 0, 7, b"after\n", None)]).await;
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        assert_eq!(site.server().store.attempts(build, None).unwrap().len(), 1);
        let told = moments(&mut site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert!(told.contains(&"log hello 0.0 before".to_owned()) && told.contains(&"log hello 0.1 after".to_owned()));
        site.end().await;
    });
}

#[test]
fn a_worker_whose_token_was_revoked_while_the_server_was_away_is_put_out_at_the_start() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        site.revoke(&worker.token);
        let site = site.restart().await;
        let other = manifest(&site, &[(".ropewalk/pipeline.yaml", "jobs: { other: { run: 'true' } }")]);
        let unmatched = site.server().submit(wanted(other)).await.unwrap().unmatched;
        let told = format!("{unmatched:?}");
        assert!(told.contains("its token is not good any more: this token was revoked"), "{told}");
        // By another token it goes on with what it runs, as if the server had been there.
        let mut worker = Worker::join(&site, "w1", [start.spec.lease]).await;
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        assert_eq!(site.server().store.attempts(build, None).unwrap().len(), 1);
        assert_eq!(worker.start().await.spec.name.as_str(), "other");
        site.end().await;
    });
}

#[test]
fn what_workers_spent_is_measured_by_the_servers_clock() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let began = site::now();
        let (build, start) = begun(&site, &mut worker, ONE).await;
        let leased = site::now();
        while site::now().ms_since(leased) < 3 {
            tokio::task::yield_now().await;
        }
        // Also of what began before this server did.
        let site = site.restart().await;
        let worker = Worker::join(&site, "w1", [start.spec.lease]).await;
        let by_its_clock = |ms: u64| {
            let report = site::report(Outcome::passed(), "echo hello");
            AttemptReport { finished: report.started.plus_ms(ms), ..report }
        };
        worker.report(&site, &start.spec, by_its_clock(u64::MAX / 2000)).await;
        site.ended(build).await;
        let spent = |site: &Site| {
            let told = site.server().worker_time.projects(site::now()).remove(0);
            (told.attempts, told.worker_ms)
        };
        let (attempts, spent_ms) = spent(&site);
        assert_eq!(attempts, 1);
        assert!((3..=site::now().ms_since(began)).contains(&spent_ms), "{spent_ms} ms");
        // Less it may be: the end may have been told late.
        let mut worker = worker;
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", "jobs: { other: { run: 'true' } }")]);
        let build = site.server().submit(wanted(source)).await.unwrap().build;
        let start = worker.start().await;
        worker.report(&site, &start.spec, by_its_clock(0)).await;
        site.ended(build).await;
        assert_eq!(spent(&site), (2, spent_ms));
        site.end().await;
    });
}

#[test]
fn leases_only_grow_over_restarts_and_what_ended_stays_ended() {
    run(async {
        let mut site = Site::new();
        let mut leases = Vec::new();
        for _ in 0..3 {
            let mut worker = Worker::join(&site, "w1", []).await;
            let (build, start) = begun(&site, &mut worker, ONE).await;
            leases.push(start.spec.lease);
            worker.finish(&site, &start.spec).await;
            site.ended(build).await;
            site = site.restart().await;
            // A result of before is nobody's any more, and builds that ended are listed as they were.
            let worker = Worker::join(&site, "w1", []).await;
            assert_eq!(worker.finish(&site, &start.spec).await.stale, [start.spec.lease].into());
            assert_eq!(site.server().store.build(build).unwrap().unwrap().verdict, Verdict::Passed { note: None });
        }
        assert!(leases.is_sorted_by(|earlier, later| earlier < later), "{leases:?}");
        let standing = site.server().shell.ask(|engine| engine.standing()).await.unwrap();
        assert_eq!(standing.charges.keys().collect::<Vec<_>>(), ["ada"], "who was charged is known after a restart");
        site.end().await;
    });
}

#[test]
fn secrets_are_for_one_lease_and_for_nobody_else() {
    run(async {
        let site = Site::with_secrets(BTreeMap::from([("TOKEN".to_owned(), "hush-hush".to_owned())]));
        let mut worker = Worker::join(&site, "w1", []).await;
        let pipeline = "jobs:\n  hello:\n    secrets: [TOKEN]\n    run:\n      - echo hello\n";
        let (build, start) = begun(&site, &mut worker, pipeline).await;
        assert_eq!(start.secrets["TOKEN"], "hush-hush");
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        let facts = serde_json::to_string(&site.server().store.facts(build).unwrap()).unwrap();
        assert!(!facts.contains("hush-hush"));
        let told = moments(&mut site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert!(!told.iter().any(|moment| moment.contains("hush-hush")));
        let pipeline = "jobs:\n  hello:\n    secrets: [OTHER]\n    run:\n      - echo hello\n";
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", pipeline)]);
        let build = site.server().submit(wanted(source)).await.unwrap().build;
        site.ended(build).await;
        let reports = site.server().store.reports(build, None).unwrap();
        assert!(matches!(&reports[0].1.outcome, Outcome::Failed(failure) if failure.kind() == "setup"));
        site.end().await;
    });
}

#[test]
fn equal_requests_are_one_build_while_it_waits() {
    run(async {
        let site = Site::new();
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let first = site.server().submit(wanted(source)).await.unwrap();
        let second = site.server().submit(wanted(source)).await.unwrap();
        assert_eq!((second.build, second.made), (first.build, ropewalk_server::server::Made::Joined));
        // Whoever asks: the queue charges the first, and what ends the build ends it for all.
        let other = site.server().submit(Wanted { client: "bob".to_owned(), ..wanted(source) }).await.unwrap();
        assert_eq!((other.build, other.made), (first.build, ropewalk_server::server::Made::Joined));
        let asked = site.server().store.facts(first.build).unwrap();
        assert!(matches!(&asked[0].what, What::BuildCreated(request) if request.client == "ada"), "{asked:?}");
        // No worker is there, and each of them is told so.
        for submitted in [&first, &second, &other] {
            let unmatched: Vec<String> = submitted.unmatched.iter().map(|(job, _)| job.to_string()).collect();
            assert_eq!(unmatched, ["hello"]);
        }
        let mut own = wanted(source);
        own.sharing = Sharing::EachItsOwn;
        assert_ne!(site.server().submit(own).await.unwrap().build, first.build);
        site.end().await;
    });
}

#[test]
fn results_are_taken_over_and_reported() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let pipeline = "jobs:\n  hello:\n    inputs: [a]\n    run:\n      - echo hello\n";
        let files = [(".ropewalk/pipeline.yaml", pipeline), ("a", "1"), ("b", "1")];
        let source = manifest(&site, &files);
        let build = site.server().submit(wanted(source)).await.unwrap().build;
        let start = worker.start().await;
        assert!(start.spec.operation.is_some());
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        // Another file changes, which the job does not read.
        let files = [(".ropewalk/pipeline.yaml", pipeline), ("a", "1"), ("b", "2")];
        let build = site.server().submit(wanted(manifest(&site, &files))).await.unwrap().build;
        site.ended(build).await;
        let row = site.server().store.build(build).unwrap().unwrap();
        assert_eq!((row.counts.passed, row.counts.reused), (1, 1));
        site.end().await;
    });
}

#[test]
fn a_result_whose_files_are_gone_is_made_anew() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let pipeline = "jobs:\n  hello:\n    inputs: []\n    artifacts: { out: out }\n    run: [echo hello]\n";
        let source = manifest(&site, &[(".ropewalk/pipeline.yaml", pipeline)]);
        let mut operations = Vec::new();
        for expected in ["runs", "is reused", "runs", "is reused"] {
            let request = Wanted { sharing: Sharing::EachItsOwn, ..wanted(source) };
            let build = site.server().submit(request).await.unwrap().build;
            if expected == "runs" {
                let start = worker.start().await;
                operations.push(start.spec.operation);
                let digest = site.server().blobs.put(b"files").unwrap();
                let artifact = graph::Artifact { digest, files: 1, bytes: 5 };
                let report = site::report(Outcome::passed(), "echo hello");
                let report = AttemptReport { artifacts: [("out".to_owned(), artifact)].into(), ..report };
                worker.report(&site, &start.spec, report).await;
            }
            site.ended(build).await;
            let row = site.server().store.build(build).unwrap().unwrap();
            assert_eq!(row.counts.reused, u64::from(expected == "is reused"), "{expected}");
            if expected == "is reused" {
                site.server().blobs.delete(store::blob::digest(b"files")).unwrap();
            }
        }
        assert!(operations[0].is_some() && operations[0] == operations[1]);
        site.end().await;
    });
}

#[test]
fn builds_are_canceled_and_jobs_tried_again_also_when_they_were_forgotten() {
    run(async {
        let site = Site::new();
        let mut worker = Worker::join(&site, "w1", []).await;
        let (build, start) = begun(&site, &mut worker, ONE).await;
        site.server().cancel(build, "ada").await.unwrap();
        assert!(matches!(worker.heard(|line| matches!(line, ToWorker::Stop { .. })).await,
            ToWorker::Stop { lease, .. } if lease == start.spec.lease));
        worker.end(&site, &start.spec, Outcome::Failed(graph::Failure::Canceled { by: "ada".into() })).await;
        site.ended(build).await;
        let (build, start) = begun(&site, &mut worker, "jobs:\n  b:\n    run:\n      - 'false'\n").await;
        worker.end(&site, &start.spec, Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, message: None })).await;
        site.ended(build).await;
        let site = site.restart().await;
        let mut worker = Worker::join(&site, "w1", []).await;
        let (jobs, used) = site.server().to_retry(build, [].into()).await.unwrap();
        assert_eq!((used.named, used.unknown), ([String::new()].into(), engine::PoolReach::Own));
        let again = site.server().retry(build, jobs, [].into(), ("ada", None)).await.unwrap();
        assert_eq!(again.into_keys().map(|job| job.to_string()).collect::<Vec<_>>(), ["b"]);
        let start = worker.start().await;
        assert_eq!((start.spec.build, start.spec.attempt.0), (build, 2));
        worker.finish(&site, &start.spec).await;
        site.ended(build).await;
        assert_eq!(site.server().store.build(build).unwrap().unwrap().verdict, Verdict::Passed { note: None });
        assert!(site.server().to_retry(BuildId(99), [].into()).await.is_err());
        site.end().await;
    });
}

#[test]
fn a_pipeline_that_is_wrong_makes_a_build_that_says_so() {
    run(async {
        let site = Site::new();
        let source =
            manifest(&site, &[(".ropewalk/pipeline.yaml", "jobs:\n  a:\n    needs: [b]\n    run: ['true']\n")]);
        let build = site.server().submit(wanted(source)).await.unwrap().build;
        site.ended(build).await;
        let told = moments(&mut site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert_eq!(told, ["build_started", "planned 0 unknown-need", "build_finished failed"]);
        let nothing = manifest(&site, &[("a", "1")]);
        assert!(site.server().submit(wanted(nothing)).await.is_err());
        assert!(site.server().submit(wanted(store::blob::digest(b"nobody sent it"))).await.is_err());
        site.end().await;
    });
}

#[test]
fn malformed_posts_change_nothing() {
    run(async {
        let site = Site::new();
        let worker = Worker::join(&site, "w1", []).await;
        for body in [&b"\x07\0\0\0\0"[..], b"\0\x05\0\0\0", b"\0\x02\0\0\0{}", b"\x01\x01\0\0\0x", b"\0"] {
            assert!(worker.post(&site, body.to_vec()).await.is_err(), "{body:?}");
        }
        let unknown = FromWorker::Finished {
            lease: LeaseId(7),
            report: Box::new(AttemptReport::of(Outcome::passed(), site::now())),
        };
        assert_eq!(worker.post(&site, said(&unknown)).await.unwrap().stale, [LeaseId(7)].into());
        site.end().await;
    });
}

#[test]
fn moments_have_the_words_of_json_output() {
    let text = serde_json::to_value(Moment::GateOpened {
        build: BuildId(1),
        time: site::now().into(),
        job: "a".into(),
        prompt: "b".into(),
        fields: BTreeMap::new(),
    });
    assert_eq!(text.unwrap()["kind"], "gate_opened");
}
