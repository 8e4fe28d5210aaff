//! Steps are started, told apart, signaled, counted, and none is left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use ropewalk_worker::keeper::{
    Command, Ending, Keeper, Left, Processes, Signal, SpawnFailure, StepError, View, kill_leftovers, leftovers,
};

use crate::Case;
use crate::ground::{
    first_line, is_alive, is_missing, marker, read_to_end, run, script, sh, wait_for_death, with_keeper,
};

pub const CASES: &[Case] = &[
    ("keeper::exit_codes_and_signals_are_told_apart", exit_codes_and_signals_are_told_apart),
    ("keeper::streams_are_kept_apart_and_stdin_is_empty", streams_are_kept_apart_and_stdin_is_empty),
    ("keeper::usage_is_counted", usage_is_counted),
    ("keeper::steps_inherit_no_descriptor_and_no_blocked_signal", steps_inherit_no_descriptor_and_no_blocked_signal),
    ("keeper::a_script_of_any_length_runs", a_script_of_any_length_runs),
    ("keeper::steps_wait_for_their_turn_as_any_program_does", steps_wait_for_their_turn_as_any_program_does),
    ("keeper::an_environment_longer_than_a_packet_arrives", an_environment_longer_than_a_packet_arrives),
    ("keeper::what_cannot_start_says_why", what_cannot_start_says_why),
    ("keeper::a_closed_stdout_is_no_end", a_closed_stdout_is_no_end),
    ("keeper::a_daemon_does_not_hold_its_step", a_daemon_does_not_hold_its_step),
    ("keeper::a_daemon_without_marker_dies_with_its_job", a_daemon_without_marker_dies_with_its_job),
    ("keeper::a_job_that_ends_spares_another", a_job_that_ends_spares_another),
    (
        "keeper::a_job_that_ends_spares_one_that_is_between_two_steps",
        a_job_that_ends_spares_one_that_is_between_two_steps,
    ),
    ("keeper::a_daemon_of_one_of_two_jobs_dies_with_the_last", a_daemon_of_one_of_two_jobs_dies_with_the_last),
    (
        "keeper::a_daemon_without_marker_is_known_by_the_files_it_sees",
        a_daemon_without_marker_is_known_by_the_files_it_sees,
    ),
    ("keeper::term_is_heard_and_kill_is_not_refused", term_is_heard_and_kill_is_not_refused),
    ("keeper::term_reaches_a_whole_tree", term_reaches_a_whole_tree),
    ("keeper::a_tree_that_forks_on_is_killed", a_tree_that_forks_on_is_killed),
    ("keeper::steps_that_start_at_once_are_told_apart", steps_that_start_at_once_are_told_apart),
    ("keeper::a_signal_right_after_the_request_arrives", a_signal_right_after_the_request_arrives),
    ("keeper::a_job_is_ended_while_others_start", a_job_is_ended_while_others_start),
    ("keeper::a_view_may_be_closed_while_steps_start_in_it", a_view_may_be_closed_while_steps_start_in_it),
    ("keeper::ten_thousand_quick_steps", ten_thousand_quick_steps),
    ("keeper::a_killed_main_process_leaves_nothing", a_killed_main_process_leaves_nothing),
    (
        "keeper::a_main_process_killed_while_steps_start_leaves_nothing",
        a_main_process_killed_while_steps_start_leaves_nothing,
    ),
    ("keeper::a_keeper_killed_while_steps_start_takes_them_along", a_keeper_killed_while_steps_start_takes_them_along),
    ("keeper::a_keeper_that_is_killed_takes_its_steps_along", a_keeper_that_is_killed_takes_its_steps_along),
    ("keeper::leftovers_are_found_by_their_marker", leftovers_are_found_by_their_marker),
    ("keeper::it_is_refused_once_there_are_threads", it_is_refused_once_there_are_threads),
];

/// What this program is when a test starts it by this name.
pub fn role(name: &str) -> Option<fn()> {
    match name {
        "role-main-with-daemons" => Some(main_with_daemons),
        "role-main-that-starts-steps" => Some(main_that_starts_steps),
        _ => None,
    }
}

fn exit_codes_and_signals_are_told_apart() {
    async fn check(processes: &Processes, text: &str, ending: Ending) {
        assert_eq!(sh(processes, text).await.end.ending, ending, "{text}");
    }
    with_keeper(|processes| async move {
        check(&processes, "true", Ending::Exited(0)).await;
        check(&processes, "exit 7", Ending::Exited(7)).await;
        check(&processes, "false; true", Ending::Exited(1)).await;
        check(&processes, "kill -9 $$", Ending::Signaled(9)).await;
        check(&processes, "kill -SEGV $$", Ending::Signaled(11)).await;
        assert_eq!(Ending::Signaled(9).code(), 137);
    });
}

fn streams_are_kept_apart_and_stdin_is_empty() {
    with_keeper(|processes| async move {
        let ran = sh(&processes, "echo out; echo err >&2; cat; echo $ROPEWALK_ATTEMPT; pwd").await;
        assert_eq!((ran.out, ran.err.as_str()), (format!("out\n{}\n/\n", marker()), "err\n"));
    });
}

fn usage_is_counted() {
    with_keeper(|processes| async move {
        let ran = sh(
            &processes,
            "head -c 40000000 /dev/zero | tail -c 30000000 | cksum; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done",
        )
        .await;
        assert_eq!(ran.end.ending, Ending::Exited(0));
        // `tail` holds 30 MB; the loop takes some time on any machine.
        assert!(ran.end.usage.peak_memory_bytes > 30_000_000, "{:?}", ran.end.usage);
        assert!(ran.end.usage.cpu_user_us > 1_000, "{:?}", ran.end.usage);
        assert!(ran.end.finished >= ran.end.started && !ran.end.duration.is_zero());
    });
}

fn steps_inherit_no_descriptor_and_no_blocked_signal() {
    with_keeper(|processes| async move {
        // The fourth is the listing's own.
        let ran = sh(&processes, "ls /proc/self/fd | tr '\\n' ' '; grep -E '^Sig(Blk|Ign)' /proc/self/status").await;
        let (before, ignored) = ran.out.split_once("SigIgn:\t").expect("a status");
        assert_eq!(before, "0 1 2 3 SigBlk:\t0000000000000000\n");
        // The C library keeps signals 32 and 33 to itself, and whoever started this program may have them ignored.
        let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
        assert_eq!(ignored & !0x1_8000_0000, 0, "{ignored:x}");
    });
}

fn a_script_of_any_length_runs() {
    with_keeper(|processes| async move {
        for length in [100, 131_071, 131_072, 3_000_000] {
            let padding = "#".repeat(length - 20);
            let ran = sh(&processes, &format!("{padding}\necho end $((1 + 1))")).await;
            assert_eq!((ran.out.as_str(), ran.err.as_str()), ("end 2\n", ""), "{length}");
        }
    });
}

fn steps_wait_for_their_turn_as_any_program_does() {
    with_keeper(|processes| async move {
        if is_missing("chrt") {
            return;
        }
        let of_process = std::process::Command::new("chrt").args(["-p", &processes.keeper_pid().to_string()]).output();
        let of_keeper = String::from_utf8_lossy(&of_process.expect("chrt").stdout).into_owned();
        assert!(of_keeper.contains("SCHED_OTHER|SCHED_RESET_ON_FORK"), "{of_keeper}");
        let of_step = sh(&processes, "chrt -p $$").await.out;
        assert!(of_step.contains("SCHED_OTHER") && !of_step.contains("RESET"), "{of_step}");
    });
}

fn an_environment_longer_than_a_packet_arrives() {
    with_keeper(|processes| async move {
        let mut command = script("echo ${#A} ${#B}");
        for name in ["A", "B"] {
            command.environment.insert(name, "x".repeat(100_000));
        }
        assert_eq!(run(&processes, command).await.expect("a shell").out, "100000 100000\n");
    });
}

fn what_cannot_start_says_why() {
    async fn check(processes: &Processes, change: impl FnOnce(&mut ropewalk_worker::keeper::Command), expected: &str) {
        let mut command = script("true");
        change(&mut command);
        let error = run(processes, command).await.expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    with_keeper(|processes| async move {
        check(&processes, |command| command.program = "/no/such/shell".into(), "no program `/no/such/shell` was found")
            .await;
        check(&processes, |command| command.program = "no-such-shell".into(), "no program `no-such-shell` was found")
            .await;
        let denied = "`/etc/passwd` cannot be run: Permission denied (os error 13)";
        check(&processes, |command| command.program = "/etc/passwd".into(), denied).await;
        let nowhere = "cannot enter the directory `/no/where`: No such file or directory (os error 2)";
        check(&processes, |command| command.directory = "/no/where".into(), nowhere).await;
        let nul = "an argument holds a NUL byte, or a name holds `=`";
        check(&processes, |command| command.arguments.push("a\0b".into()), nul).await;
        let mut long = script("true");
        long.arguments.push("x".repeat(200_000).into());
        let error = run(&processes, long).await.expect_err("too long");
        assert!(matches!(error, StepError::NotStarted(SpawnFailure::TooLong { bytes }) if bytes > 200_000), "{error}");
        let mut far_too_long = script("true");
        far_too_long.arguments.push("x".repeat(9 << 20).into());
        let error = run(&processes, far_too_long).await.expect_err("too long");
        assert!(matches!(error, StepError::NotStarted(SpawnFailure::TooLong { .. })), "{error}");
        assert_eq!(sh(&processes, "echo still here").await.out, "still here\n");
    });
}

fn a_closed_stdout_is_no_end() {
    with_keeper(|processes| async move {
        let ran = sh(&processes, "exec >&-; echo later >&2; exit 3").await;
        assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.end.ending), ("", "later\n", Ending::Exited(3)));
    });
}

/// A process that forked twice, left its session and holds stdout, as daemons do; prints its process id first.
const DAEMON: &str = "setsid sh -c 'sh -c \"echo \\$\\$; exec sleep 1000\" & exit 0' & wait";

fn a_daemon_does_not_hold_its_step() {
    with_keeper(|processes| async move {
        let mut running = processes.spawn(script(DAEMON)).await.expect("a shell");
        let daemon = first_line(&running).await;
        let end = running.ended().await.expect("an end although stdout is held");
        assert_eq!((end.ending, end.left), (Ending::Exited(0), Left::Processes));
        assert!(is_alive(&daemon), "it may live to the end of the job");
        let left = processes.end_job(&marker()).await.expect("the keeper");
        assert_eq!(left.iter().map(|left| left.pid.to_string()).collect::<Vec<_>>(), std::slice::from_ref(&daemon));
        // Between fork and exec it has the shell's name.
        assert!(["sleep", "sh"].contains(&left[0].name.as_str()), "{left:?}");
        assert!(!is_alive(&daemon));
        assert_eq!(read_to_end(running.stdout).await, "");
        assert_eq!(sh(&processes, "true").await.end.left, Left::Nothing);
        assert!(processes.end_job(&marker()).await.expect("the keeper").is_empty());
    });
}

fn a_daemon_without_marker_dies_with_its_job() {
    with_keeper(|processes| async move {
        let daemon = leave_daemon(&processes, nobodys_daemon()).await;
        assert_eq!(processes.end_job(&marker()).await.expect("the keeper").len(), 1);
        assert!(!is_alive(&daemon));
    });
}

fn a_job_that_ends_spares_another() {
    with_keeper(|processes| async move {
        let mut other = script(DAEMON);
        other.marker = "other/1/1".into();
        let mut other = processes.spawn(other).await.expect("a shell");
        let others_daemon = first_line(&other).await;
        other.ended().await.expect("an end");
        let mut running = processes.spawn(script(DAEMON)).await.expect("a shell");
        let daemon = first_line(&running).await;
        running.ended().await.expect("an end");
        assert_eq!(processes.end_job(&marker()).await.expect("the keeper").len(), 1);
        assert!(!is_alive(&daemon) && is_alive(&others_daemon));
        assert_eq!(processes.end_job("other/1/1").await.expect("the keeper").len(), 1);
        assert!(!is_alive(&others_daemon));
    });
}

/// [`DAEMON`], which tells nothing of whose it is.
fn nobodys_daemon() -> Command {
    script(&DAEMON.replace("setsid", "env -i setsid"))
}

/// Runs a step that leaves a daemon; gives the daemon's process id.
async fn leave_daemon(processes: &Processes, command: Command) -> String {
    let mut running = processes.spawn(command).await.expect("a shell");
    let daemon = first_line(&running).await;
    running.ended().await.expect("an end");
    daemon
}

fn a_job_that_ends_spares_one_that_is_between_two_steps() {
    with_keeper(|processes| async move {
        let mut other = nobodys_daemon();
        other.marker = "other/1/1".into();
        let others_daemon = leave_daemon(&processes, other).await;
        assert_eq!(sh(&processes, "true").await.end.left, Left::Processes);
        assert!(processes.end_job(&marker()).await.expect("the keeper").is_empty());
        assert!(is_alive(&others_daemon));
        assert_eq!(processes.end_job("other/1/1").await.expect("the keeper").len(), 1);
        assert!(!is_alive(&others_daemon));
    });
}

fn a_daemon_of_one_of_two_jobs_dies_with_the_last() {
    with_keeper(|processes| async move {
        let mut other = program("sleep", &["1000"]);
        other.marker = "other/1/1".into();
        let mut other = processes.spawn(other).await.expect("a request");
        let daemon = leave_daemon(&processes, nobodys_daemon()).await;
        assert!(processes.end_job(&marker()).await.expect("the keeper").is_empty());
        assert!(is_alive(&daemon));
        processes.signal_step(other.id, Signal::Kill).await.expect("the keeper");
        other.ended().await.expect("an end");
        assert_eq!(processes.end_job("other/1/1").await.expect("the keeper").len(), 1);
        assert!(!is_alive(&daemon));
    });
}

fn a_daemon_without_marker_is_known_by_the_files_it_sees() {
    let holder = tempfile::tempdir().expect("a directory");
    let [target, lower, upper, work] = ["target", "lower", "upper", "work"].map(|name| {
        let path = holder.path().join(name);
        std::fs::create_dir(&path).expect("a directory");
        path
    });
    let view = View { target: target.clone(), lower: vec![lower], upper, work, beside: None };
    with_keeper(|processes| async move {
        let (id, _files) = match processes.open_view(&view).await {
            Ok(opened) => opened,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                return println!("skipped: {error}");
            }
        };
        let mut other = program("sleep", &["1000"]);
        other.marker = "other/1/1".into();
        let other = processes.spawn(other).await.expect("a request");
        let mut command = nobodys_daemon();
        (command.view, command.directory) = (Some(id), target);
        let daemon = leave_daemon(&processes, command).await;
        assert_eq!(processes.end_job(&marker()).await.expect("the keeper").len(), 1);
        assert!(!is_alive(&daemon));
        processes.signal_step(other.id, Signal::Kill).await.expect("the keeper");
    });
}

fn term_is_heard_and_kill_is_not_refused() {
    with_keeper(|processes| async move {
        let text = "trap 'echo heard' TERM; echo ready; while :; do sleep 1000 & wait || true; done";
        let mut running = processes.spawn(script(text)).await.expect("a shell");
        assert_eq!(first_line(&running).await, "ready");
        processes.signal_step(running.id, Signal::Terminate).await.expect("the keeper");
        assert_eq!(first_line(&running).await, "heard");
        processes.signal_job(&marker(), Signal::Kill).await.expect("the keeper");
        assert_eq!(running.ended().await.expect("an end").ending, Ending::Signaled(9));
        // Its children are dead as well, or the pipe would stay open.
        read_to_end(running.stdout).await;
    });
}

fn term_reaches_a_whole_tree() {
    with_keeper(|processes| async move {
        // The deepest says when it is ready: a shell's child that has not called `exec` yet may lose a signal to its trap.
        let inner = "trap 'echo deep; exit 0' TERM; sh -c 'echo ready; exec sleep 1000' & wait";
        let mut command = script("trap 'exit 9' TERM; setsid sh -c \"$INNER\" & wait");
        command.environment.insert("INNER", inner);
        let mut running = processes.spawn(command).await.expect("a shell");
        assert_eq!(first_line(&running).await, "ready");
        processes.signal_step(running.id, Signal::Terminate).await.expect("the keeper");
        assert_eq!(running.ended().await.expect("an end").ending, Ending::Exited(9));
        assert_eq!(read_to_end(running.stdout).await, "deep\n");
    });
}

fn a_tree_that_forks_on_is_killed() {
    with_keeper(|processes| async move {
        let text = "echo ready; f() { trap '' TERM; while :; do sh -c 'exit 0' & done; }; f & f & wait";
        let mut running = processes.spawn(script(text)).await.expect("a shell");
        assert_eq!(first_line(&running).await, "ready");
        processes.signal_step(running.id, Signal::Kill).await.expect("the keeper");
        assert_eq!(running.ended().await.expect("an end").ending, Ending::Signaled(9));
        processes.end_job(&marker()).await.expect("the keeper");
        read_to_end(running.stdout).await;
    });
}

/// A program on its own, without a shell.
fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = script("");
    command.program = name.into();
    command.arguments = arguments.iter().map(Into::into).collect();
    command
}

fn steps_that_start_at_once_are_told_apart() {
    /// The command of this index, and how it must end. Short and long ones, and those that fail at each point.
    fn case(index: usize) -> (Command, Result<Ending, String>) {
        let exited = |code| Ok(Ending::Exited(code));
        match index % 8 {
            0 => (program("true", &[]), exited(0)),
            1 => (program("/no/such/program", &[]), Err("no program `/no/such/program` was found".to_owned())),
            2 => (script("exit $CODE"), exited(i32::try_from(index % 200).expect("small"))),
            3 => {
                let mut command = program("true", &[]);
                command.directory = format!("/no/where/{index}").into();
                let cause = "No such file or directory (os error 2)";
                (command, Err(format!("cannot enter the directory `/no/where/{index}`: {cause}")))
            }
            4 => (
                script(&format!("exit $CODE {}", "#".repeat(70_000))),
                exited(i32::try_from(index % 200).expect("small")),
            ),
            5 => (
                program("/etc/passwd", &[]),
                Err("`/etc/passwd` cannot be run: Permission denied (os error 13)".to_owned()),
            ),
            6 => (script("kill -9 $$"), Ok(Ending::Signaled(9))),
            _ => {
                let long = "x".repeat(140_000);
                (program("true", &[&long]), Err("arguments and environment are too long for this system".to_owned()))
            }
        }
    }
    with_keeper(|processes| async move {
        for _ in 0..5 {
            let mut running = Vec::new();
            for index in 0..200 {
                let (mut command, expected) = case(index);
                command.environment.insert("CODE", (index % 200).to_string());
                running.push((processes.spawn(command).await.expect("a request"), expected));
            }
            for (index, (step, expected)) in running.iter_mut().enumerate() {
                match (step.ended().await, expected) {
                    (Ok(end), Ok(ending)) => assert_eq!(end.ending, *ending, "{index}"),
                    (Err(error), Err(text)) => assert!(error.to_string().starts_with(&*text), "{index}: {error}"),
                    (other, _) => panic!("{index}: {other:?}"),
                }
            }
        }
        assert!(processes.end_job(&marker()).await.expect("the keeper").is_empty());
    });
}

fn a_signal_right_after_the_request_arrives() {
    with_keeper(|processes| async move {
        for round in 0..40 {
            let mut running = Vec::new();
            for _ in 0..20 {
                running.push(processes.spawn(program("sleep", &["1000"])).await.expect("a request"));
            }
            let (signal, number) = [(Signal::Terminate, 15), (Signal::Interrupt, 2), (Signal::Kill, 9)][round % 3];
            if round % 2 == 0 {
                for step in &running {
                    processes.signal_step(step.id, signal).await.expect("the keeper");
                }
            } else {
                processes.signal_job(&marker(), signal).await.expect("the keeper");
            }
            for step in &mut running {
                let end = step.ended().await.expect("it may end before its program begins, but it has started");
                assert_eq!(end.ending, Ending::Signaled(number), "round {round}");
            }
        }
    });
}

fn a_job_is_ended_while_others_start() {
    with_keeper(|processes| async move {
        for _ in 0..10 {
            let mut running = processes.spawn(script(DAEMON)).await.expect("a shell");
            let daemon = first_line(&running).await;
            running.ended().await.expect("an end");
            let mut others = Vec::new();
            for _ in 0..50 {
                let mut other = program("sleep", &["1000"]);
                other.marker = "other/1/1".into();
                others.push(processes.spawn(other).await.expect("a request"));
            }
            let left = processes.end_job(&marker()).await.expect("the keeper");
            assert_eq!(left.iter().map(|left| left.pid.to_string()).collect::<Vec<_>>(), [daemon]);
            processes.signal_job("other/1/1", Signal::Terminate).await.expect("the keeper");
            for other in &mut others {
                assert_eq!(other.ended().await.expect("an end").ending, Ending::Signaled(15));
            }
        }
    });
}

fn a_view_may_be_closed_while_steps_start_in_it() {
    let holder = tempfile::tempdir().expect("a directory");
    let made = |name: &str| {
        let path = holder.path().join(name);
        std::fs::create_dir(&path).expect("a directory");
        path
    };
    let (target, lower) = (made("target"), made("lower"));
    std::fs::write(lower.join("file"), "seen\n").expect("written");
    let views: Vec<View> = (0..10)
        .map(|index| View {
            target: target.clone(),
            lower: vec![lower.clone()],
            upper: made(&format!("upper-{index}")),
            work: made(&format!("work-{index}")),
            beside: None,
        })
        .collect();
    with_keeper(|processes| async move {
        for view in &views {
            // While these start, the view is made.
            let mut others = Vec::new();
            for _ in 0..20 {
                others.push(processes.spawn(program("true", &[])).await.expect("a request"));
            }
            let (id, _files) = match processes.open_view(view).await {
                Ok(opened) => opened,
                Err(error) => {
                    assert!(std::env::var_os("CI").is_none(), "{error}");
                    return println!("skipped: {error}");
                }
            };
            let mut inside = Vec::new();
            for _ in 0..20 {
                let mut command = script("cat file");
                (command.view, command.directory) = (Some(id), view.target.clone());
                inside.push(processes.spawn(command).await.expect("a request"));
            }
            processes.close_view(id).await.expect("the keeper");
            let mut late = script("true");
            late.view = Some(id);
            let error = run(&processes, late).await.expect_err("closed");
            assert_eq!(error, StepError::NotStarted(SpawnFailure::NoView));
            for mut step in inside {
                assert_eq!(step.ended().await.expect("an end").ending, Ending::Exited(0));
                assert_eq!(read_to_end(step.stdout).await, "seen\n");
            }
            for other in &mut others {
                assert_eq!(other.ended().await.expect("an end").ending, Ending::Exited(0));
            }
        }
    });
}

fn ten_thousand_quick_steps() {
    with_keeper(|processes| async move {
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
        let before = descriptors();
        for round in 0..1_000 {
            let commands = (0..10).map(|index| {
                let mut command = script("");
                command.program = if index == 0 { "false" } else { "true" }.into();
                command.arguments.clear();
                command
            });
            let mut running = Vec::new();
            for command in commands {
                running.push(processes.spawn(command).await.expect("a step"));
            }
            for (index, step) in running.iter_mut().enumerate() {
                let end = step.ended().await.expect("an end");
                assert_eq!(end.ending, Ending::Exited(i32::from(index == 0)), "round {round}");
            }
        }
        assert_eq!(descriptors(), before);
        let keepers = std::fs::read_to_string(format!("/proc/{}/status", processes.keeper_pid())).expect("a status");
        assert!(keepers.contains("Name:\trw-keeper"), "{keepers}");
    });
}

/// A main process that is killed in the middle of its work: prints its keeper's process id, then a daemon's, then that of a
/// step which ignores what it can.
fn main_with_daemons() {
    with_keeper(|processes| async move {
        println!("{}", processes.keeper_pid());
        let mut running = processes.spawn(script(DAEMON)).await.expect("a shell");
        println!("{}", first_line(&running).await);
        running.ended().await.expect("an end");
        let stubborn = "trap '' TERM INT HUP; echo $$; while :; do sleep 1000; done";
        let running = processes.spawn(script(stubborn)).await.expect("a shell");
        println!("{}", first_line(&running).await);
        std::future::pending().await
    });
}

/// A main process that is killed while it starts steps: prints its keeper's process id, then a line for every ten of them.
fn main_that_starts_steps() {
    with_keeper(|processes| async move {
        println!("{}", processes.keeper_pid());
        let mut running = Vec::new();
        for _ in 0..50 {
            for _ in 0..10 {
                running.push(processes.spawn(program("sleep", &["1000"])).await.expect("a request"));
            }
            println!("ten");
        }
        std::future::pending().await
    });
}

/// Kills one process of [`main_that_starts_steps`] after so many lines and looks that nothing is left of it.
fn check_killed_while_starting(lines: usize, victim: impl Fn(&mut std::process::Child, &str)) {
    let program = std::env::current_exe().expect("the test program has a path");
    let mut command = std::process::Command::new(program);
    command.arg("role-main-that-starts-steps").process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut main = command.spawn().expect("a child");
    let mut read = BufReader::new(main.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
    let keeper = read.next().expect("a line");
    assert_eq!(read.by_ref().take(lines).count(), lines);
    victim(&mut main, &keeper);
    wait_for_death(&keeper);
    let prefix = format!("test-{}/", main.id());
    let _ = main.kill();
    main.wait().expect("reaped");
    // What has been told to die may take a moment.
    for left in leftovers(&prefix) {
        wait_for_death(&left.pid.to_string());
    }
    assert!(leftovers(&prefix).is_empty());
}

fn a_main_process_killed_while_steps_start_leaves_nothing() {
    for lines in [1, 2, 3, 5, 8, 13, 21, 34] {
        check_killed_while_starting(lines, |main, _| main.kill().expect("killed"));
    }
}

fn a_keeper_killed_while_steps_start_takes_them_along() {
    for lines in [1, 2, 3, 5, 8, 13, 21, 34] {
        check_killed_while_starting(lines, |_, keeper| {
            let keeper = keeper.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
            rustix::process::kill_process(keeper, rustix::process::Signal::KILL).expect("killed");
        });
    }
}

/// Starts this program as [`main_with_daemons`] and gives it with the process ids it printed.
fn start_main_with_daemons() -> (std::process::Child, Vec<String>) {
    let program = std::env::current_exe().expect("the test program has a path");
    let mut command = std::process::Command::new(program);
    let mut main =
        command.arg("role-main-with-daemons").process_group(0).stdout(Stdio::piped()).spawn().expect("a child");
    let lines = BufReader::new(main.stdout.take().expect("a pipe")).lines().take(3);
    (main, lines.map(|line| line.expect("a line")).collect())
}

fn a_killed_main_process_leaves_nothing() {
    let (mut main, pids) = start_main_with_daemons();
    assert!(pids.len() == 3 && pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    let prefix = format!("test-{}/", main.id());
    assert!(leftovers(&prefix).len() >= 2);
    // As a terminal's Ctrl-C would, first: the keeper does not hear it.
    main.kill().expect("killed");
    main.wait().expect("reaped");
    pids.iter().for_each(|pid| wait_for_death(pid));
    assert!(leftovers(&prefix).is_empty());
}

fn a_keeper_that_is_killed_takes_its_steps_along() {
    with_keeper(|processes| async move {
        let mut running = processes.spawn(script("echo $$; sleep 1000")).await.expect("a shell");
        let step = first_line(&running).await;
        let keeper = rustix::process::Pid::from_raw(processes.keeper_pid()).expect("a process");
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).expect("killed");
        assert_eq!(running.ended().await, Err(StepError::Lost));
        wait_for_death(&step);
        assert_eq!(run(&processes, script("true")).await.expect_err("lost"), StepError::Lost);
        // What is below the step has to be found by its marker.
        let _ = kill_leftovers(&marker());
        assert!(leftovers(&marker()).is_empty());
    });
}

fn leftovers_are_found_by_their_marker() {
    let prefix = format!("left-{}/", std::process::id());
    let mut command = std::process::Command::new("sleep");
    let mut left = command.arg("1000").env("ROPEWALK_ATTEMPT", format!("{prefix}1/1")).spawn().expect("a process");
    // While it calls `exec` it has neither the old environment nor the new one.
    while !leftovers(&prefix).iter().any(|left| left.name == "sleep") {}
    let killed = kill_leftovers(&prefix);
    assert_eq!(
        killed.iter().map(|left| (left.pid.cast_unsigned(), left.name.as_str())).collect::<Vec<_>>(),
        [(left.id(), "sleep")]
    );
    left.wait().expect("reaped");
    assert!(kill_leftovers(&prefix).is_empty());
}

fn it_is_refused_once_there_are_threads() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv().is_ok());
    let error = Keeper::start().expect_err("a fork would be unsound");
    assert_eq!(error.to_string(), "start the keeper process: this process already has 2 threads");
    drop(sender);
    thread.join().expect("joined");
}
