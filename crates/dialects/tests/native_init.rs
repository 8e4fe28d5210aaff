//! What `init` proposes for repositories of each kind, and that every proposal is a pipeline without faults.

use graph::{Event, EventKind, Known};
use ropewalk_dialects::native::{SourceFile, init, lower};

/// The jobs and commands proposed for these files, where these programs are.
fn propose(files: &[(&str, &str)], programs: &[&str]) -> (String, String) {
    let paths: Vec<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
    let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
    let proposed = init::propose(&paths, &read, &|program| programs.contains(&program));
    let text = proposed.text;
    let is_empty = text.contains("This builds and tests nothing");
    assert_eq!(proposed.content, if is_empty { init::Content::Nothing } else { init::Content::Work });
    assert!(proposed.remarks.iter().all(|remark| text.contains(&format!("# {remark}\n"))), "{text}");
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
    check(
        &with("package-lock.json"),
        &["node", "npm"],
        "node: npm ci --cache .npm --prefer-offline; npm run build; npm run test",
    );
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
fn node_scripts_that_change_files_or_never_end() {
    let with = |scripts: &str| format!(r#"{{"scripts": {{{scripts}, "test": "node --test"}}}}"#);
    let check = |scripts: &str, expected: &str, left_out: &str| {
        let package = with(scripts);
        let (jobs, text) = propose(&[("package.json", package.as_str())], &["node", "npm"]);
        assert_eq!(jobs, expected, "{text}");
        let remarks: Vec<&str> = text.lines().filter(|line| line.contains("is left out")).collect();
        assert_eq!(remarks.is_empty(), left_out.is_empty(), "{text}");
        assert!(remarks.concat().contains(left_out), "{text}");
    };
    check(r#""lint": "eslint .""#, "node: npm run lint; npm run test", "");
    check(r#""lint": "eslint . --fix""#, "node: npm run test", "`npm run lint` is left out: it changes files");
    check(r#""lint": "eslint --fix .", "lint:check": "eslint .""#, "node: npm run lint:check; npm run test", "");
    check(r#""lint": "npm run fmt && eslint .", "fmt": "prettier --write .""#, "node: npm run test", "npm run lint");
    check(r#""lint": "run-s lint:*", "lint:css": "stylelint --fix x""#, "node: npm run test", "npm run lint");
    check(r#""lint": "npm run lint", "build": "tsc""#, "node: npm run lint; npm run build; npm run test", "");
    check(r#""lint": "eslint --fix-dry-run .""#, "node: npm run lint; npm run test", "");
    let watch = r#"{"scripts": {"test": "jest --watch", "test:ci": "jest"}}"#;
    self::check(&[("package.json", watch)], &["node", "npm"], "node: npm run test:ci");
    let watch = r#"{"scripts": {"test": "jest --watchAll"}}"#;
    self::check(&[("package.json", watch)], &["node", "npm"], "hello: echo \"nothing to build yet\"");
}

#[test]
fn python_keeps_its_environment_while_its_declarations_stay() {
    let cache_of = |files: &[(&str, &str)], programs: &[&str]| {
        let (_, text) = propose(files, programs);
        text.lines().find(|line| line.contains("cache:")).map(|line| line.trim().to_owned()).unwrap_or_default()
    };
    let test = ("test_a.py", "import pytest");
    assert_eq!(
        cache_of(&[("requirements.txt", "pytest"), ("setup.cfg", ""), test], &["python3"]),
        "cache: { key: \"venv-${{ hash_files('requirements.txt', 'setup.cfg') }}\", paths: [.venv] }"
    );
    assert_eq!(
        cache_of(&[("pyproject.toml", "[project]"), ("uv.lock", ""), test], &["uv"]),
        "cache: { key: \"venv-${{ hash_files('uv.lock') }}\", paths: [.venv] }"
    );
    assert_eq!(cache_of(&[("tox.ini", ""), test], &["python3"]), "", "nothing says what is installed");
}

#[test]
fn perl() {
    check(&[("Makefile.PL", "")], &["perl", "make"], "perl: perl Makefile.PL; make; make test");
    check(&[("Build.PL", ""), ("Makefile.PL", "")], &["perl"], "perl: perl Build.PL; ./Build; ./Build test");
}

#[test]
fn go() {
    check(&[("go.mod", "module x")], &["go"], "go: go vet ./...; go build ./...; go test ./...");
}

/// The lines of the script that tests a Python project of these files, but for those that open its environment.
#[track_caller]
fn check_python(files: &[(&str, &str)], expected: &str) {
    let (jobs, text) = propose(files, &["python3"]);
    let opens = "python: python3 -m venv .venv\n. .venv/bin/activate\necho \"$PWD/.venv/bin\" >> \"$ROPEWALK_PATH\"\n";
    let script = jobs.strip_prefix(opens);
    assert_eq!(
        script.map(|script| script.trim_end().replace("\n; ", "; ").replace('\n', "; ")),
        Some(expected.to_owned()),
        "{text}"
    );
}

#[test]
fn python_without_packages() {
    let test = ("tests/test_a.py", "import unittest");
    check(&[("setup.cfg", ""), test], &["python3"], "python: python3 -m unittest discover -s tests");
    check(&[("setup.cfg", ""), test, ("tests/__init__.py", "")], &["python3"], "python: python3 -m unittest discover");
    check(
        &[("setup.cfg", ""), ("a: b/c_test.py", "")],
        &["python3"],
        "python: python3 -m unittest discover -s 'a: b' -p '*_test.py'",
    );
    check(&[("tox.ini", ""), ("test_a.py", "import pytest")], &["python3", "pytest"], "python: python3 -m pytest");
}

#[test]
fn python_without_tests_is_installed() {
    check_python(
        &[("pyproject.toml", "[project]\n[tool.pytest]")],
        "python -m pip install --quiet .; python -m pip check",
    );
    check_python(
        &[("setup.py", ""), ("requirements.txt", "")],
        "python -m pip install --quiet -r requirements.txt; python -m pip install --quiet .; python -m pip check",
    );
    check(&[("pyproject.toml", "[tool.black]")], &["python3"], "hello: echo \"nothing to build yet\"");
}

#[test]
fn python_packages_that_are_declared() {
    let test = ("test_a.py", "from pytest import raises");
    check_python(
        &[("requirements.txt", "PyTest>=8\n"), test],
        "python -m pip install --quiet -r requirements.txt; python -m pytest",
    );
    check_python(
        &[("pyproject.toml", "[project]\noptional-dependencies.tests = ['pytest']"), test],
        "python -m pip install --quiet -e '.[tests]'; python -m pytest",
    );
    check_python(
        &[
            ("pyproject.toml", "[project]\n[project.optional-dependencies]\ndocs = ['x']\nall = [\n'pytest >= 8']"),
            test,
        ],
        "python -m pip install --quiet -e '.[all]'; python -m pytest",
    );
    check_python(
        &[("setup.py", ""), ("setup.cfg", "[options.extras_require]\ntest =\n  pytest\n[x]"), test],
        "python -m pip install --quiet -e '.[test]'; python -m pytest",
    );
    check_python(
        &[("setup.py", "setup(extras_require={'dev': ['pytest']})"), test],
        "python -m pip install --quiet -e '.[dev]'; python -m pytest",
    );
    check_python(
        &[("pyproject.toml", "[project]\n[dependency-groups]\ntest = ['pytest']"), test],
        "python -m pip install --quiet --upgrade pip; python -m pip install --quiet --group test; python -m pip install --quiet -e .; python -m pytest",
    );
    check_python(
        &[("pyproject.toml", "[tool.poetry.group.dev.dependencies]\npython = '*'\npytest = '^8'\nfoo = '*'"), test],
        "python -m pip install --quiet -e .; python -m pip install --quiet pytest foo; python -m pytest",
    );
}

#[test]
fn python_packages_that_only_the_tests_tell() {
    check_python(
        &[("setup.py", ""), ("test_a.py", "def test_a(): pass\n    from hypothesis.strategies import text")],
        "python -m pip install --quiet -e .; python -m pip install --quiet pytest hypothesis; python -m pytest",
    );
    check_python(
        &[("setup.py", ""), ("pytest.ini", "[pytest]\naddopts = --cov=x"), ("test_a.py", "")],
        "python -m pip install --quiet -e .; python -m pip install --quiet pytest pytest-cov; python -m pytest",
    );
    check_python(
        &[
            ("pyproject.toml", "[project]\n[project.optional-dependencies]\ntest = ['mock']"),
            ("test_a.py", "import os, mock"),
        ],
        "python -m pip install --quiet -e '.[test]'; python -m unittest discover",
    );
    check_python(
        &[("pyproject.toml", "[project"), ("setup.py", ""), ("test_a.py", "")],
        "python -m pip install --quiet -e .; python -m unittest discover",
    );
}

#[test]
fn python_tools() {
    let files = [("pyproject.toml", "[project]\n[tool.ruff]"), ("uv.lock", ""), ("a_test.py", ""), ("conftest.py", "")];
    check(&files, &["uv", "ruff"], "python: uv run python -m pytest\nruff: ruff check .");
    let files = [("pyproject.toml", "[tool.poetry]"), ("poetry.lock", ""), ("test_a.py", "import pytest")];
    check(&files, &["poetry"], "python: poetry install; poetry run python -m pytest");
}

#[test]
fn configured_before_made() {
    check(
        &[("configure", ""), ("configure.ac", ""), ("Makefile.am", ""), ("Makefile.in", "")],
        &["make"],
        "make: touch configure Makefile.in; ./configure; make; make check",
    );
    check(
        &[("configure.ac", ""), ("Makefile.in", "test: x\n")],
        &["make", "autoreconf"],
        "make: autoreconf --install; ./configure; make; make test",
    );
    check(
        &[("meson.build", "")],
        &["meson", "ninja"],
        "meson: meson setup build; meson compile -C build; meson test -C build --print-errorlogs",
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
    check(&[("App.csproj", "")], &["dotnet"], "dotnet: dotnet test");
    check(&[("deno.json", "")], &["deno"], "deno: deno test");
    check(
        &[("flake.nix", ""), ("Makefile", "test:\n")],
        &["make", "nix"],
        "flake: nix --extra-experimental-features 'nix-command flakes' flake check\nmake: make test",
    );
}

#[test]
fn plain_make_only_where_its_first_target_is_known_to_be_harmless() {
    let makes = |text: &str| check(&[("Makefile", text)], &["make"], "make: make");
    makes("X = a:b\ncompile: x\n\tcc x.c\nclean:\n\trm x\n");
    makes("app: main.c\n\tcc -o $@ main.c\n");
    makes("app: main.o\n");
    makes(".PHONY: deploy\n.SUFFIXES:\npage.html: page.md\n\tmarkdown page.md > page.html\n");
    makes(".DEFAULT_GOAL := compile\ndeploy:\n\t./deploy\n");
    let leaves_out = |text: &str, why: &str| {
        let (jobs, proposed) = propose(&[("Makefile", text)], &["make"]);
        assert_eq!(jobs, "hello: echo \"nothing to build yet\"", "{proposed}");
        assert!(proposed.contains(&format!("# plain `make` is left out: {why}")), "{proposed}");
    };
    for target in ["deploy", "install", "clean", "publish.sh", "a"] {
        leaves_out(&format!("{target}:\n\techo\nlint:\n\techo\n"), &format!("it would make `{target}`"));
    }
    leaves_out("deploy: dist.tar\n\tcc -o dist.tar\n", "it would make `deploy`");
    leaves_out(".DEFAULT_GOAL = deploy\nlint:\n\techo\n", "it would make `deploy`");
    leaves_out("include rules.mk\nlint:\n\techo\n", "which target it would make is not seen in Makefile");
    leaves_out("X := 1\n", "which target");
}

#[test]
fn npm_keeps_what_it_fetched_while_the_lock_stays() {
    let package = r#"{"scripts": {"test": "jest"}, "devDependencies": {"jest": "1"}}"#;
    let (_, text) = propose(&[("package.json", package), ("package-lock.json", "")], &["node", "npm"]);
    let cache = r#"cache: { key: "npm-${{ hash_files('package-lock.json') }}", restore: ["npm-"], paths: [.npm] }"#;
    assert!(text.contains(cache), "{text}");
    let (jobs, text) = propose(&[("package.json", package)], &["node", "npm"]);
    assert_eq!(jobs, "node: npm install --no-package-lock; npm run test");
    assert!(!text.contains("cache:"), "nothing says what is installed: {text}");
}

#[test]
fn projects_in_folders_are_named() {
    let (jobs, text) = propose(&[("a/package.json", ""), ("b/Makefile", ""), ("c/d/Makefile", "")], &["make"]);
    assert_eq!(jobs, "hello: echo \"nothing to build yet\"");
    assert!(text.contains("# a/package.json, b/Makefile, c/d/Makefile: only the root was looked at"), "{text}");
    let deep =
        [("a/b/c/go.mod", ""), ("a/b/c/d/go.mod", ""), ("e/Gemfile", ""), ("e/f/Gemfile", ""), ("vendor/g/go.mod", "")];
    let (_, text) = propose(&deep, &[]);
    assert!(text.contains("# a/b/c/go.mod, e/Gemfile: only the root was looked at"), "{text}");
}

#[test]
fn projects_in_folders_that_no_job_at_the_root_covers_are_named() {
    let root = [
        ("Cargo.toml", "[workspace]"),
        ("crates/a/Cargo.toml", ""),
        ("services/api/go.mod", ""),
        ("web/package.json", ""),
        ("web/Makefile", ""),
    ];
    let (jobs, text) = propose(&root, &["cargo"]);
    assert_eq!(jobs, "rust: cargo test --workspace");
    assert!(text.contains("# services/api/go.mod, web/package.json: only the root was looked at"), "{text}");
    // The root's is told already, with what it lacks.
    let (_, text) = propose(&root, &[]);
    assert!(text.contains("# services/api/go.mod, web/package.json: only"), "{text}");
    // A module of Go ends where the next begins.
    let (_, text) = propose(&[("go.mod", ""), ("tools/go.mod", "")], &["go"]);
    assert!(text.contains("# tools/go.mod: only the root was looked at"), "{text}");
    let (_, text) = propose(&[("Makefile", "test:\n"), ("b/Makefile", "")], &["make"]);
    assert!(!text.contains("only the root"), "{text}");
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
