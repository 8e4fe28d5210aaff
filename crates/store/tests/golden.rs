//! Facts that were ever written must always load. The file holds one line per kind and shape; lines are added,
//! never edited.

mod sample;

use engine::fact::{Fact, What};
use graph::{BuildId, Origin};

/// As they stood when they were first written.
const FACTS: &str = include_str!("golden/facts.jsonl");

/// What the lines say: first every kind, with a request as it was at first, then that request with all that it may have
/// since, then retries that are narrowed to tests, and one that is compared with what ran before; then a wait that a group ended; then
/// reports that were cut; then an evaluation by a program.
fn facts() -> Vec<Fact> {
    let mut facts = sample::every_kind(BuildId(2));
    let full = facts[0].clone();
    if let What::BuildCreated(request) = &mut facts[0].what {
        request.options.pool.clear();
        request.origin = Origin::default();
        (request.identity, request.supersedes) = (None, None);
    }
    facts.push(full);
    facts.extend(sample::asked_for_tests(BuildId(2)));
    facts.extend(sample::compared_with_what_passed(BuildId(2)));
    facts.extend(sample::waited_for_a_group(BuildId(2)));
    facts.extend(sample::with_reports_cut(BuildId(2)));
    facts.extend(sample::retried_by_key(BuildId(2)));
    facts.push(sample::said_by_a_program(BuildId(2)));
    facts
}

#[test]
fn facts_written_long_ago_still_load() {
    let lines = FACTS.lines().map(|line| serde_json::from_str::<Fact>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    assert_eq!(lines.collect::<Vec<_>>(), facts());
}

#[test]
fn facts_are_still_written_the_same_way() {
    let written: Vec<_> = facts().iter().map(|fact| serde_json::to_string(fact).unwrap()).collect();
    assert_eq!(written, FACTS.lines().collect::<Vec<_>>());
}

/// The kind's place in the file of kinds. A new kind does not compile until it is added here and to the sample.
fn kind(what: &What) -> usize {
    match what {
        What::BuildCreated(_) => 0,
        What::Answered { .. } => 1,
        What::Evaluated { .. } => 2,
        What::GateOpened { .. } => 3,
        What::GateAnswered { .. } => 4,
        What::OperationKnown { .. } => 5,
        What::OperationUnknown { .. } => 6,
        What::AttemptLeased { .. } => 7,
        What::AttemptFinished { .. } => 8,
        What::JobEnded { .. } => 9,
        What::JobRetried { .. } => 10,
        What::CancelRequested { .. } => 11,
        What::BuildEnded { .. } => 12,
        What::AttemptAdopted { .. } => 13,
        What::JobCancelRequested { .. } => 14,
        What::MadeUrgent { .. } => 15,
        What::ChildMade { .. } => 16,
        What::ChildFailed { .. } => 17,
    }
}

#[test]
fn every_kind_of_fact_is_among_them() {
    let mut kinds: Vec<_> = sample::every_kind(BuildId(2)).iter().map(|fact| kind(&fact.what)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..=17).collect::<Vec<_>>());
}

/// What events may have since then. Old facts lack it, and old readers pass over it.
#[test]
fn what_was_added_to_events_is_left_out_where_it_is_not() {
    let event = graph::Event {
        command: Some("release".to_owned()),
        checkout: graph::Checkout::Changed,
        parent: Some(graph::Parent {
            build: BuildId(1),
            job: "ship".into(),
            depth: 1,
            waits: graph::Waits::ForVerdict,
        }),
        ..graph::Event::new(graph::EventKind::Command)
    };
    let written = r#"{"kind":"command","command":"release","time":0,"trust":"trusted","checkout":"changed","parent":{"build":1,"job":"ship","depth":1,"waits":"for_verdict"}}"#;
    assert_eq!(serde_json::to_string(&event).unwrap(), written);
    assert_eq!(serde_json::from_str::<graph::Event>(written).unwrap(), event);
    let plain = graph::Event::new(graph::EventKind::Push);
    assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"kind":"push","time":0,"trust":"trusted"}"#);
}

#[test]
fn a_reader_passes_over_fields_that_a_newer_writer_added() {
    let line = FACTS.lines().next().unwrap();
    let newer = line.replacen('{', r#"{"added_later":{"x":1},"#, 1);
    assert_eq!(serde_json::from_str::<Fact>(&newer).unwrap(), serde_json::from_str::<Fact>(line).unwrap());
}
