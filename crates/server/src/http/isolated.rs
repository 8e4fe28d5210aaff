//! Files of artifacts for browsers.
//!
//! What steps made is code of strangers: an HTML report may run anything. So a file is never given in answer to the reader's cookie. The list of an
//! artifact's files ([`list`]), which asks for the right to read, says an address that is a right of its own: this artifact, for a while, signed by the server. What is found there
//! ([`file`]) takes no cookie into account, runs in no origin (`Content-Security-Policy: sandbox`), may load nothing but what lies beside it, and
//! may be read by such pages without an origin, since whoever knows the address may have it all anyway.

use std::io;
use std::sync::Arc;

use api::job::{ARTIFACT_FILES_MAX, ARTIFACT_VIEW_SECONDS, ArtifactFile, ArtifactFiles};
use api::problem::{Problem, ProblemKind};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use graph::{BuildId, Digest, hex};
use ring::hmac;

use super::answer::{self, Answered, Wanted, exactly, range, ranged};
use super::call::Call;
use super::{App, problem};

/// The first part of the path of such files.
pub const PREFIX: &str = "artifacts";
/// The largest archive that is looked into, in bytes: blobs are compressed, so what is looked for is found by reading up to it.
const ARCHIVE_BYTES_MAX: u64 = 256 << 20;
/// Addresses change this often, in seconds, so that a page that is read again finds the same.
const STEP_SECONDS: u64 = 600;
/// What a file may load and do: what is beside it, no form, no frame but ours, and no origin.
const POLICY: &str = "sandbox allow-scripts; default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'none'; \
                      base-uri 'none'; frame-ancestors 'self'";
const BYTES: &str = "application/octet-stream";

/// The media type of a file by its name. What may be text is shown as text; what is unknown is bytes.
fn media(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("avif") => "image/avif",
        Some("ico") => "image/x-icon",
        Some("woff") => "font/woff",
        Some("woff2") => "font/woff2",
        Some("mp4") => "video/mp4",
        Some("webm") => "video/webm",
        Some(
            "txt" | "log" | "md" | "xml" | "csv" | "tsv" | "yaml" | "yml" | "toml" | "ini" | "diff" | "patch" | "out"
            | "err" | "tap" | "lcov" | "info" | "rs" | "c" | "h" | "cc" | "cpp" | "hpp" | "py" | "go" | "java" | "ts"
            | "sh" | "edn" | "nix",
        ) => "text/plain; charset=utf-8",
        _ => BYTES,
    }
}

/// A file of an archive: its path, and where its bytes are.
struct Found {
    path: String,
    from: u64,
    bytes: u64,
}

/// The regular files of an archive in its order, the first [`ARTIFACT_FILES_MAX`], as long as `more` wants them. Gives whether there were more.
fn files(app: &App, digest: Digest, mut more: impl FnMut(Found) -> bool) -> Result<bool, Problem> {
    let length = app.server.blobs.length(digest).map_err(problem::blob)?;
    if length > ARCHIVE_BYTES_MAX {
        let text = format!("an archive of more than {} MiB is not looked into", ARCHIVE_BYTES_MAX >> 20);
        return Err(Problem::new(ProblemKind::Unprocessable, text).help("download it, or hand on the report by itself"));
    }
    let mut archive = tar::Archive::new(app.server.blobs.open(digest).map_err(problem::blob)?);
    let damaged =
        |error: io::Error| Problem::new(ProblemKind::Unprocessable, format!("the archive cannot be read: {error}"));
    let mut count = 0;
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if count == ARTIFACT_FILES_MAX {
            return Ok(true);
        }
        count += 1;
        let path = entry.path_bytes();
        // Names that are no text can be had with the archive.
        let Ok(path) = std::str::from_utf8(&path) else { continue };
        let found = Found {
            path: path.trim_start_matches("./").to_owned(),
            from: entry.raw_file_position(),
            bytes: entry.size(),
        };
        if !more(found) {
            break;
        }
    }
    Ok(false)
}

/// Lists the files of an artifact.
pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let (build, digest) = (call.build()?, call.digest()?);
    let listed = app
        .blocking(move |app| {
            let rows = app.server.store.artifacts(build).map_err(problem::store)?;
            let row = rows.into_iter().find(|row| row.artifact.digest == digest);
            let row = row.ok_or_else(|| problem::not_found(format_args!("artifact {digest} in build {build}")))?;
            let mut listed = Vec::new();
            let has_more = files(app, digest, |found| {
                let media = media(&found.path).to_owned();
                listed.push(ArtifactFile { path: found.path, bytes: found.bytes, media });
                true
            })?;
            let view = address(app, build, digest);
            Ok(ArtifactFiles { job: row.job.to_string(), name: row.name, files: listed, has_more, view })
        })
        .await?;
    answer::json(&listed)
}

fn now_seconds(app: &App) -> u64 {
    u64::try_from(app.now().0 / 1_000_000).unwrap_or(0)
}

/// Where the files of this artifact are for a while.
fn address(app: &App, build: BuildId, digest: Digest) -> String {
    let until = (now_seconds(app) + ARTIFACT_VIEW_SECONDS).next_multiple_of(STEP_SECONDS);
    let what = format!("{build}-{digest}-{until}");
    let signature = hex::digits(hmac::sign(app.secrets.address_key(), what.as_bytes()).as_ref());
    format!("/{PREFIX}/{what}-{signature}")
}

/// The build and the artifact of an address that this server signed and whose time has not passed.
fn admitted(app: &App, address: &str) -> Option<(BuildId, Digest)> {
    let (what, signature) = address.rsplit_once('-')?;
    let bytes: Option<Vec<u8>> =
        (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(signature.get(at..at + 2)?, 16).ok()).collect();
    hmac::verify(app.secrets.address_key(), what.as_bytes(), &bytes?).ok()?;
    let mut parts = what.splitn(3, '-');
    let build = parts.next()?.parse().ok()?;
    let digest = parts.next()?.parse().ok()?;
    let until: u64 = parts.next()?.parse().ok()?;
    (now_seconds(app) < until).then_some((BuildId(build), digest))
}

/// A file, for whoever knows the address.
pub async fn file(app: Arc<App>, address: &str, path: &[String], headers: &HeaderMap) -> Response<Body> {
    let Some((build, digest)) = admitted(&app, address) else {
        let refusal = Problem::new(ProblemKind::Forbidden, "this address of an artifact is not good any more")
            .help("open the artifact again from the page of its build");
        return alone(problem::response(&refusal));
    };
    let (path, asked) = (path.join("/"), headers.clone());
    let answered = app
        .blocking(move |app| {
            // What was taken from the build since is not given any more.
            let rows = app.server.store.artifacts(build).map_err(problem::store)?;
            let is_there = rows.iter().any(|row| row.artifact.digest == digest);
            let index = if path.is_empty() { "index.html".to_owned() } else { format!("{path}/index.html") };
            let mut found = None;
            if is_there {
                files(app, digest, |file| {
                    let is_it = file.path == path;
                    if is_it || file.path == index {
                        found = Some(file);
                    }
                    !is_it
                })?;
            }
            let found = found.ok_or_else(|| problem::not_found(format_args!("file `{path}` in this artifact")))?;
            given(app, digest, &found, &asked)
        })
        .await;
    alone(answered.unwrap_or_else(|refusal| problem::response(&refusal)))
}

fn given(app: &App, digest: Digest, file: &Found, headers: &HeaderMap) -> Answered {
    let media = media(&file.path);
    if file.bytes == 0 {
        return Ok(answer::with(axum::http::StatusCode::OK, media, Body::empty()));
    }
    let wanted = range(headers, file.bytes)?;
    let (start, end) = match wanted {
        Wanted::Whole => (0, file.bytes),
        Wanted::Part(start, end) => (start, end),
    };
    let reader = app.server.blobs.open_range(digest, file.from + start..file.from + end).map_err(problem::blob)?;
    Ok(ranged(wanted, file.bytes, media, exactly(end - start, reader, &app.server.figures)))
}

/// With what keeps a file from being anything of this server.
fn alone(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "private, max-age=600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_file_is() {
        for (path, expected) in [
            ("a/index.HTML", "text/html; charset=utf-8"),
            ("a.html/b", BYTES),
            ("x.svg", "image/svg+xml"),
            (".txt", "text/plain; charset=utf-8"),
            ("html", BYTES),
            ("", BYTES),
        ] {
            assert_eq!(media(path), expected, "{path}");
        }
    }
}
