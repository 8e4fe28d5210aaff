//! One request that was let in: what its line of the table leaves open, read and checked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use api::page::{CURSOR_BYTES_MAX, LIMIT_DEFAULT, LIMIT_MAX};
use api::problem::{Problem, ProblemKind};
use api::routes::Route;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use graph::{BuildId, Digest};
use serde::de::DeserializeOwned;

use crate::access::{Bearer, Target, Verb};

/// A request that was let in.
pub struct Call {
    /// Its line of the table.
    pub route: &'static Route,
    /// What the path leaves open, decoded.
    pub path: HashMap<String, String>,
    /// The query, decoded; of a name that comes twice the last.
    pub query: HashMap<String, String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body of a route that has one of JSON; empty otherwise.
    pub body: Bytes,
    /// The body of a route that has one of bytes; behind a lock, so that a call can be lent over a wait.
    pub stream: Option<std::sync::Mutex<Body>>,
    /// Who sent it, unless the route is public.
    pub bearer: Option<Arc<Bearer>>,
    /// The worker whose session it is, of a route for workers.
    pub worker: Option<graph::WorkerId>,
    /// From where.
    pub from: Option<SocketAddr>,
    /// Names it in the log.
    pub id: String,
}

impl Call {
    /// What the path says for `name`; there is always something, since the path matched.
    pub fn segment(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// A part of the path that has to be read as something.
    pub fn segment_as<T: FromStr>(&self, name: &'static str, what: &str) -> Result<T, Problem> {
        self.segment(name).parse().map_err(|_| {
            Problem::new(ProblemKind::Invalid, format!("`{}` is not {what}", self.segment(name)))
                .field(name, format!("has to be {what}"))
        })
    }

    /// The build of the path.
    pub fn build(&self) -> Result<BuildId, Problem> {
        let id: u64 = self.segment_as("build", "the id of a build")?;
        if i64::try_from(id).is_err() || id == 0 {
            return Err(Problem::new(ProblemKind::Invalid, "builds are numbered from 1")
                .field("build", "has to be the id of a build"));
        }
        Ok(BuildId(id))
    }

    /// The digest of the path.
    pub fn digest(&self) -> Result<Digest, Problem> {
        self.segment_as("digest", "a digest of 64 hexadecimal digits")
    }

    /// A value of the query; `None` if it is absent.
    pub fn wanted<T: FromStr>(&self, name: &'static str, what: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid(name, text, what))
    }

    /// A word of the query; `None` if it is absent.
    pub fn word<T: DeserializeOwned>(&self, name: &'static str, what: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        let value = serde_json::Value::String(text.clone());
        serde_json::from_value(value).map(Some).map_err(|_| invalid(name, text, what))
    }

    /// Words of the query with commas between them, in their order; `None` if it is absent.
    pub fn words<T: DeserializeOwned>(&self, name: &'static str, what: &str) -> Result<Option<Vec<T>>, Problem> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        let word = |word: &str| serde_json::from_value(serde_json::Value::from(word));
        text.split(',').map(word).collect::<Result<_, _>>().map(Some).map_err(|_| invalid(name, text, what))
    }

    /// A text of the query; `None` if it is absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// How many items the page may have.
    pub fn limit(&self) -> Result<u32, Problem> {
        let what = format!("a number from 1 to {LIMIT_MAX}");
        match self.wanted::<u32>("limit", &what)? {
            None => Ok(LIMIT_DEFAULT),
            Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(invalid("limit", &limit.to_string(), &what)),
        }
    }

    /// Where the page begins, as its kind of list writes cursors.
    pub fn cursor<T: FromStr>(&self) -> Result<Option<T>, Problem> {
        let Some(text) = self.query.get("cursor") else { return Ok(None) };
        let read = if text.len() > CURSOR_BYTES_MAX { None } else { text.parse().ok() };
        let cut: String = text.chars().take(40).collect();
        read.map(Some).ok_or_else(|| invalid("cursor", &cut, "the `next` of a page of this list"))
    }

    /// The body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Problem::new(
                ProblemKind::Invalid,
                format!("the body is not what `{}` takes: {error}", self.route.operation),
            )
            .help("see /openapi.json")
        })
    }

    /// The body; the default if there is none.
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// The body, as it comes.
    pub fn into_stream(self) -> Body {
        let stream = self.stream.map(|stream| stream.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        stream.unwrap_or_else(|| Body::from(self.body))
    }

    /// Who sent it, by name.
    pub fn who(&self) -> String {
        self.bearer.as_ref().map_or_else(|| "somebody".to_owned(), |bearer| bearer.subject.name.clone())
    }

    /// Who sent it. Routes that ask for it are never public.
    pub fn bearer(&self) -> Result<&Arc<Bearer>, Problem> {
        self.bearer.as_ref().ok_or_else(|| Problem::new(ProblemKind::Unauthorized, "a token is needed"))
    }

    /// Whether the sender may do this; refused otherwise.
    pub fn demand(&self, verb: Verb, target: &Target<'_>, now: graph::Timestamp) -> Result<(), Problem> {
        self.bearer()?.may(verb, target, now).map_err(super::problem::denied)
    }
}

pub fn invalid(name: &'static str, text: &str, what: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, format!("`{name}` is `{text}`, not {what}"))
        .field(name, format!("has to be {what}"))
}

/// Name and value pairs of a query, percent-decoded.
///
/// # Errors
/// If a text is not UTF-8.
pub fn parse_query(query: &str) -> Result<HashMap<String, String>, Problem> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Percent-decoded, with `+` for a space.
pub(super) fn decode(text: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = &rest[2..];
                    }
                    // As it stands, as the web does.
                    None => bytes.push(b'%'),
                }
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| Problem::new(ProblemKind::Invalid, "the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::parse_query;

    #[test]
    fn queries_are_decoded() {
        let query = parse_query("a=b%26c&d&e=f+g&h=%zz&a=%C3%A9").expect("it is UTF-8");
        let mut pairs: Vec<_> = query.into_iter().collect();
        pairs.sort();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "é"), ("d", ""), ("e", "f g"), ("h", "%zz")]);
        assert!(parse_query("a=%ff").is_err());
    }
}
