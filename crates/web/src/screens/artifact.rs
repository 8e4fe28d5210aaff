//! An artifact to look at: its files, and one of them in place. Files come from an address of their own without the reader's rights
//! ([`ArtifactFiles::view`]), in a frame without an origin, so whatever a report does, it does it as nobody.

use api::job::{ArtifactFile, ArtifactFiles};
use api::problem::{Problem, ProblemKind};
use maud::{Markup, html};

use super::projects::name;
use crate::page::{Crumb, Document, Head, document};
use crate::words;
use crate::{Ask, Source, paths, read};

/// The most files that the page lists.
const FILES_MAX: usize = 500;
/// The largest text that is shown in place, in bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// How a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// A report.
    Page,
    /// A picture.
    Picture,
    /// Text.
    Text,
    /// Not here.
    Download,
}

impl Look {
    fn of(file: &ArtifactFile) -> Self {
        match file.media.as_str() {
            media if media.starts_with("text/html") => Self::Page,
            media if media.starts_with("image/") => Self::Picture,
            media if media.starts_with("text/") && file.bytes <= TEXT_BYTES_MAX => Self::Text,
            _ => Self::Download,
        }
    }
}

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask, build: &str, digest: &str) -> Result<Document, Problem> {
    let build: api::build::Build = read(source, &format!("/api/v1/builds/{}", paths::encoded(build))).await?;
    let path = format!("/api/v1/builds/{}/artifacts/{}", build.id, paths::encoded(digest));
    let artifact: ArtifactFiles = read(source, &format!("{path}/files")).await?;
    let wanted = ask.text("file");
    let file = match wanted {
        "" => first(&artifact.files),
        wanted => Some(artifact.files.iter().find(|file| file.path == wanted).ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, format!("there is no file `{wanted}` in this artifact"))
                .help("take one of those that its page lists")
        })?),
    };
    let own = paths::artifact(build.id, paths::encoded(digest));
    let main = html! {
        header.build {
            h1 { (artifact.name) }
            p.quiet { "From " a href=(paths::job(build.id, &artifact.job)) { (artifact.job) } " · " (words::count(artifact.files.len() as u64, "file", "files")) @if artifact.has_more { " and more" } " · "
                a href=(path) download=(format!("{}.tar", artifact.name)) { "Download all" } }
        }
        div.split.artifact {
            nav.steps aria-label="Files" {
                ol { @for listed in artifact.files.iter().take(FILES_MAX) {
                    li { a href=(format!("{own}?file={}", paths::encoded(&listed.path))) aria-current=[(file == Some(listed)).then_some("true")] { span {} span.name { (listed.path) } span.quiet { (words::size(listed.bytes)) } } }
                } }
                @if artifact.files.len() > FILES_MAX { p.quiet { "Only the first " (FILES_MAX) " files are listed." } }
            }
            section aria-label="The file" { @match file {
                None => p.empty { "Take a file at the left." },
                Some(file) => (looked_at(file, &artifact.view)),
            } }
        }
    };
    let mut crumbs = Vec::new();
    if !build.project.is_empty() {
        crumbs.push(Crumb::new(&build.project, paths::project(&build.project)));
    }
    crumbs.push(Crumb::new(name(&build), paths::build(build.id)));
    crumbs.push(Crumb::new(&artifact.name, own.clone()));
    Ok(document(&Head { title: &artifact.name, crumbs, stream: None }, &main))
}

/// The file to open by itself: a report's first page, else the only file.
fn first(files: &[ArtifactFile]) -> Option<&ArtifactFile> {
    let depth = |file: &&ArtifactFile| file.path.matches('/').count();
    let is_index = |file: &&ArtifactFile| file.path == "index.html" || file.path.ends_with("/index.html");
    files.iter().filter(is_index).min_by_key(depth).or(if let [only] = files { Some(only) } else { None })
}

/// Where a file is, as an address: its path's parts encoded.
fn address(view: &str, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(paths::encoded).collect();
    format!("{view}/{}", parts.join("/"))
}

fn looked_at(file: &ArtifactFile, view: &str) -> Markup {
    let to = address(view, &file.path);
    let name = file.path.rsplit('/').next().unwrap_or_default();
    html! {
        p.pager { code { (file.path) } span.quiet { (words::size(file.bytes)) } a href=(to) rel="noreferrer" { "Alone" } a href=(to) download=(name) { "Download" } }
        @match Look::of(file) {
            // No allow-same-origin: it must not be this server's page. The answer says the same of itself.
            Look::Page => iframe.file src=(to) sandbox="allow-scripts" referrerpolicy="no-referrer" title=(file.path) {},
            Look::Text => iframe.file src=(to) sandbox="" referrerpolicy="no-referrer" title=(file.path) {},
            Look::Picture => img.file src=(to) alt=(file.path) referrerpolicy="no-referrer";,
            Look::Download => p.empty { "This is no text, picture or page: download it." },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ArtifactFile {
        ArtifactFile { path: path.to_owned(), bytes: 1, media: "text/html; charset=utf-8".to_owned() }
    }

    #[test]
    fn a_report_opens_at_its_first_page() {
        let files = ["a/b/index.html", "a/index.html", "a/other.html"].map(file);
        assert_eq!(first(&files).map(|file| file.path.as_str()), Some("a/index.html"));
        assert_eq!(first(&files[2..]), Some(&files[2]));
        assert_eq!(first(&[file("x"), file("y")]), None);
    }

    #[test]
    fn addresses_are_encoded_part_by_part() {
        assert_eq!(address("/v", "a b/\"><x>?#"), "/v/a%20b/%22%3E%3Cx%3E%3F%23");
    }
}
