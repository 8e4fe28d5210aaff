//! Which files of the repository a pipeline names, for who has the repository and can say which are not there.
//!
//! Nothing here reads a file. What only a run can know is left out: what an expression makes, and the inputs of a job that
//! works in the tree behind others, who may have written them there. So is what programs and plugins compute.

use expression::Template;
use graph::WorkspaceKind;

use super::files::{Merged, Source};
use super::nodes;
use crate::tree::{Node, Span};

/// A file, or a glob for some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The job that names it, by the id under which it was written; `None` for the defaults of all.
    pub job: Option<String>,
    /// What it is to the job.
    pub role: FileRole,
    /// As it was written: relative to the project.
    pub text: String,
    /// Where, in the sources of the same lowering.
    pub span: Span,
}

/// What a file is to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// A glob of `inputs`, of a job that sees the files so.
    Input(WorkspaceKind),
    /// Its image is built from it.
    Dockerfile,
    /// A build that it asks for runs this pipeline.
    Pipeline,
}

/// All of them, in the order of the text.
pub(crate) fn named(merged: &Merged<'_>, roots: &[Node]) -> Vec<NamedFile> {
    let mut named = Vec::new();
    let mut add = |job: Option<&str>, role: FileRole, node: &Node| {
        let Some(text) = node.scalar_text().filter(|text| !text.is_empty() && !Template::is_needed(text)) else {
            return;
        };
        named.push(NamedFile { job: job.map(str::to_owned), role, text: text.to_owned(), span: node.span });
    };
    let dockerfile_of_all = merged.defaults.get("environment").and_then(|environment| environment.get("dockerfile"));
    if let Some(node) = dockerfile_of_all {
        add(None, FileRole::Dockerfile, node);
    }
    for job in &merged.jobs {
        let Some(written) = written(job, roots) else { continue };
        if let Some(workspace) = workspace_at_start(job, merged) {
            let globs = written.get("inputs").map(nodes::list).unwrap_or_default();
            let takes = |glob: &&Node| glob.scalar_text().is_some_and(|text| !text.starts_with('!'));
            globs.iter().filter(takes).for_each(|glob| add(Some(job.id), FileRole::Input(workspace), glob));
        }
        if let Some(node) = written.get("environment").and_then(|environment| environment.get("dockerfile")) {
            add(Some(job.id), FileRole::Dockerfile, node);
        }
        let steps = written.get("run").and_then(Node::items).unwrap_or_default();
        let files = steps.iter().filter_map(|step| step.get("build")?.get("file"));
        files.for_each(|file| add(Some(job.id), FileRole::Pipeline, file));
    }
    named
}

/// What its file says of a job: a plugin that completes it names files that may be there.
fn written<'n>(job: &Source<'_>, roots: &'n [Node]) -> Option<&'n Node> {
    let root = roots.iter().find(|root| root.span.source == job.key.span.source)?;
    root.get("jobs")?.get(job.id)
}

/// How the job sees the files, if they are those of the start.
fn workspace_at_start(job: &Source<'_>, merged: &Merged<'_>) -> Option<WorkspaceKind> {
    let said = job.body.get("workspace").or_else(|| merged.defaults.get("workspace").copied());
    let is_in_place = said.and_then(Node::as_str) == Some("in_place");
    let is_behind_others =
        !job.after.is_empty() || job.body.get("needs").is_some_and(|needs| !nodes::list(needs).is_empty());
    match (is_in_place, is_behind_others) {
        (false, _) => Some(WorkspaceKind::Isolated),
        (true, false) => Some(WorkspaceKind::InPlace),
        (true, true) => None,
    }
}
