//! When a job or a step runs, as GitHub's `if` says it.
//!
//! Nothing runs there that Ropewalk would not run: what cannot be said becomes `false`, and a sentence says so.
//!
//! Without a status function GitHub adds `success()`, which asks all jobs before, however far; with one it asks only what is
//! written. So a job whose needs accept more than success names the result of each. A single job is `cancelled` there
//! only by its group or its time limit: `!cancelled()` asks about the whole run.

use std::collections::BTreeSet;

use expression::Condition;
use graph::{Accepts, Carries, Ending, Need, Step};

use super::when;
use super::words::{Place, Reader};
use crate::export::yaml::Yaml;
use crate::export::{Piece, Plan};
use crate::native::when::spoken;

/// A job's `if`: by the endings that its needs accept, and its own condition.
pub(super) fn of_job(reader: Reader<'_>, notes: &mut Vec<String>) -> Option<Yaml> {
    let piece = reader.piece;
    let condition = piece.job.condition.as_deref();
    let mut own = match condition.map(|written| (written, reader.expression(written, Place::Job))) {
        None => None,
        Some((_, Ok(words))) => Some(words),
        Some((written, Err(missing))) => {
            notes.push(cannot_ask("job", written, &missing));
            return Some(never());
        }
    };
    if let Some(when) = &piece.when {
        match when::expression(when, reader) {
            Ok(Some(words)) => own = Some(own.map_or_else(|| words.clone(), |own| format!("{words} && ({own})"))),
            Ok(None) => {}
            Err(missing) => {
                notes.push(cannot_ask("job", &spoken(when), &missing));
                return Some(never());
            }
        }
        if when::asks_changes(when) {
            notes.push(format!("Ropewalk runs it only for {}; here it runs whatever changed.", spoken(when)));
        }
    }
    let parsed = condition.and_then(|written| Condition::parse(written).ok());
    let mut parts = Vec::new();
    if piece.job.cleanup {
        parts.push("always()".to_owned());
    } else if piece.needs.iter().any(|(key, need)| !Piece::is_plain(need) || reader.lenient.contains(key.as_str())) {
        parts.push("!cancelled()".to_owned());
    } else if parsed.as_ref().is_some_and(Condition::calls_status_function) {
        parts.push("success()".to_owned());
    } else {
        return own.map(said);
    }
    if parts[0] != "success()" {
        let reads_results = parsed.is_some_and(|condition| {
            condition.context_paths().iter().any(|path| &*path.context == "needs" && path.name(1) == Some("result"))
        });
        for (key, need) in &piece.needs {
            match asked(reader, key, need, reads_results) {
                Asked::Anything => {}
                Asked::EveryLeg => {
                    notes.push(format!(
                        "Ropewalk runs it only if every leg of `{key}` has failed; GitHub knows only whether one has, so this job \
                         never runs there."
                    ));
                    return Some(never());
                }
                Asked::OneOf(words) if words.is_empty() => {
                    notes.push(format!(
                        "It waits for an ending of `{key}` that GitHub does not tell, so it never runs there."
                    ));
                    return Some(never());
                }
                Asked::OneOf(words) => parts.push(one_of(key, &words)),
                Asked::Not(word) => parts.push(format!("needs.{key}.result != '{word}'")),
            }
        }
    }
    parts.extend(own.map(|words| format!("({words})")));
    Some(said(parts.join(" && ")))
}

/// The keys of jobs that may pass although one before them did not: `success()` does not hold behind them.
pub(super) fn lenient<'p>(plan: &'p Plan<'_>) -> BTreeSet<&'p str> {
    // What only hands outputs on comes before another need.
    let waits_for = |piece: &'p Piece| piece.needs.iter().filter(|(_, need)| need.carries != Carries::Outputs);
    let mut lenient: BTreeSet<&str> = BTreeSet::new();
    // Until nothing new is found, since needs may come behind in the text.
    loop {
        let before = lenient.len();
        for piece in &plan.jobs {
            if waits_for(piece).any(|(key, need)| !Piece::is_plain(need) || lenient.contains(key.as_str())) {
                lenient.insert(&piece.key);
            }
        }
        if lenient.len() == before {
            return lenient;
        }
    }
}

/// A step's `if`, and what stands above it.
pub(super) fn of_step(step: &Step, reader: Reader<'_>) -> Option<(Yaml, Option<String>)> {
    let written = step.condition.as_deref()?;
    Some(match reader.expression(written, Place::Step) {
        _ if written == "false" => (never(), None),
        Ok(words) => (said(words), None),
        Err(missing) => (never(), Some(cannot_ask("step", written, &missing))),
    })
}

/// Which results of a needed job GitHub is asked about.
enum Asked {
    Anything,
    /// That of every leg of a matrix: GitHub has one for all, the worst.
    EveryLeg,
    OneOf(Vec<&'static str>),
    Not(&'static str),
}

fn asked(reader: Reader<'_>, key: &str, need: &Need, reads_results: bool) -> Asked {
    let Some(needed) = reader.plan.jobs.iter().find(|other| other.key == key) else { return Asked::OneOf(Vec::new()) };
    let may_time_out = needed.job.timeout_ms.is_some();
    let is_cleanup = reader.piece.job.cleanup;
    if need.accepts == Accepts::FINISHED {
        // What a person ended is not gone on with. A result that is read must not be that of a time limit, either.
        let is_refused = needed.job.concurrency.is_some() || may_time_out && reads_results;
        return if is_refused && !is_cleanup { Asked::Not("cancelled") } else { Asked::Anything };
    }
    let holds = |ending| need.accepts.holds(ending);
    let n_legs: usize = needed.axes.iter().map(|(_, values)| values.len()).product();
    let n_legs = n_legs.saturating_sub(needed.excluded.len());
    if n_legs > 1 && !holds(Ending::Passed) {
        return Asked::EveryLeg;
    }
    let fails = holds(Ending::Failed) && !needed.job.allow_failure;
    let is_timed_out = may_time_out && needed.job.concurrency.is_none() && !is_cleanup && !reads_results;
    let words = [
        (holds(Ending::Passed), "success"),
        (fails, "failure"),
        (holds(Ending::Canceled) && !may_time_out || fails && is_timed_out, "cancelled"),
        (holds(Ending::Skipped), "skipped"),
    ];
    Asked::OneOf(words.into_iter().filter(|(is_accepted, _)| *is_accepted).map(|(_, word)| word).collect())
}

fn one_of(key: &str, words: &[&str]) -> String {
    match words {
        [word] => format!("needs.{key}.result == '{word}'"),
        words => {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!("contains(fromJSON('[{}]'), needs.{key}.result)", words.join(", "))
        }
    }
}

fn said(words: String) -> Yaml {
    // `!` would begin a tag of YAML's.
    Yaml::Text(if words.starts_with('!') { format!("${{{{ {words} }}}}") } else { words })
}

fn never() -> Yaml {
    Yaml::Word("false".to_owned())
}

fn cannot_ask(what: &str, condition: &str, missing: &str) -> String {
    format!(
        "GitHub does not tell `{missing}` here as Ropewalk does, so this {what} never runs there. Its condition: {condition}"
    )
}
