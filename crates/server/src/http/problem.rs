//! What went wrong inside, as people outside are told.

use std::io::ErrorKind;

use api::problem::{MEDIA_TYPE, Problem, ProblemKind};
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use graph::with_causes;
use store::StoreError;
use store::blob::BlobError;
use store::log::LogError;

use crate::access::{Bearer, Denied, LedgerError};
use crate::notices;
use crate::records::RecordError;
use crate::request::Stopped;

/// The most of a cause that is told.
const CAUSE_BYTES_MAX: usize = 2000;

/// The refusal as an answer. A cause that nobody has told is told in the log, not to the caller.
pub fn response(problem: &Problem) -> Response<Body> {
    if !problem.cause.is_empty() {
        notices::error(&format!("a request failed: {}", problem.cause));
    }
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if problem.status == ProblemKind::Unauthorized.status() {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(problem.status, 429 | 503) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// There is no such thing.
pub fn not_found(what: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no {what}, or the token may not see it"))
}

/// A fault of ours; its cause is for the log.
pub fn internal(error: &dyn std::error::Error) -> Problem {
    let mut cause = with_causes(error);
    if cause.len() > CAUSE_BYTES_MAX {
        cause.truncate(cause.floor_char_boundary(CAUSE_BYTES_MAX));
        cause.push('…');
    }
    Problem {
        cause,
        ..Problem::new(ProblemKind::Internal, "").help("tell whoever runs this server; its log says more")
    }
}

/// The end of a stream in which something went wrong after it had begun, told in the log.
pub fn broken_off(problem: &Problem) -> std::io::Error {
    if !problem.cause.is_empty() {
        notices::error(&format!("a stream broke off: {}", problem.cause));
    }
    std::io::Error::other(problem.to_string())
}

/// The refusal with its cause, for the log.
pub fn told(problem: &Problem) -> String {
    if problem.cause.is_empty() { problem.to_string() } else { format!("{problem}: {}", problem.cause) }
}

fn unavailable(error: &dyn std::error::Error, help: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable, with_causes(error)).help(help)
}

/// What a store refused.
pub fn store(error: StoreError) -> Problem {
    match &error {
        StoreError::Busy(_) | StoreError::Lost(_) => unavailable(&error, "try again"),
        StoreError::NotLeading => unavailable(&error, "try again; another server answers"),
        StoreError::Full(_) => unavailable(&error, "make room on the server's disk"),
        StoreError::NoBuild(build) => not_found(format_args!("build {build}")),
        StoreError::Running(_) | StoreError::Conflict { .. } => {
            Problem::new(ProblemKind::Conflict, error.to_string()).help("look at it again, then decide")
        }
        StoreError::TooLarge { .. } => Problem::new(ProblemKind::Unprocessable, error.to_string()),
        _ => internal(&error),
    }
}

/// What a record refused.
pub fn record(error: RecordError) -> Problem {
    match error {
        RecordError::Store(error) => store(error),
        error => internal(&error),
    }
}

/// What the ledger of tokens refused.
pub fn ledger(error: LedgerError) -> Problem {
    match error {
        LedgerError::Store(error) => store(error),
        error => internal(&error),
    }
}

/// What a blob store refused.
pub fn blob(error: BlobError) -> Problem {
    match &error {
        BlobError::Absent(_) => {
            Problem::new(ProblemKind::Gone, error.to_string()).help("it was collected or evicted: run the job again")
        }
        BlobError::Full(_) => unavailable(&error, "make room on the server's disk"),
        BlobError::Io(cause) if matches!(cause.kind(), ErrorKind::TimedOut | ErrorKind::ConnectionReset) => {
            unavailable(&error, "try again; if it lasts, the server does not reach its bucket: see `blobs.endpoint`")
        }
        _ => internal(&error),
    }
}

/// What a blob store refused to a call that can be repeated.
pub fn blob_for_now(error: &BlobError) -> Problem {
    unavailable(error, "try again; if it lasts, the server's log and `ropewalk doctor` say more")
}

/// What a log refused.
pub fn log(error: LogError) -> Problem {
    match &error {
        LogError::Full(_) => unavailable(&error, "make room on the server's disk"),
        LogError::Watched => Problem::new(ProblemKind::Busy, error.to_string()).help("close some followers"),
        LogError::Busy(_) => unavailable(&error, "try again"),
        _ => internal(&error),
    }
}

/// The shell has ended.
pub fn stopped(error: Stopped) -> Problem {
    unavailable(&error, "try again in a moment; a call under the same idempotency key is done once")
}

/// Why somebody was not let in.
pub fn denied(denied: Denied) -> Problem {
    match denied {
        Denied::NoToken(why) => Problem::new(ProblemKind::Unauthorized, why)
            .help("send `Authorization: Bearer TOKEN`; `ropewalk token create` makes one"),
        Denied::Revoked => Problem::new(ProblemKind::Unauthorized, Denied::Revoked.to_string()),
        Denied::Ended => Problem::new(ProblemKind::Unauthorized, Denied::Ended.to_string())
            .help("ask whoever runs this server for a new one"),
        Denied::Forbidden { .. } => Problem::new(ProblemKind::Forbidden, denied.to_string())
            .help("ask whoever runs this server for a token that grants it"),
        Denied::Slow => unavailable(&Denied::Slow, "try again"),
        Denied::Ledger(error) => ledger(error),
    }
}

/// As [`denied`], of what somebody else was to be given.
pub fn not_given(refusal: Denied) -> Problem {
    match refusal {
        Denied::Forbidden { .. } => Problem::new(ProblemKind::Forbidden, refusal.to_string())
            .help("nobody gives others more than the own token grants, or for longer: give less, or use a token that grants it"),
        refusal => denied(refusal),
    }
}

/// What to do where a token is not for a pool; `None` if it is for every one, or for none.
pub fn pools_help(bearer: &Bearer) -> Option<String> {
    let pools = bearer.pools()?;
    let first = pools.first()?;
    let names = pools.iter().map(|pool| format!("`{pool}`")).collect::<Vec<_>>().join(", ");
    Some(match pools.len() {
        1 => format!("the token is for the pool {names}: say `--pool {first}`"),
        _ => format!("the token is for the pools {names}: name one of them, as by `--pool {first}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_is_not_reached_is_no_fault_of_the_servers_program() {
        let refused = |kind: ErrorKind| blob(BlobError::Io(std::io::Error::new(kind, "connection refused")));
        let away = refused(ErrorKind::ConnectionReset);
        assert_eq!(away.status, 503);
        assert!(away.detail.contains("connection refused") && away.help.contains("`blobs.endpoint`"), "{away:?}");
        // Of others its log knows what to say, and callers nothing.
        let inner = refused(ErrorKind::PermissionDenied);
        let told = "reading or writing a blob was refused: connection refused";
        assert_eq!((inner.status, inner.detail.as_str(), inner.cause.as_str()), (500, "", told));
        assert!(!serde_json::to_string(&inner).expect("JSON").contains("connection refused"));
    }

    #[test]
    fn what_is_told_of_a_cause_has_a_bound() {
        let long = BlobError::Io(std::io::Error::other("é".repeat(CAUSE_BYTES_MAX)));
        let problem = internal(&long);
        assert!(problem.cause.ends_with("é…") && problem.cause.len() <= CAUSE_BYTES_MAX + '…'.len_utf8());
        assert!(told(&problem).starts_with("the server has a fault: "), "{}", told(&problem));
    }
}
