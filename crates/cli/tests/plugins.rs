//! Plugins that config files name, as users have them: real repositories, the real cargo, the real plugins.
//!
//! The scratch repositories lie at fixed places in cargo's folder for tests and keep their target folders, so that only
//! the first run compiles the SDK. What a repository keeps of builds is made anew each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A committed repository with places for its builds and in the cache.
struct Repository {
    root: PathBuf,
    data: PathBuf,
}

impl Repository {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let repository = Self { root: folder.join("plugins").join(name), data: folder.join("plugins-data").join(name) };
        let _ = fs::remove_dir_all(&repository.root);
        let _ = fs::remove_dir_all(&repository.data);
        fs::create_dir_all(&repository.root).expect("a folder");
        for (path, text) in files {
            repository.write(path, text);
        }
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit("feat: begin");
        repository
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        let mut command = Command::new("git");
        let output = command.args(identity).args(arguments).current_dir(&self.root).output().expect("git starts");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn commit(&self, subject: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", subject]);
    }

    /// Runs, asserts the exit code and that every part is printed; gives both streams.
    #[track_caller]
    fn prints(&self, arguments: &[&str], code: i32, parts: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_ropewalk"))
            .args(arguments)
            .current_dir(&self.root)
            .env("ROPEWALK_DATA", &self.data)
            .env("ROPEWALK_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("program-cache"))
            .env("NO_COLOR", "1")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CI")
            .stdin(Stdio::null())
            .output()
            .expect("ropewalk starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "ropewalk {arguments:?} printed:\n{text}");
        for part in parts {
            assert!(text.contains(part), "ropewalk {arguments:?} did not print `{part}`:\n{text}");
        }
        text
    }
}

const MANIFEST: &str =
    "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[features]\nextra = []\n\n[workspace]\n";

const PROGRAM: &str = "fn main() {
    println!(\"{}\", next(1));
}

fn next(number: u32) -> u32 {
    number + 1
}

#[test]
fn counts() {
    assert_eq!(next(1), 2);
}
";

const CARGO: &str = "\
plugins: [cargo]
jobs:
  format: { use: cargo.fmt }
  lint: { use: cargo.clippy, with: { all_features: true }, needs: [format] }
  test: { use: cargo.nextest, needs: [lint] }
  app: { use: cargo.release, needs: [test] }
  try: { needs: [app], run: ./target/dist/app }
";

#[test]
fn a_cargo_project_is_formatted_linted_tested_and_built() {
    let repository = Repository::new(
        "cargo",
        &[
            ("Cargo.toml", MANIFEST),
            ("src/main.rs", PROGRAM),
            (".gitignore", "/target\n"),
            (".ropewalk/pipeline.yaml", CARGO),
        ],
    );
    // The lock file is made before, so that no job has another tree than the next one.
    let made = Command::new("cargo").args(["generate-lockfile", "--offline"]).current_dir(&repository.root).status();
    assert!(made.expect("cargo starts").success());
    repository.prints(&["check"], 0, &["nothing is wrong"]);
    let plan =
        repository.prints(&["plan", "--output", "json"], 0, &["cargo clippy --workspace --all-targets --all-features"]);
    assert!(!plan.contains("runner"), "a job that reads `runner` is never reused:\n{plan}");
    repository.prints(&["run"], 0, &["format: passed", "lint: passed", "test: passed", "built app", "try | 2\n"]);
    repository.prints(&["run"], 0, &["format: cached", "lint: cached", "test: cached", "app: cached"]);
    repository.write("src/main.rs", &PROGRAM.replace("    number + 1", "  number + 1;"));
    repository.prints(&["run"], 1, &["format: failed", "lint: skipped"]);
}

const WRONG: &str = "\
plugins: [cargo]
jobs:
  a: { use: cargo.clipy }
  b: { use: cargo.fmt, with: { pakage: x } }
";

#[test]
fn what_is_wrong_is_told_at_the_files_line() {
    let repository = Repository::new("wrong", &[(".ropewalk/pipeline.yaml", WRONG)]);
    repository.prints(
        &["check"],
        2,
        &[
            "error[unknown-plugin-job]: the plugin `cargo` has no job `clipy`",
            "pipeline.yaml:3:8",
            "did you mean `clippy`?",
            "error[unknown-option]: `cargo.fmt` has no option `pakage`",
            "pipeline.yaml:4:32",
            "did you mean `package`?",
        ],
    );
    repository.write(".ropewalk/pipeline.yaml", &WRONG.replace("[cargo]", "[crago]"));
    repository.prints(
        &["run"],
        2,
        &["Ropewalk brings no plugin `crago`", "pipeline.yaml:1:11", "did you mean `cargo`?"],
    );
    let elsewhere = WRONG.replace("[cargo]", "{ cargo: { path: ci/none } }");
    repository.write(".ropewalk/pipeline.yaml", &elsewhere);
    repository.prints(&["run"], 2, &["there is no plugin in `ci/none`", "pipeline.yaml:1:12"]);
    repository.write(".ropewalk/pipeline.yaml", &WRONG.replace("[cargo]", "{ cargo: { path: ../up } }"));
    repository.prints(&["run"], 2, &["`../up` lies outside the repository"]);
}

const OWN_MANIFEST: &str = "[package]\nname = \"house-rules\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nropewalk = { path = \"../../.ropewalk/.sdk/ropewalk\" }\n\n[workspace]\n";

const OWN_PLUGIN: &str = "use ropewalk::{Plugin, Step};

pub fn plugin() -> Plugin {
    Plugin::new(\"house-rules\")
        .job(\"count\", |job, with| {
            let glob = with.text(\"files\").unwrap_or_else(|| \"*\".to_owned());
            job.run_fn(move |cx, ()| cx.capture(format!(\"ls {glob} | wc -l\")))
        })
        .extend(|ci| ci.before(|job| job.has_label(\"docker\"), Step::sh(\"echo logged in\")))
}
";

const OWN: &str = "\
plugins:
  house: { path: ci/house }
jobs:
  image: { labels: [docker], run: echo pushed }
  plain: { run: echo plain }
  count: { use: house.count, with: { files: \"*.txt\" } }
  told: { needs: [count], run: \"echo ${{ fromJSON(needs.count.outputs.value).value }} texts\" }
";

#[test]
fn a_plugin_of_the_repository_brings_functions_and_goes_around_jobs() {
    let repository = Repository::new(
        "own",
        &[
            ("one.txt", ""),
            ("two.txt", ""),
            ("ci/house/Cargo.toml", OWN_MANIFEST),
            ("ci/house/src/lib.rs", OWN_PLUGIN),
            (".ropewalk/pipeline.yaml", OWN),
        ],
    );
    let text = repository.prints(&["run"], 0, &["image | logged in\n", "told | 2 texts\n"]);
    assert!(text.find("image | logged in") < text.find("image | pushed"), "{text}");
    assert!(!text.contains("plain | logged in"), "{text}");
    // An edit of the plugin is seen at once.
    repository.write("ci/house/src/lib.rs", &OWN_PLUGIN.replace("logged in", "known here"));
    repository.prints(&["run"], 0, &["image | known here\n", "image | pushed\n"]);
}

const GIT: &str = "\
plugins: [git]
jobs:
  what: { use: git.describe }
  changes: { use: git.changelog }
  told:
    needs: [what, changes]
    run: |
      echo \"this is ${{ needs.what.outputs.text }}\"
      cat .ropewalk-files/changes/0/changes.md
  tag: { use: git.tag, needs: [told], with: { bump: minor } }
";

#[test]
fn versions_are_described_and_tagged() {
    let repository = Repository::new("git", &[(".ropewalk/pipeline.yaml", GIT)]);
    repository.git(&["tag", "v1.2.3"]);
    repository.write("more.txt", "");
    repository.commit("fix: more");
    repository.prints(
        &["run"],
        0,
        &["told | this is 1.2.3-1-g", "told | # Changes since v1.2.3\n", "told | - fix: more (", "tag: passed"],
    );
    assert_eq!(repository.git(&["tag"]), "v1.2.3\nv1.3.0\n");
    assert_eq!(repository.git(&["rev-parse", "v1.3.0^{commit}"]), repository.git(&["rev-parse", "HEAD"]));
    // The commit has its tag now: nothing more is made.
    repository.prints(&["run"], 0, &["told | this is 1.3.0\n", "v1.3.0 is there and means this commit"]);
    assert_eq!(repository.git(&["tag"]), "v1.2.3\nv1.3.0\n");
}

const BESIDE: &str = "---
[dependencies]
ropewalk = \"*\"
ropewalk-cargo = \"*\"
---
use ropewalk::Ci;

fn main() {
    Ci::main(|ci: &Ci| {
        ci.plugin(ropewalk_cargo::plugin());
        ropewalk_cargo::Cargo::new().package(\"app\").doc(ci.job(\"doc\"));
    })
}
";

#[test]
fn a_plugin_that_cargo_cannot_resolve_is_in_reports_for_programs_too() {
    let manifest = "[package]\nname = \"ropewalk-own\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
                    [dependencies]\nnowhere = { path = \"nowhere\" }\n\n[workspace]\n";
    let repository = Repository::new(
        "unresolved",
        &[
            ("ci/own/Cargo.toml", manifest),
            ("ci/own/src/lib.rs", ""),
            (".ropewalk/pipeline.yaml", "plugins: { own: { path: ci/own } }\njobs: { a: { use: own.job } }\n"),
        ],
    );
    repository.prints(&["check"], 2, &["error: ", "`nowhere`"]);
    for (form, list, text) in [("json", "/diagnostics", "/message"), ("sarif", "/runs/0/results", "/message/text")] {
        let report = repository.prints(&["check", "--format", form], 2, &[]);
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report and nothing else");
        let faults = report.pointer(list).and_then(|list| list.as_array()).expect("a list");
        assert_eq!(faults.len(), 1, "{report}");
        let text = faults[0].pointer(text).and_then(|text| text.as_str()).expect("a text");
        assert!(text.contains("`nowhere`"), "{report}");
    }
}

#[test]
fn a_program_beside_the_files_brings_its_plugins() {
    let files = "jobs:\n  lint: { use: cargo.clippy }\n  other: { use: git.describe }\n";
    let repository =
        Repository::new("beside", &[(".ropewalk/pipeline.yaml", files), (".ropewalk/pipeline.rs", BESIDE)]);
    repository.prints(&["check"], 2, &["the job `other` uses a plugin that is not there: `git`", "pipeline.yaml:3:12"]);
    repository.write(".ropewalk/pipeline.yaml", "jobs:\n  lint: { use: cargo.clippy }\n");
    repository.prints(&["plan"], 0, &["lint", "doc"]);
    repository.write(".ropewalk/pipeline.yaml", "plugins: [git]\njobs:\n  lint: { use: cargo.clippy }\n");
    let expected = ["does not have the plugin `git`", "pipeline.yaml:1:11", "ci.plugin(ropewalk_git::plugin());"];
    repository.prints(&["check"], 2, &expected);
}
