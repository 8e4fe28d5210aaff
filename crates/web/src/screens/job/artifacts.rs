//! What a job hands on: a tab of its page.

use api::job::{Artifact, Attempt, Job, JobState};
use api::page::Page;
use api::problem::Problem;
use maud::{Markup, html};

use crate::{Source, paths, read, words};

/// The most artifacts that the tab lists.
const ARTIFACTS_MAX: usize = 200;

/// What a job hands on, by all its attempts.
pub(super) async fn of(source: &impl Source, job: &Job) -> Result<Vec<Artifact>, Problem> {
    let path = format!("/api/v1/builds/{}/artifacts?job={}", job.build, paths::encoded(&job.name));
    Ok(read::<Page<Artifact>>(source, &path).await?.items)
}

/// Writes the tab.
pub(super) fn show(job: &Job, artifacts: &[Artifact], attempts: &[Attempt]) -> Markup {
    let tried = |artifact: &Artifact| attempts.iter().find(|attempt| attempt.attempt == artifact.attempt);
    html! {
        section.artifacts #job-tab data-live aria-label="Artifacts" {
            @if artifacts.is_empty() {
                p.empty { @if job.state == JobState::Ended { "It handed on no files. A job does by " code { "artifacts" } " in the pipeline." } @else { "Files that it hands on are here once it has ended." } }
            } @else {
                div.wide-table role="group" aria-label="Files" tabindex="0" { table.list.plain {
                    thead { tr { th scope="col" { "Name" } th.number scope="col" { "Size" } th scope="col" { "Made by" } th.wide scope="col" { "Digest" } th scope="col" { span.unseen { "Download" } } } }
                    tbody { @for artifact in artifacts.iter().take(ARTIFACTS_MAX) { tr {
                        td { a.name href=(paths::artifact(job.build, artifact.digest)) { (artifact.name) } }
                        td.number { (words::count(artifact.files, "file", "files")) ", " (words::size(artifact.bytes)) }
                        td { @match tried(artifact) { Some(attempt) => { "try " (attempt.try_number) }, None => "an earlier build" } }
                        td.wide { code.quiet title="BLAKE3 of the archive" { (artifact.digest) } }
                        td { a href=(format!("/api/v1/builds/{}/artifacts/{}", job.build, artifact.digest)) download=(format!("{}.tar", artifact.name)) aria-label=(format!("Download {}", artifact.name)) { "Download" } }
                    } } }
                } }
                @if artifacts.len() > ARTIFACTS_MAX { p.quiet { "Only the first " (ARTIFACTS_MAX) " of " (artifacts.len()) " are listed." } }
            }
        }
    }
}
