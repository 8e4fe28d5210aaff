//! `ropewalk shell`: what is found of a job after it ended, at its end and at each of its steps.

use std::process::Command;

use super::{Repository, text};

/// Runs a script in a shell of build 1 and compares both streams.
#[track_caller]
fn check(repository: &Repository, job: &str, script: &str, expected: &str) {
    let output = repository.ropewalk(&["shell", "1", job, "--", "sh", "-c", script]);
    assert_eq!(text(&output), expected, "{job}");
}

#[test]
fn a_shell_opens_where_the_job_failed() {
    let repository = Repository::new("jobs: { a: { env: { COLOUR: green }, run: 'echo made > made.txt; exit 1' } }");
    repository.check(&["run"], 1);
    repository.write("file.txt", "edited since\n");
    let text = repository
        .check(&["shell", "last-failed", "a", "--", "sh", "-c", "cat made.txt file.txt; echo $COLOUR; pwd"], 0);
    assert!(text.starts_with("made\ncommitted\ngreen\n"), "{text}");
    assert!(!repository.root().join("made.txt").exists());
    repository.check(&["shell", "last", "a", "--", "sh", "-c", "exit 9"], 9);
}

/// A job that changes the same files from step to step, fails, and cleans up after itself.
const STEPS: &str = r#"jobs:
  a:
    env: { COLOUR: green }
    run:
      - name: make
        run: |
          mkdir deep; echo one > deep/one; echo linked > first; ln first second
          head -c 3000000 /dev/zero > big; rm file.txt; echo FROM=make >> $ROPEWALK_ENV
      - name: look
        run: test -e big
      - name: change
        env: { OWN: step }
        run: |
          mv deep moved; rm first; printf X | dd of=big conv=notrunc status=none; echo again > file.txt
      - name: break
        working_directory: moved
        run: echo made > broken; echo two > one; exit 3
      - name: never
        run: echo never
      - name: clean
        if: always()
        run: rm moved/broken
"#;

/// The names of all files, which two are one file, the first byte of the large one, and what variables say.
const LOOK: &str = "cd $ROPEWALK_WORKSPACE; find . -name .git -prune -o -name .ropewalk -prune -o -type f -printf '%P\\n' | sort | \
     tr '\\n' ' '; test first -ef second && echo linked; cat */one 2>/dev/null; head -c1 big 2>/dev/null | tr '\\000' 0; \
     echo $COLOUR $FROM $OWN";

#[test]
fn every_step_is_entered_as_it_ended() {
    let repository = Repository::new(STEPS);
    repository.check(&["run"], 1);
    let check = |place: &str, expected: &str| {
        check(&repository, place, LOOK, &format!("{expected}\n"));
    };
    check("a@start", "file.txt green");
    let made = "big deep/one first second linked\none\n0green";
    check("a@1", made);
    check("a@make", made);
    check("a@look", "big deep/one first second linked\none\n0green make");
    check("a@3", "big file.txt moved/one second one\nXgreen make step");
    let broken = "big file.txt moved/broken moved/one second two\nXgreen make";
    check("a@failed", broken);
    check("@failed", broken);
    check("a@break", broken);
    let ended = "big file.txt moved/one second two\nXgreen make";
    check("a@clean", ended);
    check("a", ended);
    let refusal = repository.check(&["shell", "1", "a@never", "--", "true"], 2);
    assert!(
        refusal.contains("no step `never` ran: it has 1 (make), 2 (look), 3 (change), 4 (break), 6 (clean)"),
        "{refusal}"
    );
    let refusal = repository.check(&["shell", "1", "b@1", "--", "true"], 2);
    assert!(refusal.contains("no job `b`"), "{refusal}");
}

#[test]
fn a_step_is_entered_where_it_stood_and_stays_as_it_was() {
    let repository = Repository::new(STEPS);
    repository.check(&["run"], 1);
    check(&repository, "a@failed", "basename $PWD; cat broken; rm broken; echo more > more; exit 0", "moved\nmade\n");
    check(&repository, "a@failed", "cat broken; ls", "made\nbroken\none\n");
    check(&repository, "a@make", "echo other > big; mv deep elsewhere; cat elsewhere/one", "one\n");
    check(&repository, "a@look", "wc -c < big; cat deep/one", "3000000\none\n");
    let visits = repository.folder.path().join("data");
    let left = Command::new("find").arg(visits).args(["-path", "*/visits/*"]).output().expect("find");
    assert_eq!(text(&left), "", "what is made for one visit goes with it");
}

#[test]
fn files_that_do_not_change_are_kept_once() {
    let repository = Repository::new(
        "jobs: { a: { run: ['echo kept > kept; sleep 0.1', 'echo 1 > f', 'echo 2 > f', 'true', 'exit 1'] } }",
    );
    repository.check(&["run"], 1);
    check(&repository, "a@2", "cat kept f", "kept\n1\n");
    check(&repository, "a@3", "cat kept f", "kept\n2\n");
    check(&repository, "a@4", "cat kept f", "kept\n2\n");
    let data = repository.folder.path().join("data");
    let links = Command::new("find").arg(data).args(["-name", "kept", "-printf", "%n "]).output().expect("find");
    // Four layers have it, and the job's own file, which it could still write in place, is none of these names.
    let mut links: Vec<&str> = str::from_utf8(&links.stdout).expect("numbers").split_whitespace().collect();
    links.sort_unstable();
    assert_eq!(links, ["1", "4", "4", "4", "4"]);
}

#[test]
fn secrets_are_given_anew_or_not_at_all() {
    let repository = Repository::new(
        "jobs: { a: { secrets: [TOKEN, OTHER], run: ['echo \"$TOKEN\" > f; echo \"COPY=$TOKEN\" >> $ROPEWALK_ENV', 'false'] } }",
    );
    let with = |arguments: &[&str], code: i32| {
        let output = repository.command(arguments).env("TOKEN", "s3cr3t-value").env("OTHER", "0ther-value").output();
        let output = output.expect("ropewalk starts");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        text(&output)
    };
    with(&["run"], 1);
    let look = ["--", "sh", "-c", "echo \"<$TOKEN> <$OTHER> <$COPY>\""];
    let shell = |flags: &[&'static str]| [&["shell", "1", "a@failed"], flags, &look].concat();
    assert_eq!(
        with(&shell(&[]), 0),
        "<> <> <***>\nnot given: the job's secrets OTHER, TOKEN; --secret OTHER --secret TOKEN gives them anew\n"
    );
    assert_eq!(
        with(&shell(&["--secret", "TOKEN"]), 0),
        "<s3cr3t-value> <> <***>\nnot given: the job's secrets OTHER; --secret OTHER gives them anew\n"
    );
    let refusal = with(&shell(&["--secret", "HOME"]), 2);
    assert!(refusal.contains("the job had no secret `HOME`"), "{refusal}");
    let refusal = repository.check(&shell(&["--secret", "TOKEN"]), 2);
    assert!(refusal.contains("no value for the secrets TOKEN: export them"), "{refusal}");
}

#[test]
fn what_is_too_much_is_not_kept_and_said() {
    let repository = Repository::new(
        "jobs: { a: { run: ['mkdir many; cd many; seq 20001 | xargs touch', 'rm -r many; echo few > few', 'exit 1'] } }",
    );
    let told = repository.check(&["run"], 1);
    let note = "`ropewalk shell` cannot open step 1 of this job: the job had changed more than 20000 files and directories by then";
    assert!(told.contains(note) || repository.check(&["show", "1", "a"], 0).contains(note), "{told}");
    let refusal = repository.check(&["shell", "1", "a@1", "--", "true"], 2);
    assert!(refusal.contains("are not kept: the job had changed more than 20000 files"), "{refusal}");
    check(&repository, "a@2", "ls", "few\nfile.txt\n");
}

#[test]
fn the_oldest_steps_go_when_all_take_too_much() {
    let repository = Repository::new("jobs: { a: { run: ['head -c 60000 /dev/zero > f', 'echo end > f; exit 1'] } }");
    let run = || {
        let run = repository.command(&["run", "--output", "quiet"]).env("ROPEWALK_KEEP_STEPS_BYTES", "100000").output();
        assert_eq!(run.expect("ropewalk starts").status.code(), Some(1));
    };
    run();
    check(&repository, "a@1", "wc -c < f", "60000\n");
    run();
    let refusal = repository.check(&["shell", "1", "a@1", "--", "true"], 2);
    assert!(refusal.contains("took more than it may, and the oldest went first"), "{refusal}");
    check(&repository, "a@failed", "cat f", "end\n");
    assert_eq!(repository.check(&["shell", "2", "a@1", "--", "sh", "-c", "wc -c < f"], 0), "60000\n");
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let repository = Repository::new("jobs: { a: { run: ['echo 1 > f', 'echo 2 > f; exit 1'] } }");
    let run = repository.command(&["run"]).env("ROPEWALK_KEEP_STEPS_BYTES", "0").output().expect("ropewalk starts");
    assert!(!text(&run).contains("cannot open"), "{}", text(&run));
    let refusal = repository.check(&["shell", "1", "a@1", "--", "true"], 2);
    assert!(refusal.contains("$ROPEWALK_KEEP_STEPS_BYTES"), "{refusal}");
    check(&repository, "a@failed", "cat f", "2\n");
}

#[test]
fn a_job_in_the_tree_itself_keeps_its_end_alone() {
    let repository = Repository::new("jobs: { a: { workspace: in_place, run: ['echo 1 > f', 'exit 1'] } }");
    repository.check(&["run"], 1);
    let refusal = repository.check(&["shell", "1", "a@1", "--", "true"], 2);
    assert!(refusal.contains("of its steps nothing is kept, and its end is your tree"), "{refusal}");
}

#[test]
fn a_sandboxed_job_is_entered_in_its_sandbox() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "bubblewrap is needed");
        println!("skipped: no bubblewrap");
        return;
    }
    let repository = Repository::new(
        "jobs: { a: { environment: { sandbox: { network: off } }, run: ['echo 1 > /tmp/mine; echo f > f', 'echo 2 > /tmp/mine; exit 1'] } }",
    );
    repository.check(&["run"], 1);
    let look = "cat /tmp/mine; echo no > /etc/passwd; grep -c : /proc/net/dev; echo 3 > /tmp/mine; cat f";
    let refused = "sh: 1: cannot create /etc/passwd: Read-only file system\n";
    check(&repository, "a@1", look, &format!("1\n1\nf\n{refused}"));
    check(&repository, "a@1", look, &format!("1\n1\nf\n{refused}"));
    check(&repository, "a@failed", look, &format!("2\n1\nf\n{refused}"));
    check(&repository, "a", look, &format!("2\n1\nf\n{refused}"));
}
