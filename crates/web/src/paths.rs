//! Paths, of pages and of the API, with names in them.

use std::fmt::Write;

/// A text as one part of a path, or as a value of a query (RFC 3986: everything but unreserved letters is encoded).
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The page of a project.
#[must_use]
pub fn project(project: &str) -> String {
    format!("/projects/{}", encoded(project))
}

/// The page of a build.
#[must_use]
pub fn build(build: impl std::fmt::Display) -> String {
    format!("/builds/{build}")
}

/// The page of a job.
#[must_use]
pub fn job(build: impl std::fmt::Display, job: &str) -> String {
    format!("/builds/{build}/jobs/{}", encoded(job))
}

/// The attempts of a job, side by side.
#[must_use]
pub fn attempts(build: impl std::fmt::Display, job: &str) -> String {
    format!("/builds/{build}/jobs/{}/attempts", encoded(job))
}

/// The files of an artifact.
#[must_use]
pub fn artifact(build: impl std::fmt::Display, digest: impl std::fmt::Display) -> String {
    format!("/builds/{build}/artifacts/{digest}")
}

/// The same of the API.
#[must_use]
pub fn api_job(build: impl std::fmt::Display, job: &str) -> String {
    format!("/api/v1/builds/{build}/jobs/{}", encoded(job))
}

/// The log of a step, of the API.
#[must_use]
pub fn api_log(build: impl std::fmt::Display, attempt: impl std::fmt::Display, step: impl std::fmt::Display) -> String {
    format!("/api/v1/builds/{build}/attempts/{attempt}/log/{step}")
}
