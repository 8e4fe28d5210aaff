//! Refusals that are the server's own fault, told in its log under the id that the caller was given. One that comes again and again,
//! as when a disk is full, is told once in a while, with how many were like it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use api::problem::{Problem, ProblemKind};

use crate::lock::lock;
use crate::notices;

/// How long a refusal of an operation keeps others of it from being told.
const QUIET: Duration = Duration::from_secs(10);

/// An operation of the table, and the status of its refusal.
type Kind = (&'static str, u16);

/// When a kind of refusal was told last, and how many were not told since. As many as the table has routes, times the few statuses of a
/// server's fault.
#[derive(Default)]
pub struct Troubles(Mutex<BTreeMap<Kind, (Instant, u64)>>);

impl Troubles {
    /// Tells of a refusal and its cause, if it is the server's fault and the like has not been told a moment ago. The refusal is left
    /// without its cause.
    pub fn note(&self, operation: &'static str, refusal: &mut Problem) {
        let line = self.line(operation, refusal, Instant::now());
        refusal.cause.clear();
        match line {
            Some(line) if refusal.status == ProblemKind::Internal.status() => notices::error(&line),
            Some(line) => notices::warning(&line),
            None => {}
        }
    }

    fn line(&self, operation: &'static str, refusal: &Problem, now: Instant) -> Option<String> {
        let Problem { status, title, detail, help, request, cause, .. } = refusal;
        if *status < 500 {
            return None;
        }
        let mut told = lock(&self.0);
        let untold = match told.get_mut(&(operation, *status)) {
            Some((at, untold)) if now.saturating_duration_since(*at) < QUIET => {
                *untold += 1;
                return None;
            }
            Some((_, untold)) => *untold,
            None => 0,
        };
        told.insert((operation, *status), (now, 0));
        let mut line = format!("`{operation}` was refused with {status}, request {request}: ");
        let said = [cause, detail, title].into_iter().find(|said| !said.is_empty());
        line.extend(said.map(String::as_str));
        // What an inner fault's help says is for callers: that this log says more.
        if *status != 500 && !help.is_empty() {
            line.push_str(&format!("; {help}"));
        }
        if untold > 0 {
            line.push_str(&format!(" ({untold} more like it before)"));
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_and_again_is_told_once_in_a_while() {
        let troubles = Troubles::default();
        let began = Instant::now();
        let full = |request: &str| {
            let refusal = Problem::new(ProblemKind::Unavailable, "no space is left").help("make room");
            Problem { request: request.to_owned(), ..refusal }
        };
        let first = troubles.line("build_submit", &full("r1"), began);
        let expected = "`build_submit` was refused with 503, request r1: no space is left; make room";
        assert_eq!(first.as_deref(), Some(expected));
        assert_eq!(troubles.line("build_submit", &full("r2"), began + QUIET / 2), None);
        assert_eq!(troubles.line("build_submit", &full("r3"), began + QUIET / 2), None);
        // Another operation has its own word.
        assert!(troubles.line("pool_hold", &full("r4"), began + QUIET / 2).is_some());
        let later = troubles.line("build_submit", &full("r5"), began + QUIET).unwrap();
        assert!(later.contains("request r5") && later.ends_with("(2 more like it before)"), "{later}");
        // What callers did wrong is theirs to read.
        assert_eq!(troubles.line("build_get", &Problem::new(ProblemKind::NotFound, "no build 9"), began), None);
        let inner =
            Problem { request: "r6".to_owned(), ..Problem::new(ProblemKind::Internal, "").help("its log says more") };
        let inner = Problem { cause: "a row cannot be read".to_owned(), ..inner };
        let told = troubles.line("build_get", &inner, began).unwrap();
        assert_eq!(told, "`build_get` was refused with 500, request r6: a row cannot be read");
        let mut inner = inner;
        troubles.note("build_get", &mut inner);
        assert_eq!(inner.cause, "", "it is told once");
        let told = troubles.line("job_get", &inner, began).unwrap();
        assert!(
            told.starts_with("`job_get` was refused with 500, request r6: the server has a fault")
                && !told.contains("says more"),
            "{told}"
        );
    }
}
