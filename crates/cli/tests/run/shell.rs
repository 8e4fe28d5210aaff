//! `ropewalk shell`: what is found of a job after it ended, at its end and at each of its steps.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use super::{Repository, text, wait_for};

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

/// Runs with the secrets of these tests, each with another word behind it.
fn with_secrets(repository: &Repository, arguments: &[&str], code: i32, behind: &str) -> String {
    let mut command = repository.command(arguments);
    command.env("TOKEN", format!("s3cr3t-value{behind}")).env("OTHER", format!("0ther-value{behind}"));
    let output = command.output().expect("ropewalk starts");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    text(&output)
}

#[test]
fn secrets_are_given_anew_or_not_at_all() {
    let repository = Repository::new(
        "jobs: { a: { secrets: [TOKEN, OTHER], run: ['echo \"COPY=$TOKEN\" >> $ROPEWALK_ENV', 'false'] } }",
    );
    let with = |arguments: &[&str], code: i32| with_secrets(&repository, arguments, code, "");
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

/// A job that writes its secrets into files, in two steps.
const WRITES_SECRETS: &str = r#"
jobs:
  a:
    environment: ENVIRONMENT
    secrets: [TOKEN, OTHER]
    run:
      - 'mkdir -p sub; echo "is $TOKEN" > sub/held; echo "$OTHER" | base64 > coded; ln sub/held twin; echo plain > sub/plain; echo "$TOKEN" > /tmp/TEMPORARY'
      - 'echo plain > coded; echo of the second step > second; test -s /tmp/TEMPORARY; exit 3'
"#;

/// What a shell sees of it, its notes aside: the first line is of the files at that moment.
const LOOK_FOR_SECRETS: [&str; 4] = [
    "--",
    "sh",
    "-c",
    "cat sub/held coded twin sub/plain; cat second; ls sub; cat /tmp/TEMPORARY; echo more > sub/more; true",
];

#[test]
fn what_holds_a_secret_is_not_shown_without_it() {
    let has_sandbox = Command::new("bwrap").arg("--version").output().is_ok();
    assert!(has_sandbox || std::env::var_os("CI").is_none(), "bubblewrap is needed");
    for environment in ["host", "sandbox"].into_iter().take(1 + usize::from(has_sandbox)) {
        // A host job's `/tmp` is the machine's, of which nothing is kept.
        let temporary = format!("of-a-test-{}-{environment}", std::process::id());
        let fill = |text: &str| text.replace("ENVIRONMENT", environment).replace("TEMPORARY", &temporary);
        let repository = Repository::new(&fill(WRITES_SECRETS));
        with_secrets(&repository, &["run"], 1, "");
        let look = LOOK_FOR_SECRETS.map(fill);
        let shell = |moment: &str, flags: &[&str], behind: &str| {
            let look = look.iter().map(String::as_str);
            let words: Vec<&str> =
                ["shell", "1", moment].into_iter().chain(flags.iter().copied()).chain(look).collect();
            with_secrets(&repository, &words, 0, behind)
        };
        let all = ["--secret", "TOKEN", "--secret", "OTHER"];
        for moment in ["a@1", "a@failed", "a"] {
            let is_first = moment == "a@1";
            let mut held = vec!["sub/held", "twin"];
            held.splice(0..0, is_first.then_some("coded"));
            let temporary = format!("/tmp/{temporary}");
            if environment == "sandbox" {
                held.insert(0, &temporary);
            }
            for (flags, behind) in [(&[][..], ""), (&["--secret", "TOKEN"], ""), (&all, "-of-another-day")] {
                let said = shell(moment, flags, behind);
                let named: Vec<String> = held.iter().map(|name| format!("`{name}`")).collect();
                let note = format!("without files that hold a secret: {}", named.join(", "));
                assert!(said.contains(&note), "{environment} {moment}: {said}");
                let is_other = said.contains("(the job had another value of OTHER, TOKEN than the one that was given)");
                assert_eq!(is_other, !behind.is_empty(), "{said}");
                let said = if environment == "host" { without_machine_s(&said) } else { said };
                assert!(
                    !said.contains("s3cr3t-value") && !said.contains("MHRoZXItdmFsdWU"),
                    "{environment} {moment}: {said}"
                );
                let plain = if is_first { "plain\n" } else { "plain\nplain\nof the second step\n" };
                assert!(said.starts_with(&format!("{plain}plain\n")), "{environment} {moment}: {said}");
            }
            let said = shell(moment, &all, "");
            let coded = if is_first { "MHRoZXItdmFsdWUK" } else { "plain" };
            let files = format!("is s3cr3t-value\n{coded}\nis s3cr3t-value\nplain\n");
            assert!(said.starts_with(&files) && !said.contains("without files"), "{environment} {moment}: {said}");
            assert!(
                said.contains("held\nplain\ns3cr3t-value"),
                "what shells before changed is gone, {environment}: {said}"
            );
        }
        // A shell on the machine itself does not find them where they are kept either.
        let find = format!("grep -rl s3cr3t-value '{}' 2>&1; true", repository.folder.path().join("data").display());
        let words = ["shell", "1", "a", "--", "sh", "-c", &find];
        let said = with_secrets(&repository, &words, 0, "");
        assert!(!said.contains("upper"), "{environment}: {said}");
        let _ = std::fs::remove_file(format!("/tmp/{temporary}"));
    }
}

#[test]
fn a_job_without_secrets_does_not_show_those_of_another() {
    let repository = Repository::new(
        "jobs: { login: { secrets: [TOKEN, OTHER], run: 'echo $TOKEN > netrc; exit 1' }, lint: { run: ['echo 1 > f', 'echo 2 > f; exit 1'] } }",
    );
    with_secrets(&repository, &["run"], 1, "");
    let data = repository.folder.path().join("data");
    let find = format!("cat f; find '{}' -path '*/workspaces*' -printf '%f\\n'; echo more >> f", data.display());
    for (moment, content) in [("lint", "2\n"), ("lint", "2\nmore\n"), ("lint@1", "1\n")] {
        check(&repository, moment, &find, &format!("{content}workspaces\n"));
    }
}

/// Without the line of the machine's own `/tmp`.
fn without_machine_s(said: &str) -> String {
    said.replacen("s3cr3t-value\n", "", 1)
}

#[test]
fn a_job_with_secrets_that_was_killed_is_not_shown_without_them() {
    let repository =
        Repository::new("jobs: { a: { secrets: [TOKEN, OTHER], run: 'echo $TOKEN > held; echo ready; sleep 1000' } }");
    let mut command = repository.command(&["run", "--output", "plain"]);
    command.env("TOKEN", "s3cr3t-value").env("OTHER", "0ther-value").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = command.spawn().expect("ropewalk starts");
    drop(wait_for(&mut run, "a | ready"));
    run.kill().expect("kill -9");
    run.wait().expect("a child");
    let shell = |flags: &[&'static str]| [&["shell", "1", "a"], flags, &["--", "cat", "held"]].concat();
    let refusal = with_secrets(&repository, &shell(&["--secret", "TOKEN"]), 2, "");
    assert!(refusal.contains("--secret OTHER --secret TOKEN gives them anew"), "{refusal}");
    let said = with_secrets(&repository, &shell(&["--secret", "TOKEN", "--secret", "OTHER"]), 0, "");
    assert!(said.starts_with("s3cr3t-value\n"), "{said}");
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

/// Whether sandboxes can be had here; they must where CI runs.
fn has_sandbox() -> bool {
    let has_sandbox = Command::new("bwrap").arg("--version").output().is_ok();
    assert!(has_sandbox || std::env::var_os("CI").is_none(), "bubblewrap is needed");
    if !has_sandbox {
        println!("skipped: no bubblewrap");
    }
    has_sandbox
}

#[test]
fn a_sandboxed_job_that_was_killed_is_entered_in_its_sandbox() {
    if !has_sandbox() {
        return;
    }
    let repository = Repository::new(
        "jobs: { a: { environment: { sandbox: { network: off } }, run: 'echo 1 > made; echo 2 > /tmp/mine; echo ready; sleep 1000' } }",
    );
    let mut command = repository.command(&["run", "--output", "plain"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ropewalk starts");
    drop(wait_for(&mut run, "a | ready"));
    run.kill().expect("kill -9");
    run.wait().expect("a child");
    let look = "cat made /tmp/mine; echo no > /etc/passwd; grep -c : /proc/net/dev";
    check(&repository, "a", look, "1\n2\n1\nsh: 1: cannot create /etc/passwd: Read-only file system\n");
}

#[test]
fn files_whose_names_are_no_text_are_seen_and_entered() {
    if !has_sandbox() {
        return;
    }
    let repository = Repository::new("jobs: { a: { environment: sandbox, inputs: [\"x/**\"], run: 'cat x/*' } }");
    let folder = repository.root().join("x");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join(OsStr::from_bytes(b"m\xff")), "odd\n").expect("a file");
    repository.check(&["run"], 0);
    check(&repository, "a", "cat x/*", "odd\n");
}

#[test]
fn where_the_directory_of_a_step_is_not_there_the_nearest_one_opens() {
    for environment in ["host", "sandbox"].into_iter().take(1 + usize::from(has_sandbox())) {
        let repository = Repository::new(&format!(
            "jobs:\n  a:\n    environment: {environment}\n    run:\n      - mkdir -p deep/er\n      - working_directory: deep/er\n        \
             run: rm -r ../er; exit 1\n  b:\n    environment: {environment}\n    run: [{{ working_directory: nothere, run: 'true' }}]\n",
        ));
        repository.check(&["run"], 1);
        let root = repository.root().canonicalize().expect("a folder");
        let root = root.display();
        let check = |job: &str, place: &str, directory: &str| {
            let said = format!("`{root}/{directory}` is not there, or cannot be entered: this is `{root}{place}`\n");
            check(&repository, job, "pwd", &format!("{root}{place}\n{said}"));
        };
        check("a@failed", "/deep", "deep/er");
        check("a", "/deep", "deep/er");
        check("b@failed", "", "nothere");
    }
}

#[test]
fn a_sandboxed_job_is_entered_in_its_sandbox() {
    if !has_sandbox() {
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
