//! What goes wrong with real processes, and the clear result it has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use graph::{Failure, Outcome};
use ropewalk_worker::Cancel;
use ropewalk_worker::depot::{LogError, Secrets, Stream};
use serde_json::{Value, json};

use crate::Case;
use crate::ground::{Ground, MemoryLog, compare, on_ground, on_ground_with};

pub const CASES: &[Case] = &[
    ("trouble::a_vanished_shell", a_vanished_shell),
    ("trouble::directories", directories),
    ("trouble::limits_on_time", limits_on_time),
    ("trouble::a_gentle_cancel", a_gentle_cancel),
    ("trouble::a_step_that_ignores_term", a_step_that_ignores_term),
    ("trouble::a_cancel_at_once", a_cancel_at_once),
    ("trouble::wrong_files_of_values", wrong_files_of_values),
    ("trouble::outputs_that_are_missing", outputs_that_are_missing),
    ("trouble::output_that_is_not_utf8", output_that_is_not_utf8),
    ("trouble::a_closed_stdout", a_closed_stdout),
    ("trouble::a_daemon", a_daemon),
    ("trouble::a_server_for_later_steps", a_server_for_later_steps),
    ("trouble::killed_by_a_signal", killed_by_a_signal),
    ("trouble::a_flood", a_flood),
    ("trouble::one_long_line", one_long_line),
    ("trouble::a_slow_log_holds_up_its_own_step_only", a_slow_log_holds_up_its_own_step_only),
    ("trouble::an_environment_too_large", an_environment_too_large),
    ("trouble::a_full_disk", a_full_disk),
    ("trouble::a_log_that_is_lost", a_log_that_is_lost),
    ("trouble::no_executor", no_executor),
];

fn steps(steps: &[&str]) -> Value {
    let steps: Vec<Value> = steps.iter().map(|run| json!({ "run": run })).collect();
    json!({ "workspace": "in_place", "steps": steps })
}

fn a_vanished_shell() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["echo hi", "echo never"]);
        job["steps"][0]["shell"] = json!("bash");
        job["env"] = json!({ "PATH": "/nowhere" });
        ground
            .check(
                job.clone(),
                "infra: the shell `bash` was not found: install bash where the job runs, or take `shell: sh`
                failed: echo hi
                skipped: echo never
                0 Note: the shell `bash` was not found: install bash where the job runs, or take `shell: sh`",
            )
            .await;
        job["steps"][0]["shell"] = json!({ "custom": ["no-such-interpreter", "{0}"] });
        let (report, _) = ground.run(job).await;
        let Outcome::Failed(Failure::Infra { message }) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(
            message,
            "the shell `no-such-interpreter` was not found: install it where the job runs, or correct the step's `shell`"
        );
    });
}

fn directories() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["true"]);
        job["steps"][0]["working_directory"] = json!("../..");
        ground
            .check(job.clone(), "failed: step 0, exit 126\nfailed: true\nnote: step 1: working_directory `../..` leads out of the workspace\n0 Note: working_directory `../..` leads out of the workspace")
            .await;
        job["steps"][0]["working_directory"] = json!("absent");
        let (report, _) = ground.run(job).await;
        assert!(matches!(report.outcome, Outcome::Failed(Failure::Step { step: 0, exit: 126, .. })));
        assert!(report.notes[0].contains("absent`: No such file or directory"), "{:?}", report.notes);
    });
}

fn limits_on_time() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["echo before; exec sleep 1000", "echo never", "echo after"]);
        job["steps"][0]["timeout_ms"] = json!(50);
        job["steps"][2]["if"] = json!("failure()");
        ground
            .check(
                job,
                "timed out: Some(0)
                failed 143: echo before; exec sleep 1000
                skipped: echo never
                passed 0: echo after
                0 Stdout: before
                0 Note: stopped: the step's limit of 50 ms is over
                2 Stdout: after",
            )
            .await;
        let mut job = steps(&["exec sleep 1000", "echo never", "echo clean; exec sleep 1000", "echo last"]);
        job["timeout_ms"] = json!(50);
        job["steps"][0]["allow_failure"] = json!(true);
        job["steps"][2]["if"] = json!("failure()");
        job["steps"][2]["timeout_ms"] = json!(70);
        job["steps"][3]["if"] = json!("always()");
        ground
            .check(
                job,
                "timed out: None
                failed 143: exec sleep 1000
                skipped: echo never
                failed 143: echo clean; exec sleep 1000
                passed 0: echo last
                0 Note: stopped: the job's limit of 50 ms is over
                2 Stdout: clean
                2 Note: stopped: the step's limit of 70 ms is over
                3 Stdout: last",
            )
            .await;
    });
}

/// Runs a job and does something when its first output has come.
pub async fn when_it_prints(
    ground: &Ground,
    job: Value,
    act: impl Fn(&Cancel) + Send + Sync + 'static,
) -> (graph::AttemptReport, MemoryLog) {
    let cancel = Cancel::new();
    let log = MemoryLog::default();
    let (once, asked) = (AtomicBool::new(false), cancel.clone());
    log.0.lock().unwrap().gate = Some(Arc::new(move |_| {
        if !once.swap(true, Ordering::Relaxed) {
            act(&asked);
        }
    }));
    ground.run_with(job, BTreeMap::new(), Secrets::default(), cancel, log).await
}

fn a_gentle_cancel() {
    on_ground(&[], async |ground| {
        let mut job = steps(&[
            "exec 2>/dev/null; trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
            "echo never",
            "echo clean",
        ]);
        job["steps"][0]["name"] = json!("loop");
        job["steps"][2]["if"] = json!("cancelled()");
        job["artifacts"] = json!({ "x": ["not-there"] });
        let (report, log) = when_it_prints(ground, job, |cancel| cancel.gently("a test")).await;
        compare(
            &report,
            &log,
            "canceled by a test
            canceled 0: loop
            skipped: echo never
            passed 0: echo clean
            0 Stdout: ready
            0 Stdout: bye
            2 Stdout: clean",
        );
    });
}

fn a_step_that_ignores_term() {
    on_ground_with(&[], Duration::from_millis(50), None, async |ground| {
        // What is ignored stays so over `exec`; a shell might begin a child at the very moment of the kill.
        let mut job = steps(&["trap '' TERM; echo ready; exec sleep 1000"]);
        job["steps"][0]["name"] = json!("deaf");
        let (report, log) = when_it_prints(ground, job, |cancel| cancel.gently("a test")).await;
        compare(&report, &log, "canceled by a test\ncanceled 137: deaf\n0 Stdout: ready");
        assert_eq!(report.steps[0].signal, Some(9));
    });
}

fn a_cancel_at_once() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["trap '' TERM; echo ready; while :; do sleep 1000; done", "echo never"]);
        job["steps"][0]["name"] = json!("deaf");
        job["steps"][1]["if"] = json!("always()");
        let (report, log) = when_it_prints(ground, job, |cancel| {
            cancel.gently("first");
            cancel.at_once("second");
        })
        .await;
        assert_eq!(report.steps[0].signal, Some(9));
        let Outcome::Failed(Failure::Canceled { .. }) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(report.steps[1].result, graph::StepResult::Skipped);
        drop(log);
        let cancel = Cancel::new();
        cancel.gently("before");
        let (report, _) = ground
            .run_with(steps(&["echo never"]), BTreeMap::new(), Secrets::default(), cancel, MemoryLog::default())
            .await;
        assert_eq!(
            (report.outcome, report.steps.len()),
            (Outcome::Failed(Failure::Canceled { by: "before".into() }), 0)
        );
    });
}

fn wrong_files_of_values() {
    on_ground(&[], async |ground| {
        let wrong = [
            (
                "printf 'a=1\\noops\\n' >> $ROPEWALK_OUTPUT",
                "$ROPEWALK_OUTPUT: line 2: `oops` is neither `name=value` nor `name<<DELIMITER`",
            ),
            ("echo CI=no >> $ROPEWALK_ENV", "$ROPEWALK_ENV: line 1: `CI` is set by the worker and cannot be changed"),
            ("ln -s /etc/passwd $ROPEWALK_OUTPUT", "$ROPEWALK_OUTPUT: cannot be read: it is a symbolic link"),
            ("head -c 1048577 /dev/zero >> $ROPEWALK_OUTPUT", "$ROPEWALK_OUTPUT: the file has more than 1048576 bytes"),
            ("mkdir $ROPEWALK_PATH", "$ROPEWALK_PATH: cannot be read: it is not a regular file"),
        ];
        for (script, fault) in wrong {
            ground
                .check(
                    steps(&[script]),
                    &format!("failed: step 0, exit 1\nfailed 0: {script}\nnote: step 1: {fault}\n0 Note: {fault}"),
                )
                .await;
        }
        let script = "head -c 2000000 /dev/zero | tr '\\0' x >> $ROPEWALK_SUMMARY";
        let (report, _) = ground.run(steps(&[script])).await;
        assert_eq!((report.summary.len(), report.notes.len()), (1 << 20, 1));
    });
}

fn outputs_that_are_missing() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["true"]);
        job["outputs"] = json!(["version"]);
        ground
            .check(job.clone(), "failed: step 0, exit 1\npassed 0: true\nnote: the job declares the output `version` and no step wrote it to $ROPEWALK_OUTPUT")
            .await;
        job["steps"][0]["outputs"] = json!(["own"]);
        ground
            .check(
                job,
                "failed: step 0, exit 1
                failed 0: true
                note: step 1: the step declares the output `own` and did not write it to $ROPEWALK_OUTPUT
                0 Note: the step declares the output `own` and did not write it to $ROPEWALK_OUTPUT",
            )
            .await;
    });
}

fn output_that_is_not_utf8() {
    on_ground(&[], async |ground| {
        let (_, log) = ground.run(steps(&["printf 'a\\377\\000b\\r\\n'; printf '\\376' >&2"])).await;
        let logged = log.0.lock().unwrap();
        let of = |stream| {
            logged
                .pieces
                .iter()
                .filter(|piece| piece.1 == stream)
                .flat_map(|piece| piece.2.clone())
                .collect::<Vec<u8>>()
        };
        assert_eq!((of(Stream::Stdout), of(Stream::Stderr)), (b"a\xff\0b\r\n".to_vec(), b"\xfe".to_vec()));
    });
}

fn a_closed_stdout() {
    on_ground(&[], async |ground| {
        let script = "echo a; exec >&-; echo b >&2; exec 2>&-; true";
        let (report, log) = ground.run(steps(&[script])).await;
        assert_eq!((report.outcome, report.steps[0].lines), (Outcome::passed(), 2));
        assert_eq!(log.0.lock().unwrap().pieces.len(), 2);
    });
}

fn a_daemon() {
    on_ground(&[], async |ground| {
        // Once `up` is written the daemon has its name and its session.
        let script = "mkfifo up never; setsid sh -c 'echo > up; read x < never' >/dev/null 2>&1 & read x < up; echo on";
        let mut job = steps(&[script]);
        job["steps"][0]["name"] = json!("daemon");
        ground
            .check(
                job,
                "passed {}\npassed 0: daemon\nnote: ended 1 process that steps left running: sh (N)\n0 Stdout: on",
            )
            .await;
    });
}

fn a_server_for_later_steps() {
    on_ground(&[], async |ground| {
        let script = "mkfifo go back; (cat go; echo served; echo > back; exec sleep 1000) & echo on";
        let (report, log) = ground.run(steps(&[script, "echo asked > go; read x < back"])).await;
        let note = "processes that this step left behind still hold its output; it is recorded until the job ends";
        assert_eq!(report.outcome, Outcome::passed());
        assert_eq!(report.notes[0], format!("step 1: {note}"));
        assert!(report.notes[1].starts_with("ended 1 process that steps left running: "), "{:?}", report.notes);
        let logged = log.0.lock().unwrap();
        let first =
            logged.pieces.iter().filter(|piece| piece.0 == 0).flat_map(|piece| piece.2.clone()).collect::<Vec<u8>>();
        assert_eq!(String::from_utf8(first).unwrap(), format!("on\n{note}\nasked\nserved\n"));
        assert_eq!(report.steps[0].lines, 4);
    });
}

fn killed_by_a_signal() {
    on_ground(&[], async |ground| {
        let (report, _) = ground.run(steps(&["kill -SEGV $$"])).await;
        assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 0, exit: 139, message: None }));
        assert_eq!((report.steps[0].signal, report.steps[0].exit), (Some(11), Some(139)));
    });
}

/// The size of floods: full in CI or on demand.
fn size(full: u64, small: u64) -> u64 {
    if std::env::var_os("CI").is_some() || std::env::var_os("SLOW").is_some() { full } else { small }
}

fn a_flood() {
    on_ground(&[], async |ground| {
        let mebibytes = size(1024, 64);
        let lines = mebibytes * (1 << 20) / 64;
        let script = format!("yes 123456789012345678901234567890123456789012345678901234567890123 | head -n {lines}");
        let (report, log) = ground.run(steps(&[&script])).await;
        assert_eq!((report.outcome, report.steps[0].lines), (Outcome::passed(), lines));
        let mut expected = blake3::Hasher::new();
        let line = b"123456789012345678901234567890123456789012345678901234567890123\n";
        for _ in 0..lines {
            expected.update(line);
        }
        let logged = log.0.lock().unwrap();
        assert_eq!((logged.bytes, logged.hasher.finalize()), (lines * 64, expected.finalize()));
    });
}

fn one_long_line() {
    on_ground(&[], async |ground| {
        let bytes = size(100 << 20, 16 << 20);
        let (report, log) = ground.run(steps(&[&format!("head -c {bytes} /dev/zero | tr '\\0' x")])).await;
        assert_eq!((report.outcome, log.0.lock().unwrap().bytes), (Outcome::passed(), bytes));
    });
}

fn a_slow_log_holds_up_its_own_step_only() {
    on_ground(&[], async |ground| {
        let log = MemoryLog::default();
        let opened = Arc::new((Mutex::new(false), Condvar::new()));
        let gate = Arc::clone(&opened);
        log.0.lock().unwrap().gate = Some(Arc::new(move |bytes| {
            if bytes > 8 << 20 {
                let waiting = gate.0.lock().unwrap();
                drop(gate.1.wait_while(waiting, |is_open| !*is_open).unwrap());
            }
        }));
        let flood = steps(&["head -c 33554432 /dev/zero"]);
        let flood = ground.run_with(flood, BTreeMap::new(), Secrets::default(), Cancel::new(), log.clone());
        let other = async {
            // The other job ends although the log of the first takes nothing more.
            while log.0.lock().unwrap().bytes <= 8 << 20 {
                let (report, _) = ground.run(steps(&["true"])).await;
                assert_eq!(report.outcome, Outcome::passed());
            }
            let (report, _) = ground.run(steps(&["true"])).await;
            assert_eq!(report.outcome, Outcome::passed());
            *opened.0.lock().unwrap() = true;
            opened.1.notify_all();
        };
        let ((report, _), ()) = tokio::join!(flood, other);
        assert_eq!((report.outcome, log.0.lock().unwrap().bytes), (Outcome::passed(), 33_554_432));
    });
}

fn an_environment_too_large() {
    on_ground(&[], async |ground| {
        let script = "{ printf BIG=; head -c 900000 /dev/zero | tr '\\0' x; echo; } >> $ROPEWALK_ENV";
        let (report, _) = ground.run(steps(&[script, "echo never"])).await;
        let message = report.notes.first().cloned();
        assert_eq!(report.outcome, Outcome::Failed(Failure::Step { step: 1, exit: 126, message }));
        assert!(
            report.notes[0].starts_with("step 2: arguments and environment are too long for this system"),
            "{:?}",
            report.notes
        );
        assert!(report.notes[0].ends_with("the largest variable is `BIG` (900003 bytes)"), "{:?}", report.notes);
    });
}

/// Makes the process's view of a directory a file system of 64 KiB. `None` where that is refused.
fn small_disk(directory: &std::path::Path) -> Option<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::UnshareFlags;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: this process has one thread, and shares its descriptors with nobody.
    let unshare = |flags| unsafe { rustix::thread::unshare_unsafe(flags) };
    if unshare(UnshareFlags::NEWNS).is_err() {
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUSER).ok()?;
        std::fs::write("/proc/self/setgroups", "deny").ok()?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).ok()?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).ok()?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).ok()?;
    mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"size=64k")).ok()
}

fn a_full_disk() {
    let disk = tempfile::tempdir().unwrap();
    if small_disk(disk.path()).is_none() {
        assert!(std::env::var_os("CI").is_none(), "a small file system is needed");
        println!("skipped: no file system can be mounted here");
        return;
    }
    on_ground_with(&[], Duration::from_secs(10), Some(disk.path()), async |ground| {
        let mut job = steps(&[&"#".repeat(200_000)]);
        job["steps"][0]["name"] = json!("long");
        job["steps"][0]["shell"] = json!({ "custom": ["sh", "{0}"] });
        let (report, _) = ground.run(job).await;
        let Outcome::Failed(Failure::Infra { message }) = report.outcome else { panic!("{:?}", report.outcome) };
        let script = ground.worker.scratch().join("slot-1/script");
        assert_eq!(message, format!("cannot write `{}`: no space is left on the disk", script.display()));
        // The next job finds its slot clean.
        ground.check(steps(&["true"]), "passed {}\npassed 0: true").await;

        let mut job = steps(&["head -c 6000000 /dev/zero > big"]);
        job["artifacts"] = json!({ "big": ["big"] });
        let (report, _) = ground.run(job).await;
        let Outcome::Failed(Failure::Infra { message }) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(
            message,
            format!(
                "artifact `big` was not kept: no space is left on the disk of {}",
                ground.worker.scratch().display()
            )
        );
    });
}

fn a_log_that_is_lost() {
    on_ground(&[], async |ground| {
        let log = MemoryLog::default();
        log.0.lock().unwrap().failure = Some(LogError::Full("/data/7.log".to_owned()));
        let (report, log) =
            ground.run_with(steps(&["echo hi"]), BTreeMap::new(), Secrets::default(), Cancel::new(), log).await;
        compare(
            &report,
            &log,
            "infra: the step's output was not kept whole: no space is left for the log: /data/7.log
            failed 0: echo hi
            note: the step's output was not kept whole: no space is left for the log: /data/7.log
            0 Stdout: hi",
        );
    });
}

fn no_executor() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["true"]);
        job["environment"] = json!({ "kubernetes": { "kubernetes": {} } });
        ground.check(job, "infra: this worker has no executor for the environment `kubernetes`").await;
    });
}
