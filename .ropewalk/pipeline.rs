//! Ropewalk's own pipeline: everything that CI runs. `cargo xtask test` installs what the tests need and runs it.

use ropewalk::hook::{command, on, pull_request, push};
use ropewalk::{Ci, Job, Reuse, Workspace};

fn main() {
    Ci::main([on(push()).or(pull_request()).or(command("test")).run(everything)])
}

/// In the order in which it fails soonest. Jobs that compile use the user's own tree, so that what cargo has built is used, and
/// wait for each other, because cargo would make them wait anyway.
fn everything(ci: &Ci) {
    let format = ci.job("format").input_files(["**/*.rs", "rustfmt.toml"]).run("cargo fmt --all --check");
    ci.job("example")
        .input_files("examples/**")
        .run("cc -std=c99 -Wall -Wextra -Werror -o /dev/null examples/c-library/src/*.c");
    let house = cargo(ci, "house").needs(&format).run("cargo xtask tidy");
    let lint = cargo(ci, "lint")
        .needs(&house)
        .run("cargo clippy --workspace --all-targets --quiet -- -D warnings");
    cargo(ci, "test").needs(&lint).junit("target/nextest/default/junit.xml").run(TEST);
}

/// Steps always have `CI=true`, by which the tests insist on every part of the machine they use. Outside of CI a part may be missing.
///
/// nextest runs no documentation: what must not compile stands there. So many failures are the machine's (a full disk), and each may take
/// minutes: the rest is not waited for.
const TEST: &str = "\
[ \"$WAS_CI\" = true ] || unset CI
if cargo nextest --version >/dev/null 2>&1; then
  cargo test --quiet --doc -p ropewalk -p ropewalk-cargo -p ropewalk-git
  cargo nextest run --workspace --max-fail=12
else
  cargo test --workspace --no-fail-fast
fi";

fn cargo(ci: &Ci, name: &str) -> Job {
    ci.job(name).workspace(Workspace::InPlace).reuse(Reuse::Never)
}

#[cfg(test)]
mod tests {
    use super::everything;
    use ropewalk::testing::*;

    #[test]
    fn a_push_runs_everything() {
        evaluate(everything, push("main")).assert_runs(["example", "format", "house", "lint", "test"]);
    }

    #[test]
    fn what_compiles_runs_in_the_tree_itself_and_one_after_another() {
        let build = evaluate(everything, push("main"));
        for (name, after) in [("house", "format"), ("lint", "house"), ("test", "lint")] {
            let job = build.job(name).assert_needs([after]);
            assert_eq!(job.json().get("workspace").and_then(ropewalk::Json::as_str), Some("in_place"));
        }
    }

    #[test]
    fn tests_are_never_taken_from_an_earlier_build() {
        assert_eq!(evaluate(everything, push("main")).job("test").json().get("reuse"), None);
    }
}
