//! What a program is made of is noticed wherever it lies: beside a single file, behind a build script, in a package that only tests use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Repository, data};

/// A package that uses another of the repository.
const USES_LIBRARY: &str = "[package]\nname = \"pipeline\"\nedition = \"2024\"\n\n[dependencies]\n\
                            ropewalk = { path = \".sdk/ropewalk\" }\nlibrary = { path = \"../library\" }\n\n[workspace]\n";

impl Repository {
    /// Asserts that a push has a job with this script, twice: the second time nothing is so fresh that nothing is kept of it.
    #[track_caller]
    fn plans(&self, variables: &[(&str, &str)], script: &str) {
        for _ in 0..2 {
            let mut command = self.command(&["plan", "--output", "json"]);
            let output = command.envs(variables.iter().copied()).output().expect("ropewalk starts");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(script), "no `{script}` in {text}\n{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// The binaries that are kept of it.
    fn binaries(&self) -> Vec<PathBuf> {
        let name = self.root.file_name().expect("a name").to_string_lossy();
        let projects = fs::read_dir(data(&name)).expect("projects are kept").flatten();
        let entries = projects.flat_map(|project| fs::read_dir(project.path().join("programs")).into_iter().flatten());
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().contains("recipe-"))).collect()
    }
}

#[test]
fn what_lies_beside_a_single_file_is_part_of_it() {
    let repository = Repository::new("beside");
    repository.write(
        ".ropewalk/pipeline.rs",
        "mod helper;\n\nfn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| {\n        \
         ci.job(\"a\").run(format!(\"echo {} {}\", helper::VERSION, include_str!(\"word.txt\").trim()));\n    })\n}\n",
    );
    repository.write(".ropewalk/helper.rs", "pub const VERSION: u32 = 1;\n");
    repository.write(".ropewalk/word.txt", "first");
    repository.plans(&[], "echo 1 first");
    repository.write(".ropewalk/helper.rs", "pub const VERSION: u32 = 2;\n");
    repository.plans(&[], "echo 2 first");
    repository.write(".ropewalk/word.txt", "second");
    repository.plans(&[], "echo 2 second");
    repository.prints(&["run"], 0, &["a | 2 second\n", "build 1 passed"]);
    // A test that stands there guards it, and a fault there is one.
    let fails = "pub const VERSION: u32 = 2;\n\n#[test]\nfn it_is_three() {\n    assert_eq!(VERSION, 3);\n}\n";
    repository.write(".ropewalk/helper.rs", fails);
    let said = repository.prints(&["run"], 2, &["it_is_three", "do not pass; nothing was run"]);
    assert!(!said.contains("a: passed"), "{said}");
    repository.write(".ropewalk/helper.rs", "pub const VERSION: u32 = ;\n");
    repository.prints(&["check"], 2, &["expected expression", "helper.rs:1:26"]);
    // So does a file that only the tests are made of.
    repository.write(".ropewalk/helper.rs", "pub const VERSION: u32 = 2;\n\n#[cfg(test)]\nmod tests;\n");
    repository.write(".ropewalk/helper/tests.rs", "#[test]\nfn numbers() {\n    assert!(super::VERSION == 2);\n}\n");
    repository.prints(&["run"], 0, &["passed"]);
    repository.write(".ropewalk/helper/tests.rs", "#[test]\nfn numbers() {\n    assert!(super::VERSION == 4);\n}\n");
    repository.prints(&["run"], 2, &["numbers", "do not pass; nothing was run"]);
}

/// At the project's root a program lies among files of another package.
#[test]
fn a_single_file_may_lie_beside_a_package() {
    let repository = Repository::new("among");
    repository.write("Cargo.toml", "[package]\nname = \"mine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    repository.write("build.rs", "fn main() {\n    panic!()\n}\n");
    repository.write("src/lib.rs", "it is not compiled\n");
    let program = |word: &str| {
        format!(
            "fn main() {{\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"{word}\").run(\"true\")))\n}}\n"
        )
    };
    for word in ["first", "second"] {
        repository.write("ci.rs", &program(word));
        repository.prints(&["plan", "ci.rs"], 0, &[word]);
    }
    assert!(repository.read("Cargo.toml").contains("mine"));
}

#[test]
fn what_build_scripts_read_is_part_of_a_program() {
    let repository = Repository::new("scripts");
    repository.write(".ropewalk/Cargo.toml", USES_LIBRARY);
    repository.write(
        ".ropewalk/src/main.rs",
        "fn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(format!(\"echo {}\", library::WORDS))))\n}\n",
    );
    repository.write(
        "library/Cargo.toml",
        "[package]\nname = \"library\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n",
    );
    repository.write("library/src/lib.rs", "pub const WORDS: &str = env!(\"WORDS\");\n");
    repository.write("library/words/a.txt", "one");
    // Anything of its package counts where a script says nothing.
    let script = |said: &str| {
        let read = "let words = std::fs::read_dir(\"words\").unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());";
        let mut text =
            format!("fn main() {{\n    {read}\n    let mut words: Vec<String> = words.collect();\n    words.sort();\n");
        text.push_str("    words.extend(std::env::var(\"ROPEWALK_TEST_CHANNEL\"));\n");
        text.push_str("    println!(\"cargo::rustc-env=WORDS={}\", words.join(\" \"));\n");
        format!("{text}    {said}\n}}\n")
    };
    repository.write("library/build.rs", &script(""));
    repository.plans(&[], "echo one\"");
    repository.write("library/words/a.txt", "two");
    repository.plans(&[], "echo two\"");
    // What it names counts: a folder with all in it, a variable.
    let named = "println!(\"cargo::rerun-if-changed=words\\ncargo:rerun-if-env-changed=ROPEWALK_TEST_CHANNEL\");";
    repository.write("library/build.rs", &script(named));
    repository.plans(&[], "echo two\"");
    repository.write("library/words/a.txt", "three");
    repository.plans(&[], "echo three\"");
    repository.write("library/words/b.txt", "zebra");
    repository.plans(&[], "echo three zebra\"");
    repository.plans(&[("ROPEWALK_TEST_CHANNEL", "zz-beta")], "echo three zebra zz-beta\"");
    repository.plans(&[], "echo three zebra\"");
}

/// A macro of the repository may make a test of a function: only cargo knows.
#[test]
fn a_test_that_a_macro_makes_guards_the_build() {
    let repository = Repository::new("attribute");
    let manifest = USES_LIBRARY
        .replace("library = { path = \"../library\" }\n", "\n[dev-dependencies]\ncases = { path = \"../cases\" }\n");
    repository.write(".ropewalk/Cargo.toml", &manifest);
    let program = |expected: &str| {
        format!(
            "use ropewalk::Ci;\n\nfn main() {{\n    Ci::main(ci)\n}}\n\nfn ci(ci: &Ci) {{\n    ci.job(\"deploy\").run(\"echo it ran\");\n}}\n\n\
             #[cases::contest]\nfn it_deploys() {{\n    use ropewalk::testing::*;\n    \
             evaluate(ci, push(\"main\")).assert_runs([\"{expected}\"]);\n}}\n"
        )
    };
    repository.write(
        ".ropewalk/src/main.rs",
        &program("build").replace("#[cases::contest]", "#[cfg_attr(test, cases::contest)]"),
    );
    repository.write(
        "cases/Cargo.toml",
        "[package]\nname = \"cases\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\nproc-macro = true\n\n[workspace]\n",
    );
    let cases = "use proc_macro::TokenStream;\n\n#[proc_macro_attribute]\npub fn contest(_: TokenStream, item: TokenStream) -> TokenStream {\n    \
                 let mut made: TokenStream = \"#[test]\".parse().unwrap();\n    made.extend(item);\n    made\n}\n";
    repository.write("cases/src/lib.rs", cases);
    let said = repository.prints(&["run"], 2, &["it_deploys", "do not pass; nothing was run"]);
    assert!(!said.contains("deploy | it ran"), "{said}");
    repository.write(
        ".ropewalk/src/main.rs",
        &program("deploy").replace("#[cases::contest]", "#[cfg_attr(test, cases::contest)]"),
    );
    repository.prints(&["run"], 0, &["deploy | it ran\n"]);
    // Only the tests are made of it.
    repository.write("cases/src/lib.rs", &cases.replace("\"#[test]\"", "\"#[test] #[should_panic]\""));
    repository.prints(&["run"], 2, &["it_deploys", "do not pass; nothing was run"]);
}

#[test]
fn binaries_stay_whole_and_for_as_long_as_a_build_needs_them() {
    let repository = Repository::new("binaries");
    let program = |word: &str| {
        format!(
            "use ropewalk::Ci;\n\nfn main() {{\n    Ci::main(|ci: &Ci| {{\n        let gate = ci.gate(\"ship\");\n        \
             ci.job(\"shipped\").needs(&gate).run_fn(|cx, ()| cx.sh(\"echo {word}\"));\n    }})\n}}\n"
        )
    };
    repository.write(".ropewalk/pipeline.rs", &program("first"));
    repository.prints(&["run"], 4, &["approve"]);
    let first = &repository.binaries().pop().expect("it is kept");
    // What a loss of power has left of it is not used.
    let bytes = fs::metadata(first).expect("it is there").len();
    let file = fs::File::options().write(true).open(first).expect("it is ours");
    file.set_len(0).expect("it is emptied");
    repository.prints(&["plan"], 0, &["shipped"]);
    assert_eq!(fs::metadata(first).expect("it is there").len(), bytes);
    // Another binary is old, and named by no build.
    let age = |path: &PathBuf| {
        let file = fs::File::open(path).expect("it is there");
        file.set_modified(SystemTime::now() - Duration::from_secs(30 * 24 * 3600)).expect("it is ours");
    };
    let other = first.with_file_name("0".repeat(64));
    fs::write(&other, "old").expect("a file");
    age(first);
    age(&other);
    repository.write(".ropewalk/pipeline.rs", &program("second"));
    repository.prints(&["plan"], 0, &["shipped"]);
    assert!(first.is_file(), "a build that waits at a gate needs it");
    assert!(!other.is_file(), "nothing needs it");
    // Who uses one makes it young again.
    repository.write(".ropewalk/pipeline.rs", &program("first"));
    age(first);
    repository.prints(&["plan"], 0, &["shipped"]);
    let modified = fs::metadata(first).and_then(|metadata| metadata.modified()).expect("it is there");
    assert!(SystemTime::now().duration_since(modified).is_ok_and(|age| age < Duration::from_secs(24 * 3600)));
}

/// Cargo is waited for, and no process that a test has left.
#[test]
fn a_process_that_a_test_leaves_is_not_waited_for() {
    let repository = Repository::new("leaves");
    let file = repository.root.join("left");
    let leaves = format!(
        "std::process::Command::new(\"sh\").args([\"-c\", \"echo $$ > {}; exec sleep 3600\"]).spawn().unwrap();",
        file.display()
    );
    let waits = format!("while !std::fs::read_to_string({file:?}).is_ok_and(|it| it.ends_with('\\n')) {{}}");
    let program =
        "fn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(\"echo it ran\")))\n}\n";
    repository.write(
        ".ropewalk/pipeline.rs",
        &format!("{program}\n#[test]\nfn it_leaves_one() {{\n    {leaves}\n    {waits}\n}}\n"),
    );
    repository.prints(&["run"], 0, &["a | it ran\n"]);
    end(&repository.read("left"));
}

/// Whoever ends `run` ends the tests that it waits for.
#[test]
fn tests_end_with_the_command_that_runs_them() {
    let repository = Repository::new("ends");
    let file = repository.root.join("test");
    let tells = format!("std::fs::write({file:?}, format!(\"{{}}\\n\", std::process::id())).unwrap();");
    let program = "fn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(\"true\")))\n}\n";
    let text = format!("{program}\n#[test]\nfn it_hangs() {{\n    {tells}\n    loop {{ std::thread::park(); }}\n}}\n");
    repository.write(".ropewalk/pipeline.rs", &text);
    let mut run = repository.command(&["run"]).spawn().expect("ropewalk starts");
    while !fs::read_to_string(&file).is_ok_and(|it| it.ends_with('\n')) {
        assert!(run.try_wait().expect("it can be asked").is_none(), "it ended before its test began");
        std::thread::sleep(Duration::from_millis(10));
    }
    let test = pid(&repository.read("test"));
    kill_process(Pid::from_child(&run), Signal::TERM).expect("it runs");
    run.wait().expect("it ends");
    // It was killed before the command ended; its parent may take a moment to notice.
    while test_kill_process(test).is_ok() && !is_dead(test) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().expect("a number")).expect("a process")
}

/// Whether nobody has yet asked how it ended.
fn is_dead(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    status.map_or(true, |status| status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

fn end(process: &str) {
    kill_process(pid(process), Signal::KILL).expect("it was left");
}

/// The line that names the SDK may stand in another manifest of the workspace.
#[test]
fn a_package_may_be_a_member_of_a_workspace() {
    let repository = Repository::new("member");
    let program =
        "fn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(\"echo it ran\")))\n}\n";
    let package = "[package]\nname = \"pipeline\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n";
    // Of one around it.
    repository.write(
        "Cargo.toml",
        "[workspace]\nmembers = [\".ropewalk\"]\nresolver = \"3\"\n\n[workspace.dependencies]\nropewalk = { path = \".ropewalk/.sdk/ropewalk\" }\n",
    );
    repository.write(".ropewalk/Cargo.toml", &format!("{package}ropewalk = {{ workspace = true }}\n"));
    repository.write(".ropewalk/src/main.rs", program);
    repository.prints(&["run"], 0, &["a | it ran\n"]);
    // Of one that is the pipeline's own and has no package itself.
    fs::remove_dir_all(repository.root.join(".ropewalk")).expect("it is there");
    fs::remove_file(repository.root.join("Cargo.toml")).expect("it is there");
    repository.write(".ropewalk/Cargo.toml", "[workspace]\nmembers = [\"jobs\"]\nresolver = \"3\"\n");
    repository.write(".ropewalk/jobs/Cargo.toml", &format!("{package}ropewalk = {{ path = \"../.sdk/ropewalk\" }}\n"));
    repository.write(".ropewalk/jobs/src/main.rs", program);
    repository.prints(&["run"], 0, &["a | it ran\n"]);
    // A build script that appears there is part of it.
    repository.plans(&[], "echo it ran");
    repository.write(".ropewalk/jobs/build.rs", "fn main() {\n    println!(\"cargo::rustc-env=WORD=built\");\n}\n");
    repository.write(
        ".ropewalk/jobs/src/main.rs",
        &program.replace("\"echo it ran\"", "concat!(\"echo it ran \", env!(\"WORD\"))"),
    );
    repository.plans(&[], "echo it ran built");
}

/// The link to the SDK is ignored by git, so a child does not find it in its workspace; nor does it need it.
#[test]
fn a_package_is_neither_built_nor_tested_again_for_a_child() {
    let repository = Repository::new("household");
    let manifest = USES_LIBRARY.replace("library = { path = \"../library\" }\n", "");
    repository.write(".ropewalk/Cargo.toml", &manifest);
    repository.write(".ropewalk/.gitignore", "/.sdk\n/target\n");
    let marks = repository.root.with_extension("ran");
    let _ = fs::remove_file(&marks);
    let ran = format!("std::fs::OpenOptions::new().append(true).create(true).open({marks:?})");
    let program = format!(
        "use ropewalk::hook::{{command, on, push}};\nuse ropewalk::{{Child, Ci}};\n\nfn main() {{\n    \
         Ci::main([on(push()).run(parent), on(command(\"child\")).run(child)])\n}}\n\n\
         fn parent(ci: &Ci) {{\n    ci.build(\"below\", Child::command(\"child\"));\n}}\n\n\
         fn child(ci: &Ci) {{\n    ci.job(\"inner\").run(\"echo inside\");\n}}\n\n\
         #[test]\nfn it_runs() {{\n    use std::io::Write;\n    writeln!({ran}.unwrap(), \"ran\").unwrap();\n}}\n"
    );
    repository.write(".ropewalk/src/main.rs", &program);
    repository.plans(&[], "below");
    repository.prints(&["run"], 0, &["inside"]);
    assert_eq!(fs::read_to_string(marks).expect("its test ran"), "ran\n");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-cache/programs");
    let folders = fs::read_dir(cache).expect("the cache").flatten();
    assert_eq!(folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("household-")).count(), 1);
}
