//! Answers to calls that were done.

use std::io::{self, Read};
use std::sync::Arc;

use api::page::Page;
use api::problem::{Problem, ProblemKind};
use api::routes::JSON;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::figures::Figures;

/// The size of a piece in bytes.
pub const PIECE_BYTES: usize = 64 * 1024;

/// What a handler gives.
pub type Answered = Result<Response<Body>, Problem>;

/// One value.
pub fn json(value: &impl Serialize) -> Answered {
    json_as(StatusCode::OK, value)
}

/// One value, with a status.
pub fn json_as(status: StatusCode, value: &impl Serialize) -> Answered {
    let body = serde_json::to_vec(value).map_err(|error| super::problem::internal(&error))?;
    Ok(with(status, JSON, Body::from(body)))
}

/// All there is of a list.
pub fn page<T: Serialize>(items: Vec<T>) -> Answered {
    json(&Page::whole(items))
}

/// Done, nothing to say.
pub fn nothing() -> Answered {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A body of this media type.
pub fn with(status: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Whether there is more of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There is.
    Yes,
    /// All was given.
    No,
}

/// A body of which the next piece is made when it is wanted, so that a reader who is slow, or stops, holds no thread.
/// `make` adds about [`PIECE_BYTES`] to what it is given; an error breaks the answer off.
pub fn by_pieces(make: impl FnMut(&mut Vec<u8>) -> io::Result<More> + Send + 'static) -> Body {
    Body::from_stream(futures_util::stream::unfold(Some(make), |make| async move {
        let mut make = make?;
        let made = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let more = make(&mut piece);
            (make, piece, more)
        });
        let (make, piece, more) = match made.await {
            Ok(made) => made,
            Err(error) => return Some((Err(io::Error::other(error)), None)),
        };
        match more {
            Ok(More::Yes) => Some((Ok(Bytes::from(piece)), Some(make))),
            Ok(More::No) => Some((Ok(Bytes::from(piece)), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Which bytes of so many are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    Whole,
    /// From the first to before the second; never empty.
    Part(u64, u64),
}

/// What a `Range` header asks of a body of `length` bytes (RFC 9110, 14.2). What is not one range of bytes is passed over,
/// as the RFC allows.
///
/// # Errors
/// `Range` if it lies outside.
pub fn range(headers: &HeaderMap, length: u64) -> Result<Wanted, Problem> {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Ok(Wanted::Whole);
    };
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Ok(Wanted::Whole);
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let (start, end) = match (first.trim(), last.trim()) {
        ("", count) if is_number(count) => (length.saturating_sub(number(count)), length),
        (first, "") if is_number(first) => (number(first), length),
        (first, last) if is_number(first) && is_number(last) && number(first) <= number(last) => {
            (number(first), number(last).saturating_add(1).min(length))
        }
        _ => return Ok(Wanted::Whole),
    };
    if start >= end {
        return Err(Problem::new(ProblemKind::Range, format!("`{text}` lies outside of {length} bytes"))
            .field("range", format!("there are {length} bytes")));
    }
    Ok(Wanted::Part(start, end))
}

/// A body of exactly the bytes of a content that `reader` gives, `length` of them.
pub fn exactly(length: u64, mut reader: Box<dyn Read + Send>, figures: &Arc<Figures>) -> Body {
    let mut left = length;
    let figures = Arc::clone(figures);
    by_pieces(move |piece| {
        let most = left.min(PIECE_BYTES as u64 * 4);
        let n_read = (&mut reader).take(most).read_to_end(piece)? as u64;
        if n_read < most {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= n_read;
        figures.blob_bytes_out.add(n_read);
        Ok(if left == 0 { More::No } else { More::Yes })
    })
}

/// Sets what an answer with, or without, a range has to say of itself.
pub fn ranged(wanted: Wanted, length: u64, media: &'static str, body: Body) -> Response<Body> {
    let (status, sent) = match wanted {
        Wanted::Whole => (StatusCode::OK, length),
        Wanted::Part(start, end) => (StatusCode::PARTIAL_CONTENT, end - start),
    };
    let mut response = with(status, media, body);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(sent));
    if let Wanted::Part(start, end) = wanted
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {start}-{}/{length}", end - 1))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: Option<Wanted>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(text).expect("a header"));
        assert_eq!(range(&headers, 10).ok(), wanted, "{text}");
    }

    #[test]
    fn ranges_of_ten_bytes() {
        check("bytes=0-", Some(Wanted::Part(0, 10)));
        check("bytes=3-5", Some(Wanted::Part(3, 6)));
        check("bytes=3-99", Some(Wanted::Part(3, 10)));
        check("bytes=-4", Some(Wanted::Part(6, 10)));
        check("bytes=-99", Some(Wanted::Part(0, 10)));
        check("bytes=10-", None);
        check("bytes=-0", None);
        check("bytes=99999999999999999999-", None);
        for passed_over in ["bytes=5-3", "lines=1-2", "bytes=1-2,4-5", "bytes=a-b", "bytes=", "bytes=-"] {
            check(passed_over, Some(Wanted::Whole));
        }
    }
}
