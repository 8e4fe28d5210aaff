//! What `init` proposes for repositories of each kind, and that every proposal is a pipeline without faults.

use graph::{Event, EventKind, Known};
use ropewalk_dialects::native::{SourceFile, init, lower};

/// The jobs and commands proposed for these files, where these programs are.
fn propose(files: &[(&str, &str)], programs: &[&str]) -> (String, String) {
    let paths: Vec<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
    let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let text = init::propose(&paths, &read, &|program| programs.contains(&program));
    assert!(text.starts_with("# yaml-language-server: $schema=pipeline.schema.json\n"), "{text}");
    let known = Known::of(Event { branch: Some("main".into()), ..Event::new(EventKind::Push) });
    let lowered = lower(&[SourceFile::new("pipeline.yaml", text.as_str())], &known);
    assert_eq!(lowered.evaluation.diagnostics, [], "{text}");
    let jobs = lowered.evaluation.graph.jobs.iter().map(|(name, job)| {
        let steps: Vec<&str> = job.steps.iter().map(|step| &*step.run).collect();
        format!("{name}: {}", steps.join("; "))
    });
    (jobs.collect::<Vec<_>>().join("\n"), text)
}

#[track_caller]
fn check(files: &[(&str, &str)], programs: &[&str], expected: &str) {
    let (jobs, text) = propose(files, programs);
    assert_eq!(jobs, expected, "{text}");
}

#[test]
fn rust() {
    check(&[("Cargo.toml", "[package]")], &["cargo"], "rust: cargo test");
    check(&[("Cargo.toml", "[workspace]"), ("Cargo.lock", "")], &["cargo"], "rust: cargo test --workspace --locked");
}

#[test]
fn node() {
    let package = r#"{"scripts": {"test": "jest", "build": "tsc", "lint": ""}, "devDependencies": {"jest": "1"}}"#;
    let with = |lock: &'static str| [("package.json", package), (lock, "")];
    check(&with("package-lock.json"), &["node", "npm"], "node: npm ci; npm run build; npm run test");
    check(&with("yarn.lock"), &["node", "yarn"], "node: yarn install --frozen-lockfile; yarn run build; yarn run test");
    check(
        &with("pnpm-lock.yaml"),
        &["node", "pnpm"],
        "node: pnpm install --frozen-lockfile; pnpm run build; pnpm run test",
    );
    let unwritten =
        r#"{"scripts": {"test": "echo \"Error: no test specified\" && exit 1"}, "dependencies": {"a": "1"}}"#;
    check(&[("package.json", unwritten)], &["node", "npm"], "hello: echo \"nothing to build yet\"");
    check(&[("package.json", "not json")], &["node", "npm"], "hello: echo \"nothing to build yet\"");
    let bare = r#"{"scripts": {"test": "node --test"}}"#;
    check(&[("package.json", bare)], &["node", "npm"], "node: npm run test");
}

#[test]
fn go() {
    check(&[("go.mod", "module x")], &["go"], "go: go vet ./...; go build ./...; go test ./...");
}

#[test]
fn python() {
    check(&[("setup.cfg", ""), ("tests/test_a.py", "")], &["python3"], "python: python3 -m unittest discover");
    check(
        &[("requirements.txt", "pytest\n"), ("test_a.py", "")],
        &["python3"],
        "python: python3 -m venv \"$PWD/.venv\"\n. .venv/bin/activate\npip install --quiet -r requirements.txt\npython -m pytest\n",
    );
    check(
        &[
            (
                "pyproject.toml",
                "[project]\nname = 'x'\n[project.optional-dependencies]\ntest = ['pytest']\n[tool.ruff]\n",
            ),
            ("tests/test_a.py", ""),
        ],
        &["python3", "ruff"],
        "python: python3 -m venv \"$PWD/.venv\"\n. .venv/bin/activate\npip install --quiet -e '.[test]'\npip install --quiet pytest\npython -m pytest\n\nruff: ruff check .",
    );
    check(
        &[("pyproject.toml", "[project]"), ("uv.lock", ""), ("a_test.py", ""), ("conftest.py", "")],
        &["uv"],
        "python: uv run pytest",
    );
}

#[test]
fn others() {
    check(&[("pom.xml", "")], &["mvn"], "java: mvn --batch-mode verify");
    check(&[("gradlew", "")], &["java"], "java: ./gradlew build");
    check(&[("mix.exs", "")], &["mix"], "elixir: mix deps.get; mix test");
    check(&[("Gemfile", ""), ("spec/a_spec.rb", "")], &["bundle"], "ruby: bundle install; bundle exec rspec");
    check(
        &[("CMakeLists.txt", "enable_testing()")],
        &["cmake"],
        "cmake: cmake -S . -B build; cmake --build build --parallel; ctest --test-dir build --output-on-failure",
    );
    check(&[("Makefile", "X := 1\nall: a\n\techo\ntest check: all\n")], &["make"], "make: make all; make check");
    check(&[("Makefile", "a:\n")], &["make"], "make: make");
}

#[test]
fn several_at_once_and_what_is_missing() {
    let files = [("Cargo.toml", "[package]"), ("go.mod", ""), ("Makefile", "test:\n")];
    check(&files, &["cargo", "go", "make"], "go: go vet ./...; go build ./...; go test ./...\nrust: cargo test");
    let (jobs, text) = propose(&files, &["make"]);
    assert_eq!(jobs, "make: make test");
    assert!(text.contains("# `cargo` was not found here, so this is left out: cargo test\n"), "{text}");
}

#[test]
fn a_repository_of_nothing() {
    check(&[], &[], "hello: echo \"nothing to build yet\"");
}
