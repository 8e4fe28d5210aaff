//! The scripts of the jobs, for `sh -e`.

use std::fmt::Write;

use crate::{BINARIES, COVERAGE, Cargo, Lock, Warnings};

/// Options of the command line that follow a verb of cargo.
struct Options(String);

impl Options {
    fn new(verb: &str) -> Self {
        Self(format!("cargo {verb}"))
    }

    fn add(&mut self, option: &str) -> &mut Self {
        let _ = write!(self.0, " {option}");
        self
    }

    fn value(&mut self, option: &str, value: &str) -> &mut Self {
        let _ = write!(self.0, " {option} {}", word(value));
        self
    }

    /// Which packages; all of the workspace if none is named.
    fn packages(&mut self, cargo: &Cargo, all: &str) -> &mut Self {
        if cargo.packages.is_empty() {
            return self.add(all);
        }
        for package in &cargo.packages {
            self.value("--package", package);
        }
        self
    }

    /// Features and lock file.
    fn building(&mut self, cargo: &Cargo) -> &mut Self {
        if cargo.features.all {
            self.add("--all-features");
        }
        if cargo.features.without_default {
            self.add("--no-default-features");
        }
        if !cargo.features.named.is_empty() {
            self.value("--features", &cargo.features.named.join(","));
        }
        if cargo.lock == Lock::Stays {
            self.add("--locked");
        }
        self
    }
}

/// A text as one word of a script. Expressions arrive through variables, which stand in double quotes.
fn word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./,:@+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    if text.contains("${{") {
        // What is between expressions keeps its meaning as text.
        return format!("\"{}\"", outside_expressions(text));
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The text for double quotes: what shells would read is escaped, but in `${{ }}`.
fn outside_expressions(text: &str) -> String {
    let mut escaped = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        let end = rest[start..].find("}}").map_or(rest.len(), |end| start + end + 2);
        escape(&rest[..start], &mut escaped);
        escaped.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    escape(rest, &mut escaped);
    escaped
}

fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        if matches!(letter, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(letter);
    }
}

pub(crate) fn fmt(cargo: &Cargo) -> String {
    let mut options = Options::new("fmt");
    options.packages(cargo, "--all").add("--check");
    options.0
}

pub(crate) fn clippy(cargo: &Cargo) -> String {
    let mut options = Options::new("clippy");
    options.packages(cargo, "--workspace").add("--all-targets").building(cargo);
    if let Some(profile) = &cargo.profile {
        options.value("--profile", profile);
    }
    if cargo.warnings == Warnings::Failures {
        options.add("-- -D warnings");
    }
    options.0
}

pub(crate) fn nextest(cargo: &Cargo) -> String {
    let mut nextest = Options::new("nextest run");
    // All tests run, whichever fail: of one that was never run nobody would know when the failed ones are retried.
    nextest.packages(cargo, "--workspace").building(cargo).add("--no-tests=pass --no-fail-fast");
    let mut test = Options::new("test");
    test.packages(cargo, "--workspace").building(cargo);
    if let Some(profile) = &cargo.profile {
        nextest.value("--cargo-profile", profile);
        test.value("--profile", profile);
    }
    if let Some(profile) = &cargo.nextest_profile {
        nextest.value("--profile", profile);
    }
    // The project's own settings go before those of a tool. Retried tests are told apart as nextest's report names them: suites are
    // binaries. What has a meaning within `(=…)` is escaped.
    format!(
        r#"if cargo nextest --version >/dev/null 2>&1; then
  mkdir -p target
  rm -rf target/nextest
  printf '[profile.default.junit]\npath = "junit.xml"\n' > target/ropewalk-nextest.toml
  if [ -n "${{ROPEWALK_TESTS:-}}" ]; then
    asked=$(printf '%s\n' "$ROPEWALK_TESTS" | sed 's/[\\),]/\\&/g' | awk -F '\t' '{{ print (NR > 1 ? "| " : "") "(binary_id(=" $1 ") & test(=" $2 "))" }}')
    set -- -E "$asked"
  fi
  {nextest} --tool-config-file "ropewalk:$PWD/target/ropewalk-nextest.toml" "$@"
else
  echo "cargo-nextest is not installed: cargo test runs the tests, and there is no JUnit report"
  {test}
fi"#,
        nextest = nextest.0,
        test = test.0,
    )
}

pub(crate) fn coverage(cargo: &Cargo) -> String {
    let mut options = Options::new("llvm-cov");
    options.packages(cargo, "--workspace").building(cargo);
    // The report looks for what was built in the profile's own folder.
    let mut report = Options::new("llvm-cov report");
    if let Some(profile) = &cargo.profile {
        options.value("--profile", profile);
        report.value("--profile", profile);
    }
    format!(
        r#"if ! cargo llvm-cov --version >/dev/null 2>&1; then
  echo "cargo-llvm-cov is not installed; install it with: rustup component add llvm-tools && cargo install cargo-llvm-cov" >&2
  exit 1
fi
# It would have rustup fetch them: from a job, without asking, and without end where there is no network.
if [ -z "${{LLVM_COV:-}}" ] && command -v rustup >/dev/null && ! [ -x "$(rustc --print target-libdir)/../bin/llvm-cov" ]; then
  echo "the compiler's LLVM tools are not installed; install them with: rustup component add llvm-tools" >&2
  exit 1
fi
mkdir -p target/coverage
{options} --lcov --output-path {COVERAGE}
{report}"#,
        options = options.0,
        report = report.0,
    )
}

pub(crate) fn release(cargo: &Cargo) -> String {
    let mut options = Options::new("build");
    options.packages(cargo, "--workspace").building(cargo);
    match &cargo.profile {
        None => options.add("--release"),
        Some(profile) => options.value("--profile", profile),
    };
    format!(
        r#"mkdir -p target
{options} --message-format=json-render-diagnostics > target/ropewalk-build.json
rm -rf {BINARIES}
mkdir -p {BINARIES}
sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' target/ropewalk-build.json | while IFS= read -r binary; do
  cp "$binary" {BINARIES}/
  echo "built $(basename "$binary")"
done
if [ -z "$(ls {BINARIES})" ]; then
  echo "there is no binary to hand on: no package that was built has one" >&2
  exit 1
fi"#,
        options = options.0,
    )
}

pub(crate) fn doc(cargo: &Cargo) -> String {
    let mut options = Options::new("doc");
    options.packages(cargo, "--workspace").add("--no-deps").building(cargo);
    if let Some(profile) = &cargo.profile {
        options.value("--profile", profile);
    }
    match cargo.warnings {
        Warnings::Failures => format!("RUSTDOCFLAGS=\"${{RUSTDOCFLAGS:-}} -D warnings\" {}", options.0),
        Warnings::Remarks => options.0,
    }
}
