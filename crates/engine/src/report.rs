//! Bounds on what one attempt's report may bring into the facts.
//!
//! Workers keep narrower bounds of their own, so only a worker that is broken or hostile meets these. A value that others
//! would go on with is never cut: too much of it fails the attempt. What only people read is cut, with a note that says so.

use graph::{AttemptReport, Failure, Outcome};

/// The most bytes of the outputs of one attempt, names and values together.
pub const OUTPUTS_BYTES_MAX: usize = 4 << 20;
/// The most artifacts of one attempt.
pub const ARTIFACTS_MAX: usize = 10_000;
/// The most steps of one report.
pub const STEPS_MAX: usize = graph::Job::STEPS_MAX + graph::Job::SECTIONS_MAX;
/// The most images of one report.
pub const IMAGES_MAX: usize = 1 + graph::Job::SERVICES_MAX;
/// The most tests of one report.
pub const TESTS_MAX: usize = 100_000;
/// The most bytes of the tests of one report, all their texts together.
pub const TESTS_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a summary.
pub const SUMMARY_BYTES_MAX: usize = 1 << 20;
/// The most notes of one report.
pub const NOTES_MAX: usize = 200;
/// The most bytes of one note, of a step's name or of a failure's message.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Brings a report within the bounds.
pub(crate) fn bound(report: &mut AttemptReport) {
    report.notes.truncate(NOTES_MAX);
    report.notes.iter_mut().for_each(|note| cut(note, TEXT_BYTES_MAX));
    let mut left_out = Vec::new();
    if report.images.len() > IMAGES_MAX {
        left_out.push(format!(
            "{} images are left out: a report has at most {IMAGES_MAX}",
            report.images.len() - IMAGES_MAX
        ));
        report.images = std::mem::take(&mut report.images).into_iter().take(IMAGES_MAX).collect();
    }
    report.images.retain(|reference, digest| reference.len() + digest.len() <= TEXT_BYTES_MAX);
    if let Some(fault) = outputs_fault(report) {
        report.outcome = Outcome::Failed(Failure::Infra { message: fault });
        report.artifacts.clear();
        report.steps.iter_mut().for_each(|step| step.outputs.clear());
    }
    if let Outcome::Failed(Failure::Infra { message }) = &mut report.outcome {
        cut(message, TEXT_BYTES_MAX);
    }
    if report.steps.len() > STEPS_MAX {
        left_out
            .push(format!("{} steps are left out: a report has at most {STEPS_MAX}", report.steps.len() - STEPS_MAX));
        report.steps.truncate(STEPS_MAX);
    }
    report.steps.iter_mut().for_each(|step| cut(&mut step.name, TEXT_BYTES_MAX));
    let n_tests = tests_within(report);
    if n_tests < report.tests.len() {
        left_out.push(format!(
            "{} tests are left out: a report has at most {TESTS_MAX}, of {TESTS_BYTES_MAX} bytes together",
            report.tests.len() - n_tests
        ));
        report.tests.truncate(n_tests);
        report.tests_cut = true;
    }
    if report.summary.len() > SUMMARY_BYTES_MAX {
        left_out.push(format!("the summary is cut: it has at most {SUMMARY_BYTES_MAX} bytes"));
        cut(&mut report.summary, SUMMARY_BYTES_MAX);
    }
    report.notes.extend(left_out);
}

/// Why the values that others go on with are too many.
fn outputs_fault(report: &AttemptReport) -> Option<String> {
    let of_job: usize = match &report.outcome {
        // Numbers and booleans are small; texts are what grows.
        Outcome::Passed { outputs } => outputs.iter().map(|(name, value)| name.len() + value.to_string().len()).sum(),
        Outcome::Failed(_) | Outcome::Skipped(_) => 0,
    };
    let of_steps: usize =
        report.steps.iter().flat_map(|step| &step.outputs).map(|(name, value)| name.len() + value.len()).sum();
    let bytes = of_job.max(of_steps);
    if bytes > OUTPUTS_BYTES_MAX {
        return Some(format!(
            "the outputs have {bytes} bytes; the most is {OUTPUTS_BYTES_MAX}: hand files on as artifacts"
        ));
    }
    let n_artifacts = report.artifacts.len();
    (n_artifacts > ARTIFACTS_MAX)
        .then(|| format!("there are {n_artifacts} artifacts; the most is {ARTIFACTS_MAX}: put several files into one"))
}

/// How many of the tests, from the first, lie within the bounds.
fn tests_within(report: &AttemptReport) -> usize {
    let mut bytes = 0;
    let fits = |test: &&graph::TestCase| {
        bytes += test.suite.len() + test.name.len() + test.message.len() + test.output.len();
        bytes <= TESTS_BYTES_MAX
    };
    report.tests.iter().take(TESTS_MAX).take_while(fits).count()
}

/// Cuts a text at a character's boundary.
fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use graph::{AttemptReport, Failure, Outcome, TestCase, TestOutcome, Timestamp};

    use super::{NOTES_MAX, OUTPUTS_BYTES_MAX, SUMMARY_BYTES_MAX, TESTS_BYTES_MAX, TESTS_MAX, bound};

    fn report(outputs: BTreeMap<String, serde_json::Value>) -> AttemptReport {
        AttemptReport::of(Outcome::Passed { outputs }, Timestamp::default())
    }

    fn test(output: String) -> TestCase {
        let (suite, name, message) = Default::default();
        TestCase { suite, name, outcome: TestOutcome::Passed, duration_ms: 0, message, output }
    }

    #[test]
    fn a_report_within_the_bounds_stays_as_it_is() {
        let mut whole = report(BTreeMap::from([("x".to_owned(), "1".into())]));
        whole.summary = "é".repeat(SUMMARY_BYTES_MAX / 2);
        whole.tests = vec![test(String::new()); TESTS_MAX];
        let before = whole.clone();
        bound(&mut whole);
        assert_eq!(whole, before);
    }

    #[test]
    fn outputs_that_are_too_long_fail_the_attempt() {
        let mut long = report(BTreeMap::from([("x".to_owned(), "1".repeat(OUTPUTS_BYTES_MAX).into())]));
        bound(&mut long);
        let Outcome::Failed(Failure::Infra { message }) = long.outcome else { panic!("{:?}", long.outcome) };
        assert_eq!(message, "the outputs have 4194307 bytes; the most is 4194304: hand files on as artifacts");
    }

    #[test]
    fn what_people_read_is_cut_and_the_cut_is_told() {
        let mut long = report(BTreeMap::new());
        long.summary = format!("a{}", "é".repeat(SUMMARY_BYTES_MAX / 2));
        long.tests = vec![test(String::new()); TESTS_MAX + 2];
        long.notes = vec!["n".to_owned(); NOTES_MAX + 5];
        bound(&mut long);
        assert_eq!(long.summary.len(), SUMMARY_BYTES_MAX - 1, "no character is cut in two");
        assert_eq!((long.tests.len(), long.tests_cut), (TESTS_MAX, true));
        assert!(matches!(long.outcome, Outcome::Passed { .. }));
        assert_eq!(
            long.notes[NOTES_MAX..],
            [
                "2 tests are left out: a report has at most 100000, of 67108864 bytes together",
                "the summary is cut: it has at most 1048576 bytes"
            ]
        );
        let mut wordy = report(BTreeMap::new());
        wordy.tests =
            vec![test("x".repeat(TESTS_BYTES_MAX / 2)), test("y".repeat(TESTS_BYTES_MAX / 2)), test("z".into())];
        bound(&mut wordy);
        assert_eq!(wordy.tests.len(), 2);
    }
}
