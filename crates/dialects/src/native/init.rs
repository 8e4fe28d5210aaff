//! `ropewalk init`: looks at a repository's files and proposes a pipeline that passes.
//!
//! Pure: what files hold and which programs there are come in as functions. Only what the repository itself says is
//! proposed (a test script, a `Makefile` target), and only where its program is present, so that the first run is green
//! where the project is.

mod make;
mod node;
mod program;
mod python;

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

/// The name of the schema file that the proposed pipeline names, beside it in `.ropewalk`.
pub const SCHEMA_FILE: &str = "pipeline.schema.json";

/// Bytes of a file that are looked at.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A pipeline that is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The file's text.
    pub text: String,
    /// What was recognised but cannot run here, a sentence each; comments of the text say so too.
    pub remarks: Vec<String>,
    /// What is in it.
    pub content: Content,
}

/// What a proposed pipeline does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It builds or tests what was recognised.
    Work,
    /// It has one job that only prints a line, as a place for commands.
    Nothing,
}

/// A commented YAML pipeline for the repository of these tracked paths.
///
/// `read` gives a tracked file's text; `program_exists` says whether a command can be found.
#[must_use]
pub fn propose(
    paths: &[String],
    read: &dyn Fn(&str) -> Option<String>,
    program_exists: &dyn Fn(&str) -> bool,
) -> Proposed {
    look(paths, read, program_exists).proposed(write)
}

/// The same jobs as [`propose`] has, as the `main.rs` of a Rust program with a test.
#[must_use]
pub fn propose_program(
    paths: &[String],
    read: &dyn Fn(&str) -> Option<String>,
    program_exists: &dyn Fn(&str) -> bool,
) -> Proposed {
    look(paths, read, program_exists).proposed(program::write)
}

fn look(paths: &[String], read: &dyn Fn(&str) -> Option<String>, program_exists: &dyn Fn(&str) -> bool) -> Found {
    let repository = Repository { paths: paths.iter().map(String::as_str).collect(), read, program_exists };
    let mut found = Found::default();
    let looks = [
        rust,
        node::look,
        go,
        python::look,
        java,
        elixir,
        ruby,
        perl,
        others,
        cmake,
        meson,
        autotools,
        make::look,
        nix,
        in_folders,
    ];
    for look in looks {
        look(&repository, &mut found);
    }
    found
}

struct Repository<'a> {
    paths: BTreeSet<&'a str>,
    read: &'a dyn Fn(&str) -> Option<String>,
    program_exists: &'a dyn Fn(&str) -> bool,
}

impl Repository<'_> {
    fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether a tracked path fits.
    fn any(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.paths.iter().any(|path| fits(path))
    }

    fn text(&self, path: &str) -> String {
        let text = if self.has(path) { (self.read)(path) } else { None };
        text.filter(|text| text.len() <= FILE_BYTES_MAX).unwrap_or_default()
    }
}

/// Jobs in order, and remarks on what was seen but cannot run here.
#[derive(Default)]
struct Found {
    jobs: Vec<Proposal>,
    remarks: Vec<String>,
    /// The ids of jobs that only lack their program.
    left_out: Vec<&'static str>,
}

/// One proposed job.
struct Proposal {
    id: &'static str,
    comment: &'static str,
    /// One script for each step.
    run: Vec<String>,
    cache: Option<Kept>,
}

/// A directory that a proposed job keeps from build to build.
struct Kept {
    key: String,
    path: &'static str,
    /// Prefix of keys whose entry is better than none; left out where remains of other entries would do harm.
    restore: Option<&'static str>,
}

impl Found {
    fn proposed(self, write: fn(&Found) -> String) -> Proposed {
        let content = if self.jobs.is_empty() { Content::Nothing } else { Content::Work };
        Proposed { text: write(&self), remarks: self.remarks, content }
    }

    /// Adds a job if its programs are there, else a remark.
    fn add(&mut self, repository: &Repository<'_>, programs: &[&str], proposal: Proposal) {
        if self.jobs.iter().any(|job| job.id == proposal.id) || proposal.run.is_empty() {
            return;
        }
        match programs.iter().find(|program| !(repository.program_exists)(program)) {
            None => self.jobs.push(proposal),
            Some(missing) => {
                self.left_out.push(proposal.id);
                let commands = proposal.run.join(" && ").replace('\n', " ");
                self.remarks.push(format!("`{missing}` was not found here, so this is left out: {commands}"));
            }
        }
    }
}

fn job(id: &'static str, comment: &'static str, run: impl IntoIterator<Item = impl Into<String>>) -> Proposal {
    let run = run.into_iter().map(Into::into).collect();
    Proposal { id, comment, run, cache: None }
}

fn rust(repository: &Repository<'_>, found: &mut Found) {
    if !repository.has("Cargo.toml") {
        return;
    }
    let manifest = repository.text("Cargo.toml");
    let workspace = if manifest.contains("[workspace]") { " --workspace" } else { "" };
    let locked = if repository.has("Cargo.lock") { " --locked" } else { "" };
    let proposal = Proposal {
        cache: Some(Kept {
            key: "cargo-${{ hash_files('**/Cargo.lock', '**/Cargo.toml') }}".to_owned(),
            path: "target",
            restore: Some("cargo-"),
        }),
        ..job("rust", "Builds everything and runs all tests.", [format!("cargo test{workspace}{locked}")])
    };
    found.add(repository, &["cargo"], proposal);
}

fn go(repository: &Repository<'_>, found: &mut Found) {
    if !repository.has("go.mod") {
        return;
    }
    let proposal = job(
        "go",
        "Looks for mistakes, builds, and runs all tests.",
        ["go vet ./...", "go build ./...", "go test ./..."],
    );
    found.add(repository, &["go"], proposal);
}

fn java(repository: &Repository<'_>, found: &mut Found) {
    let comment = "Builds and runs all tests.";
    if repository.has("mvnw") {
        found.add(repository, &["java"], job("java", comment, ["./mvnw --batch-mode verify"]));
    } else if repository.has("pom.xml") {
        found.add(repository, &["mvn"], job("java", comment, ["mvn --batch-mode verify"]));
    } else if repository.has("gradlew") {
        found.add(repository, &["java"], job("java", comment, ["./gradlew build"]));
    } else if repository.has("build.gradle") || repository.has("build.gradle.kts") {
        found.add(repository, &["gradle"], job("java", comment, ["gradle build"]));
    }
}

fn elixir(repository: &Repository<'_>, found: &mut Found) {
    if repository.has("mix.exs") {
        found.add(
            repository,
            &["mix"],
            job("elixir", "Fetches packages and runs all tests.", ["mix deps.get", "mix test"]),
        );
    }
}

fn ruby(repository: &Repository<'_>, found: &mut Found) {
    if !repository.has("Gemfile") {
        return;
    }
    let rakefile = repository.text("Rakefile");
    let test = if repository.any(|path| path.starts_with("spec/") && path.ends_with("_spec.rb")) {
        "bundle exec rspec"
    } else if rakefile.contains("TestTask") {
        "bundle exec rake test"
    } else {
        return;
    };
    found.add(repository, &["bundle"], job("ruby", "Installs gems and runs all tests.", ["bundle install", test]));
}

fn perl(repository: &Repository<'_>, found: &mut Found) {
    let comment = "Configures, builds, and runs all tests.";
    if repository.has("Build.PL") {
        found.add(repository, &["perl"], job("perl", comment, ["perl Build.PL", "./Build", "./Build test"]));
    } else if repository.has("Makefile.PL") {
        found.add(repository, &["perl", "make"], job("perl", comment, ["perl Makefile.PL", "make", "make test"]));
    }
}

fn cmake(repository: &Repository<'_>, found: &mut Found) {
    if !repository.has("CMakeLists.txt") {
        return;
    }
    let mut run = vec!["cmake -S . -B build", "cmake --build build --parallel"];
    let lists = repository.text("CMakeLists.txt").to_lowercase();
    if lists.contains("enable_testing") || lists.contains("include(ctest)") {
        run.push("ctest --test-dir build --output-on-failure");
    }
    found.add(repository, &["cmake"], job("cmake", "Configures, builds, and runs the tests there are.", run));
}

/// Build tools whose one command does everything.
fn others(repository: &Repository<'_>, found: &mut Found) {
    let comment = "Builds and runs all tests.";
    let is_dotnet = |path: &str| [".sln", ".slnx", ".csproj", ".fsproj"].iter().any(|end| path.ends_with(end));
    let tools: [(&str, &'static str, &str, bool); 5] = [
        ("dotnet", "dotnet", "dotnet test", repository.any(|path| !path.contains('/') && is_dotnet(path))),
        ("swift", "swift", "swift test", repository.has("Package.swift")),
        ("deno", "deno", "deno test", repository.has("deno.json") || repository.has("deno.jsonc")),
        ("zig", "zig", "zig build test", repository.text("build.zig").contains("\"test\"")),
        ("cabal", "haskell", "cabal test all", repository.any(|path| path.ends_with(".cabal"))),
    ];
    for (program, id, command, is_used) in tools {
        if is_used {
            found.add(repository, &[program], job(id, comment, [command]));
        }
    }
}

fn meson(repository: &Repository<'_>, found: &mut Found) {
    if repository.has("meson.build") {
        let run = ["meson setup build", "meson compile -C build", "meson test -C build --print-errorlogs"];
        found.add(
            repository,
            &["meson", "ninja"],
            job("meson", "Configures, builds, and runs the tests there are.", run),
        );
    }
}

/// A `configure` script, tracked or to be made. Only where nothing else was found.
fn autotools(repository: &Repository<'_>, found: &mut Found) {
    let is_configured = repository.has("configure");
    let has_source = repository.has("configure.ac") || repository.has("configure.in");
    if !found.jobs.is_empty() || !(is_configured || has_source) {
        return;
    }
    let is_automake = repository.has("Makefile.am");
    let makefile = repository.text("Makefile.in");
    let script = ["autogen.sh", "bootstrap", "bootstrap.sh"].into_iter().find(|script| repository.has(script));
    let (prepare, programs): (Option<String>, &[&str]) = match script {
        // Git keeps no times: without this, make would build again what is tracked, with the very tools that it spares.
        _ if is_configured => {
            let made = ["aclocal.m4", "configure", "config.h.in", "Makefile.in"];
            let made: Vec<&str> = made.into_iter().filter(|file| repository.has(file)).collect();
            (is_automake.then(|| format!("touch {}", made.join(" "))), &["make"])
        }
        Some(script) => (Some(format!("./{script}")), &["autoconf", "make"]),
        None => (Some("autoreconf --install".to_owned()), &["autoreconf", "make"]),
    };
    let test = ["check", "test"].into_iter().find(|target| is_automake || has_target(&makefile, target));
    let build = ["./configure".to_owned(), "make".to_owned()];
    let run = prepare.into_iter().chain(build).chain(test.map(|target| format!("make {target}")));
    found.add(repository, programs, job("make", "Configures, builds, and runs the tests there are.", run));
}

fn nix(repository: &Repository<'_>, found: &mut Found) {
    if repository.has("flake.nix") {
        let check = "nix --extra-experimental-features 'nix-command flakes' flake check";
        found.add(
            repository,
            &["nix"],
            job("flake", "Builds the flake's checks and evaluates the rest of it.", [check]),
        );
    }
}

/// Files by which a project is known, for those that lie in folders of their own, with the job that is proposed for one at the root.
const PROJECT_FILES: [(&str, &str); 10] = [
    ("Cargo.toml", "rust"),
    ("package.json", "node"),
    ("go.mod", "go"),
    ("pyproject.toml", "python"),
    ("setup.py", "python"),
    ("pom.xml", "java"),
    ("Gemfile", "ruby"),
    ("CMakeLists.txt", "cmake"),
    ("meson.build", "meson"),
    ("Makefile", "make"),
];
/// Folders whose projects are somebody else's, or what tests read.
const FOREIGN_FOLDERS: [&str; 4] = ["vendor", "third_party", "node_modules", "testdata"];
/// How deep folders are looked at.
const FOLDER_DEPTH_MAX: usize = 3;
/// The most of them that a remark names.
const FOLDERS_NAMED_MAX: usize = 5;

/// Names the projects in folders, which nothing is proposed for: those of a tool that no job at the root uses, which works on all
/// folders below, and Go's modules, each of which is for itself.
fn in_folders(repository: &Repository<'_>, found: &mut Found) {
    let is_used = |id: &str| found.jobs.iter().any(|job| job.id == id) || found.left_out.contains(&id);
    // By what the files stand at in the table: of several in one folder the first is named.
    let missed_file =
        |file: &str| PROJECT_FILES.iter().position(|(name, id)| *name == file && (*id == "go" || !is_used(id)));
    let is_own = |folder: &str| {
        folder.split('/').count() <= FOLDER_DEPTH_MAX && !folder.split('/').any(|part| FOREIGN_FOLDERS.contains(&part))
    };
    let projects = repository.paths.iter().filter_map(|path| path.rsplit_once('/'));
    let missed: BTreeSet<(&str, usize)> = projects
        .filter(|(folder, _)| is_own(folder))
        .filter_map(|(folder, file)| Some((folder, missed_file(file)?)))
        .collect();
    let has_one_above =
        |folder: &str, file: usize| folder.match_indices('/').any(|(end, _)| missed.contains(&(&folder[..end], file)));
    let mut named: Vec<_> = missed.iter().filter(|(folder, file)| !has_one_above(folder, *file)).collect();
    named.dedup_by_key(|(folder, _)| *folder);
    let mut there: Vec<String> =
        named.into_iter().map(|(folder, file)| format!("{folder}/{}", PROJECT_FILES[*file].0)).collect();
    if there.is_empty() {
        return;
    }
    let more = match there.len().saturating_sub(FOLDERS_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    there.truncate(FOLDERS_NAMED_MAX);
    let named = there.join(", ");
    found.remarks.push(format!(
        "{named}{more}: only the root was looked at; give each of these folders a job with `working_directory`"
    ));
}

fn has_target(makefile: &str, target: &str) -> bool {
    makefile.lines().any(|line| {
        let Some((targets, rest)) = line.split_once(':') else { return false };
        !line.starts_with(['\t', '#', ' '])
            && !rest.starts_with('=')
            && targets.split_whitespace().any(|name| name == target)
    })
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if is_plain { path.to_owned() } else { graph::shell::quoted(path) }
}

fn write(found: &Found) -> String {
    let mut text = format!("# yaml-language-server: $schema={SCHEMA_FILE}\n");
    text.push_str(
        "# What Ropewalk runs for this repository: `ropewalk run` here, `ropewalk check` to look for mistakes.\n\
         # Each job works on its own copy of the files, those that git tracks and untracked ones that are not ignored, so jobs\n\
         # cannot disturb one another.\n\n",
    );
    for remark in &found.remarks {
        let _ = writeln!(text, "# {}", remark.replace(['\n', '\r'], " "));
    }
    if !found.remarks.is_empty() {
        text.push('\n');
    }
    text.push_str("jobs:\n");
    if found.jobs.is_empty() {
        text.push_str(
            "  # This builds and tests nothing: put the commands here that do.\n  \
             hello:\n    run: echo \"nothing to build yet\"\n",
        );
    }
    for (index, proposal) in found.jobs.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        write_job(&mut text, proposal);
    }
    text
}

fn write_job(text: &mut String, proposal: &Proposal) {
    let _ = writeln!(text, "  # {}\n  {}:", proposal.comment, proposal.id);
    if let Some(Kept { key, path, restore }) = &proposal.cache {
        let _ = writeln!(text, "    # Kept from build to build while the key stays the same.");
        let restore = restore.map(|prefix| format!("restore: [\"{prefix}\"], ")).unwrap_or_default();
        let _ = writeln!(text, "    cache: {{ key: \"{key}\", {restore}paths: [{path}] }}");
    }
    match proposal.run.as_slice() {
        [script] if script.contains('\n') => {
            text.push_str("    run: |\n");
            for line in script.lines() {
                let _ = writeln!(text, "      {line}");
            }
        }
        [script] => {
            let _ = writeln!(text, "    run: {}", scalar(script));
        }
        steps => {
            text.push_str("    run:\n");
            for step in steps {
                if !step.contains('\n') {
                    let _ = writeln!(text, "      - {}", scalar(step));
                    continue;
                }
                text.push_str("      - |\n");
                for line in step.lines() {
                    let _ = writeln!(text, "        {line}");
                }
            }
        }
    }
}

/// A command as a YAML value of one line.
fn scalar(command: &str) -> String {
    let is_plain = command.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '.' | '/'))
        && !command.contains(": ")
        && !command.contains(" #")
        && !command.ends_with([':', ' '])
        && !command.contains(char::is_control);
    if is_plain { command.to_owned() } else { Value::from(command).to_string() }
}
