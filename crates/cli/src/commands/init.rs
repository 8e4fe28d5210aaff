//! `ropewalk init`: looks at the repository and writes a pipeline that passes, with the schema beside it.

use std::path::Path;

use dialects::native;
use dialects::native::init::{Content, Proposed};

use super::Stop;
use crate::args::Init;
use crate::project::{PIPELINE_FOLDER, Project};
use crate::{exit, output, program};

/// The largest file that is looked at.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Runs the command.
///
/// # Errors
/// If a pipeline is there already, or the files cannot be written.
pub fn run(arguments: &Init, project: &Project) -> Result<u8, Stop> {
    if let Some(bare) = project.bare_repository() {
        return Err(Stop::wrong(bare));
    }
    let tree = worker::tree::Tree::list(&project.root).map_err(|error| Stop::of(&error))?;
    let paths: Vec<String> = tree.paths().iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let read = |path: &str| {
        let path = project.root.join(path);
        let length = std::fs::metadata(&path).ok()?.len();
        if length > FILE_BYTES_MAX { None } else { std::fs::read_to_string(path).ok() }
    };
    let propose = if arguments.rust { native::init::propose_program } else { native::init::propose };
    let proposed = propose(&paths, &read, &is_program);
    let text = &proposed.text;
    if arguments.print {
        output::print(text)?;
        return Ok(exit::PASSED);
    }
    let program = program::find(project).map(|source| source.path().to_owned());
    if let Some(there) = project.pipeline_files().into_iter().next().or(program)
        && !arguments.force
    {
        let shown = seen_from_here(&there);
        return Err(Stop::wrong(format!(
            "{shown} is there already: --force writes over it, --print only shows the proposal"
        )));
    }
    let folder = project.root.join(PIPELINE_FOLDER);
    move_aside(project, if arguments.rust { "Cargo.toml" } else { "pipeline.yaml" })?;
    if arguments.rust {
        write_package(&folder, text)?;
        tell_missing(&proposed, &folder.join("src/main.rs"));
        return Ok(exit::PASSED);
    }
    write(&folder, "pipeline.yaml", text)?;
    let schema = serde_json::to_string_pretty(&native::schema()).map_err(|error| Stop::infra(error.to_string()))?;
    write(&folder, "pipeline.schema.json", &(schema + "\n"))?;
    let shown = seen_from_here(&folder);
    output::print(format!(
        "wrote {shown}/pipeline.yaml, and {shown}/pipeline.schema.json for your editor\n\
         look at it with `ropewalk plan`, then `ropewalk run`\n"
    ))?;
    tell_missing(&proposed, &folder.join("pipeline.yaml"));
    Ok(exit::PASSED)
}

/// The path as a person in the current folder would write it.
fn seen_from_here(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).unwrap_or_default();
    let shared = here.ancestors().enumerate().find_map(|(up, folder)| Some((up, path.strip_prefix(folder).ok()?)));
    match shared {
        // What has nothing in common but the root is named from there.
        Some((up, below)) if up < here.ancestors().count() - 1 => format!("{}{}", "../".repeat(up), below.display()),
        _ => path.display().to_string(),
    }
}

/// Says what a green build of the proposal, which was written to `path`, would not mean.
fn tell_missing(proposed: &Proposed, path: &Path) {
    for remark in &proposed.remarks {
        eprintln!("note: {}", crate::columns::one_line(remark));
    }
    if proposed.content == Content::Nothing {
        let why = if proposed.remarks.is_empty() { " no build tool that runs here was recognised;" } else { "" };
        eprintln!("note: it builds and tests nothing yet:{why} put your commands into {}", seen_from_here(path));
    }
}

/// Moves what else is a pipeline out of the way of the one that is written as `written`: both together would be one
/// pipeline, with every job twice.
fn move_aside(project: &Project, written: &str) -> Result<(), Stop> {
    let folder = project.root.join(PIPELINE_FOLDER);
    let programs = ["Cargo.toml", "pipeline.rs"].map(|name| folder.join(name));
    for there in project.pipeline_files().into_iter().chain(programs.into_iter().filter(|path| path.is_file())) {
        if there.file_name().is_some_and(|name| name == written) {
            continue;
        }
        let mut aside = there.clone().into_os_string();
        aside.push(".before");
        std::fs::rename(&there, &aside)
            .map_err(|error| Stop::infra(format!("could not move {} aside: {error}", there.display())))?;
        let shown = seen_from_here(&there);
        output::print(format!("moved {shown} to {shown}.before, which nothing reads: take from it what you miss\n"))?;
    }
    Ok(())
}

/// The manifest of a pipeline's package.
const MANIFEST: &str = r#"# The pipeline of this repository: `ropewalk run` builds this package and asks it for its jobs.
[package]
name = "pipeline"
version = "0.0.0"
edition = "2024"
publish = false

[dependencies]
# The SDK that `ropewalk` itself carries, so that both always match; each command lays the link `.sdk`.
# A published version can be named instead: ropewalk = "VERSION"
ropewalk = { path = ".sdk/ropewalk" }

# It is no member of a workspace around it.
[workspace]

[profile.dev]
debug = "line-tables-only"

# Nobody steps through the SDK: without this the first build takes a third longer, and each evaluation a fifth.
[profile.dev.package.ropewalk]
debug = false
codegen-units = 16
debug-assertions = false
"#;

/// Writes a package with this program.
fn write_package(folder: &Path, program: &str) -> Result<(), Stop> {
    write(folder, "Cargo.toml", MANIFEST)?;
    write(folder, "src/main.rs", program)?;
    write(folder, ".gitignore", "/.sdk\n/target\n")?;
    output::print(format!(
        "wrote a package to {}: Cargo.toml, src/main.rs with a test, .gitignore\n\
         look at its jobs with `ropewalk plan`, run its test with `ropewalk test`, then `ropewalk run`\n",
        seen_from_here(folder)
    ))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Stop> {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(folder))
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| Stop::infra(format!("could not write {}: {error}", path.display())))
}

/// Whether a program of this name is in `PATH`.
fn is_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}
