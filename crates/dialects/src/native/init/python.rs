//! What `init` proposes for a Python project: which runner its tests want, and what must be installed for them.
//!
//! Projects declare what their tests need in a dozen places, many in none. Read are extras, dependency groups, Poetry's
//! groups and requirements files; what the tests import or the runner's settings use beyond that is added by name.

use super::{Found, Kept, Proposal, Repository, job};
use crate::tree::{Node, Notation, Rules, Sources};

/// Test files that are read for their imports.
const TEST_FILES_READ_MAX: usize = 500;

/// Names under which projects keep what their tests need, the narrowest first.
const TEST_GROUPS: [&str; 6] = ["test", "tests", "testing", "dev", "develop", "development"];

/// Requirements files, in the order in which they are installed.
const REQUIREMENTS: [&str; 11] = [
    "requirements.txt",
    "requirements-dev.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "requirements-test.txt",
    "requirements-tests.txt",
    "requirements_test.txt",
    "test-requirements.txt",
    "requirements/dev.txt",
    "requirements/test.txt",
    "tests/requirements.txt",
];

/// Modules that only tests import, and the packages that bring them.
const TEST_MODULES: [(&str, &str); 11] = [
    ("pytest", "pytest"),
    ("hypothesis", "hypothesis"),
    ("freezegun", "freezegun"),
    ("time_machine", "time-machine"),
    ("mock", "mock"),
    ("parameterized", "parameterized"),
    ("responses", "responses"),
    ("requests_mock", "requests-mock"),
    ("respx", "respx"),
    ("syrupy", "syrupy"),
    ("pytest_asyncio", "pytest-asyncio"),
];

/// What in the settings of pytest wants a plugin, and the plugin.
const PYTEST_PLUGINS: [(&str, &str); 6] = [
    ("--cov", "pytest-cov"),
    ("asyncio_mode", "pytest-asyncio"),
    ("--benchmark", "pytest-benchmark"),
    ("--timeout", "pytest-timeout"),
    ("-n auto", "pytest-xdist"),
    ("DJANGO_SETTINGS_MODULE", "pytest-django"),
];

/// Proposes `ruff` where it is set up, and the tests, or where there are none to install it.
pub(super) fn look(repository: &Repository<'_>, found: &mut Found) {
    let files = ["pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "tox.ini"];
    if !files.iter().any(|file| repository.has(file)) {
        return;
    }
    let project = Project::read(repository);
    if project.table(&["tool", "ruff"]).is_some() || repository.has("ruff.toml") || repository.has(".ruff.toml") {
        found.add(repository, &["ruff"], job("ruff", "Looks for mistakes.", ["ruff check ."]));
    }
    if project.tests.is_empty() {
        return project.propose_install(found);
    }
    let test = project.test_command();
    for (lock, program) in [("uv.lock", "uv"), ("poetry.lock", "poetry")] {
        // Without Poetry its projects are installed by pip; what uv locks only uv can install.
        if repository.has(lock) && (program == "uv" || (repository.program_exists)(program)) {
            let mut run = vec![format!("{program} run {test}")];
            if program == "poetry" {
                run.insert(0, "poetry install".to_owned());
            }
            let cache = if program == "uv" { kept(&[lock]) } else { None };
            found.add(repository, &[program], Proposal { cache, ..job("python", "Runs all tests.", run) });
            return;
        }
    }
    let install = project.installs();
    if install.is_empty()
        || (install == ["python -m pip install --quiet pytest"] && (repository.program_exists)("pytest"))
    {
        let command = test.replacen("python ", "python3 ", 1);
        found.add(repository, &["python3"], job("python", "Runs all tests.", [command]));
        return;
    }
    let comment = "Runs all tests in a virtual environment of its own.";
    project.propose(found, comment, install, test);
}

/// The virtual environment, kept while these files say the same. There is no prefix to restore by: what another set of
/// requirements left behind would hide that a package is not declared.
fn kept(files: &[&str]) -> Option<Kept> {
    let files: Vec<String> = files.iter().map(|file| format!("'{file}'")).collect();
    let key = format!("venv-${{{{ hash_files({}) }}}}", files.join(", "));
    (!files.is_empty()).then_some(Kept { key, path: ".venv", restore: None })
}

/// What a repository says about itself.
struct Project<'a> {
    repository: &'a Repository<'a>,
    pyproject: Option<Node>,
    /// `setup.cfg`, `pytest.ini`, `tox.ini` and `pyproject.toml`, where pytest keeps its settings.
    settings: String,
    /// Paths of test files.
    tests: Vec<&'a str>,
    /// The import lines of test files, trimmed.
    imports: Vec<String>,
    /// Whether a test is a plain function, which only pytest runs.
    has_test_functions: bool,
}

impl<'a> Project<'a> {
    fn read(repository: &'a Repository<'a>) -> Project<'a> {
        let text = repository.text("pyproject.toml");
        let (pyproject, _) = Sources::new().read("pyproject.toml", text.as_bytes(), Notation::Toml, &Rules::NATIVE);
        let settings = ["setup.cfg", "pytest.ini", "tox.ini"].map(|file| repository.text(file)).concat() + &text;
        let tests: Vec<&str> = repository.paths.iter().copied().filter(|path| is_test(path)).collect();
        let helpers = repository.paths.iter().copied().filter(|path| name_of(path) == "conftest.py");
        let mut imports = Vec::new();
        let mut has_test_functions = false;
        for path in tests.iter().copied().chain(helpers).take(TEST_FILES_READ_MAX) {
            for line in repository.text(path).lines() {
                has_test_functions |= line.starts_with("def test_") || line.starts_with("async def test_");
                let line = line.trim();
                if line.starts_with("import ") || line.starts_with("from ") {
                    imports.push(line.to_owned());
                }
            }
        }
        Project { repository, pyproject, settings, tests, imports, has_test_functions }
    }

    /// Without tests: whether it can be built and installed, and whether what it needs fits together.
    fn propose_install(&self, found: &mut Found) {
        let requirements =
            self.requirements().into_iter().map(|file| format!("python -m pip install --quiet -r {file}"));
        let itself = self.is_package().then(|| "python -m pip install --quiet .".to_owned());
        let install: Vec<String> = requirements.chain(itself).collect();
        if !install.is_empty() {
            let comment = "Installs it in a virtual environment of its own. No tests were found.";
            self.propose(found, comment, install, "python -m pip check".to_owned());
        }
    }

    /// Proposes the job `python`: what installs, in one step with what opens the virtual environment, and a command in it.
    fn propose(&self, found: &mut Found, comment: &'static str, install: Vec<String>, command: String) {
        // The virtual environment lives in the shell that opened it, and by its programs in the steps that follow.
        let open = ["python3 -m venv .venv", ". .venv/bin/activate", r#"echo "$PWD/.venv/bin" >> "$ROPEWALK_PATH""#];
        let mut script = open.map(str::to_owned).to_vec();
        script.extend(install);
        let cache = kept(&self.declarations());
        let run = [script.join("\n"), command];
        found.add(self.repository, &["python3"], Proposal { cache, ..job("python", comment, run) });
    }

    /// What stands in `pyproject.toml` under these keys.
    fn table(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self.pyproject.as_ref()?, |node, key| node.get(key))
    }

    fn imports(&self, module: &str) -> bool {
        self.imports.iter().any(|line| {
            let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
            let is_from = words.next() == Some("from");
            let is_module = |name: &str| name.split('.').next() == Some(module);
            if is_from { words.next().is_some_and(is_module) } else { words.any(is_module) }
        })
    }

    fn uses_pytest(&self) -> bool {
        self.imports("pytest")
            || self.settings.contains("pytest")
            || self.repository.any(|path| matches!(name_of(path), "conftest.py" | "pytest.ini"))
            || self.requirements().iter().any(|file| names_package(&self.repository.text(file), "pytest"))
            || (self.has_test_functions && !self.imports("unittest"))
    }

    fn test_command(&self) -> String {
        if self.uses_pytest() {
            return "python -m pytest".to_owned();
        }
        let mut command = "python -m unittest discover".to_owned();
        let folder = self.tests[0].rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_shared = self.tests.iter().all(|test| test.starts_with(folder));
        // From the root, unittest finds only what lies in packages.
        if !folder.is_empty() && is_shared && !self.repository.has(&format!("{folder}/__init__.py")) {
            command.push_str(" -s ");
            command.push_str(&super::quoted(folder));
        }
        if !self.tests.iter().any(|test| name_of(test).starts_with("test")) {
            command.push_str(" -p '*_test.py'");
        }
        command
    }

    /// The requirements files there are.
    fn requirements(&self) -> Vec<&'static str> {
        REQUIREMENTS.into_iter().filter(|file| self.repository.has(file)).collect()
    }

    /// The files that say what is installed.
    fn declarations(&self) -> Vec<&'static str> {
        let others = ["pyproject.toml", "setup.py", "setup.cfg"].into_iter().filter(|file| self.repository.has(file));
        self.requirements().into_iter().chain(others).collect()
    }

    /// The commands that install what the tests need.
    fn installs(&self) -> Vec<String> {
        let mut commands = Vec::new();
        let mut declared = String::new();
        for file in self.requirements() {
            commands.push(format!("python -m pip install --quiet -r {file}"));
            declared.push_str(&self.repository.text(file));
        }
        if let Some((name, needs)) = self.group(self.table(&["dependency-groups"])) {
            // `--group` came with pip 25.1; a new environment has the pip that Python was released with.
            commands.push("python -m pip install --quiet --upgrade pip".to_owned());
            commands.push(format!("python -m pip install --quiet --group {name}"));
            declared.push_str(&needs);
        }
        if self.is_package() {
            let extra = self.extra();
            let name = extra.as_ref().map_or(".".to_owned(), |(name, _)| format!("'.[{name}]'"));
            commands.push(format!("python -m pip install --quiet -e {name}"));
            declared.push_str(&extra.unwrap_or_default().1);
        }
        let missing: Vec<String> =
            self.wanted().into_iter().filter(|package| !names_package(&declared, package)).collect();
        if !missing.is_empty() {
            commands.push(format!("python -m pip install --quiet {}", missing.join(" ")));
        }
        commands
    }

    fn is_package(&self) -> bool {
        self.repository.has("setup.py")
            || [&["project"][..], &["build-system"], &["tool", "poetry"]].iter().any(|keys| self.table(keys).is_some())
    }

    /// The extra that brings what the tests need, and its requirements, one a line.
    fn extra(&self) -> Option<(String, String)> {
        if let Some(extra) = self.group(self.table(&["project", "optional-dependencies"])) {
            return Some(extra);
        }
        let in_section = |name: &str| {
            let text = self.repository.text("setup.cfg");
            let section = text.split("[options.extras_require]").nth(1)?.split("\n[").next()?.to_owned();
            let has = section.lines().any(|line| line.split('=').next().is_some_and(|key| key.trim_end() == name));
            has.then_some((name.to_owned(), section))
        };
        let in_script = |name: &str| {
            let text = self.repository.text("setup.py");
            let extras = text.split("extras_require").nth(1)?;
            let has = extras.contains(&format!("'{name}':")) || extras.contains(&format!("\"{name}\":"));
            has.then(|| (name.to_owned(), extras.replace(['\'', '"'], "\n")))
        };
        TEST_GROUPS.into_iter().find_map(in_section).or_else(|| TEST_GROUPS.into_iter().find_map(in_script))
    }

    /// Of groups of requirements the one for tests: by its name, or because the runner is in it.
    fn group(&self, groups: Option<&Node>) -> Option<(String, String)> {
        let needs = |node: &Node| {
            let items = node.items().unwrap_or_default();
            items.iter().filter_map(Node::as_str).collect::<Vec<_>>().join("\n") + "\n"
        };
        let groups = groups?;
        if let Some(found) = TEST_GROUPS.into_iter().find_map(|name| Some((name.to_owned(), needs(groups.get(name)?))))
        {
            return Some(found);
        }
        let entries = groups.entries()?.iter().filter_map(|entry| Some((entry.name()?, needs(&entry.value))));
        entries
            .filter(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
            .find(|(_, needs)| names_package(needs, "pytest"))
            .map(|(name, needs)| (name.to_owned(), needs))
    }

    /// Packages that the tests use, whether or not the project declares them.
    fn wanted(&self) -> Vec<String> {
        let mut wanted: Vec<String> = Vec::new();
        if self.uses_pytest() {
            wanted.push("pytest".to_owned());
            let plugins = PYTEST_PLUGINS.iter().filter(|(sign, _)| self.pytest_settings().contains(sign));
            wanted.extend(plugins.map(|(_, plugin)| (*plugin).to_owned()));
        }
        wanted.extend(
            TEST_MODULES.iter().filter(|(module, _)| self.imports(module)).map(|(_, package)| (*package).to_owned()),
        );
        let mut groups = vec![self.table(&["tool", "poetry", "dev-dependencies"])];
        groups.extend(TEST_GROUPS.map(|name| self.table(&["tool", "poetry", "group", name, "dependencies"])));
        let entries = groups.into_iter().flatten().filter_map(Node::entries).flatten();
        wanted.extend(entries.filter_map(|entry| entry.name()).filter(|name| is_package_name(name)).map(str::to_owned));
        let mut seen = std::collections::BTreeSet::new();
        wanted.retain(|package| package != "python" && seen.insert(package.clone()));
        wanted
    }

    /// The part of the settings that pytest reads; what `tox` calls stands in `tox.ini` and is no setting.
    fn pytest_settings(&self) -> String {
        let parts = ["[tool.pytest", "[tool:pytest]", "[pytest]"].map(|head| {
            let text = self.settings.split(head).nth(1).unwrap_or_default();
            text.split("\n[").next().unwrap_or_default().to_owned()
        });
        parts.concat()
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    let name = name_of(path);
    name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"))
}

fn is_package_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether a list of requirements, one a line, has this package.
fn names_package(requirements: &str, package: &str) -> bool {
    requirements.lines().any(|line| {
        let line = line.trim();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
        line[..end].replace(['_', '.'], "-").eq_ignore_ascii_case(package)
    })
}
