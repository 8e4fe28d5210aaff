//! JUnit XML: what test runners of all languages write. Read as a stream, within bounds, whatever the file holds.
//!
//! There is no one standard; this reads what Surefire, Gradle, pytest, Jest, GoogleTest, go-junit-report, nextest and
//! PHPUnit write. Entities that a document declares itself are never expanded, so none can grow. A broken document
//! gives the tests before the fault, and the fault.

use std::io::{self, BufRead, Read};

use graph::{TestCase, TestOutcome};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

/// The most bytes read of one report; a longer one counts as cut off there.
pub const REPORT_BYTES_MAX: u64 = 64 << 20;

/// The most tests kept of one attempt.
pub const TESTS_MAX: usize = 100_000;

/// The most bytes kept of the message, and of the output, of one test.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// The most bytes of messages and output kept of one attempt.
pub const TEXTS_BYTES_MAX: usize = 16 << 20;

/// The most bytes kept of a name.
pub const NAME_BYTES_MAX: usize = 1 << 10;

/// The deepest nesting of elements that is followed.
pub const DEPTH_MAX: usize = 128;

/// Tests read so far, from one or several reports.
#[derive(Debug, Default)]
pub struct Tests {
    /// In the order of the reports; but of more than [`TESTS_MAX`], those that failed take the places of others, the last first.
    pub cases: Vec<TestCase>,
    /// Tests that were passed over because of [`TESTS_MAX`].
    pub dropped: u64,
    /// How many of these failed: none as long as others are kept.
    pub dropped_failed: u64,
    /// Whether a report may hold tests that were not read.
    pub is_cut: bool,
    texts_bytes: usize,
    /// How many of the last are known to have failed, once there is no more room.
    last_failed: usize,
}

/// Why a report was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// It is no XML, or broken or cut off at that byte.
    #[error("not well-formed XML at byte {offset}: {cause}")]
    Broken {
        /// From the beginning of the file.
        offset: u64,
        /// What the parser said.
        cause: String,
    },
    /// Elements are nested deeper than [`DEPTH_MAX`].
    #[error("elements are nested deeper than {DEPTH_MAX}")]
    Deep,
    /// It has no element at all: nothing was written, or no XML.
    #[error("no element: not a JUnit report")]
    NoElement,
    /// It is XML, but has no `testsuite`.
    #[error("no `testsuite` element: not a JUnit report")]
    NotJunit,
    /// It is longer than [`REPORT_BYTES_MAX`].
    #[error("longer than {REPORT_BYTES_MAX} bytes; the rest was not read")]
    TooLong,
}

impl ReportFault {
    /// Whether there may be tests behind it.
    #[must_use]
    fn hides_tests(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Deep | Self::TooLong | Self::NoElement => true,
            Self::NotJunit => false,
        }
    }
}

/// Where text goes that stands in an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Message,
    Output,
}

/// The state of one reading.
struct Reading<'t> {
    tests: &'t mut Tests,
    suites: Vec<String>,
    case: Option<TestCase>,
    /// What each open element does with its text.
    places: Vec<Place>,
    has_element: bool,
    has_suite: bool,
}

impl Tests {
    /// Tests that are known, before any report.
    #[must_use]
    pub fn before(cases: Vec<TestCase>) -> Self {
        let texts_bytes = cases.iter().map(texts_bytes).sum();
        Self { cases, texts_bytes, ..Self::default() }
    }

    /// Reads one report. Tests found before a fault stay.
    ///
    /// # Errors
    /// [`ReportFault`]; for people, never a reason to fail a job.
    pub fn read(&mut self, report: impl BufRead) -> Result<(), ReportFault> {
        let read = self.read_to_end(report);
        self.is_cut |= read.as_ref().is_err_and(ReportFault::hides_tests);
        read
    }

    fn read_to_end(&mut self, report: impl BufRead) -> Result<(), ReportFault> {
        let mut reader = Reader::from_reader(LossyText::of(report.take(REPORT_BYTES_MAX)));
        reader.config_mut().check_end_names = true;
        let (suites, case, places) = Default::default();
        let mut reading = Reading { tests: self, suites, case, places, has_element: false, has_suite: false };
        let mut buffer = Vec::new();
        let ended = loop {
            buffer.clear();
            match reader.read_event_into(&mut buffer) {
                Ok(Event::Eof) => break Ok(()),
                Ok(event) => {
                    if let Err(fault) = reading.event(&event) {
                        break Err(fault);
                    }
                }
                Err(error) => {
                    break Err(ReportFault::Broken { offset: reader.error_position(), cause: error.to_string() });
                }
            }
        };
        let offset = reader.buffer_position();
        let open = !reading.places.is_empty();
        let (has_element, has_suite) = (reading.has_element, reading.has_suite);
        // Of a test in which the report ends nobody knows how it went, unless it had failed.
        if reading.case.as_ref().is_some_and(|case| case.outcome.is_failure()) {
            reading.finish_case();
        }
        ended?;
        match (offset >= REPORT_BYTES_MAX, open, has_element, has_suite) {
            (true, ..) => Err(ReportFault::TooLong),
            (false, true, ..) => Err(ReportFault::Broken { offset, cause: "the end is missing".to_owned() }),
            (false, false, false, _) => Err(ReportFault::NoElement),
            (false, false, true, false) => Err(ReportFault::NotJunit),
            (false, false, true, true) => Ok(()),
        }
    }

    /// Once there is no more room, a test that failed takes the place of the last one that did not.
    fn keep(&mut self, case: TestCase) {
        if self.cases.len() < TESTS_MAX {
            let case = self.within(case);
            self.cases.push(case);
            return;
        }
        self.dropped += 1;
        self.is_cut = true;
        if !case.outcome.is_failure() {
            return;
        }
        let others = &self.cases[..TESTS_MAX - self.last_failed];
        let place = others.iter().rposition(|kept| !kept.outcome.is_failure());
        self.last_failed = TESTS_MAX - place.unwrap_or(0);
        match place {
            Some(place) => {
                self.texts_bytes -= texts_bytes(&self.cases[place]);
                self.cases[place] = self.within(case);
            }
            None => self.dropped_failed += 1,
        }
    }

    /// The test with no more text than there is room for.
    fn within(&mut self, mut case: TestCase) -> TestCase {
        for text in [&mut case.message, &mut case.output] {
            let whole = text.trim_end().len();
            text.truncate(whole);
            cut(text, TEXTS_BYTES_MAX.saturating_sub(self.texts_bytes));
            self.texts_bytes += text.len();
        }
        case
    }
}

/// What of [`TEXTS_BYTES_MAX`] a test takes.
fn texts_bytes(case: &TestCase) -> usize {
    case.message.len() + case.output.len()
}

impl Reading<'_> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), ReportFault> {
        match event {
            Event::Start(element) => {
                self.has_element = true;
                if self.places.len() == DEPTH_MAX {
                    return Err(ReportFault::Deep);
                }
                let place = self.open(element);
                self.places.push(place);
            }
            Event::Empty(element) => {
                self.has_element = true;
                self.open(element);
                self.close(element.local_name().as_ref());
            }
            Event::End(element) => {
                self.places.pop();
                self.close(element.local_name().as_ref());
            }
            Event::Text(text) => self.text(text),
            Event::CData(text) => self.text(text),
            Event::GeneralRef(name) => self.text(&entity(name)),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, element: &BytesStart<'_>) -> Place {
        match (element.local_name().as_ref(), &mut self.case) {
            ("testsuites", None) => self.has_suite = true,
            ("testsuite", None) => {
                self.has_suite = true;
                self.suites.push(attribute(element, "name").unwrap_or_default());
            }
            ("testcase", None) if self.has_suite => self.case = Some(case(element, &self.suites)),
            ("failure", Some(case)) => return failed(case, TestOutcome::Failed, element),
            ("error", Some(case)) => return failed(case, TestOutcome::Errored, element),
            ("skipped", Some(case)) => return failed(case, TestOutcome::Skipped, element),
            ("system-out" | "system-err", Some(_)) => return Place::Output,
            _ => {}
        }
        // What is marked up within a text belongs to the text; but a re-run's stack trace (Surefire) is not this one's.
        match self.places.last() {
            Some(place) if self.case.is_some() => *place,
            _ => Place::Nowhere,
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "testsuite" if self.case.is_none() => {
                self.suites.pop();
            }
            "testcase" => self.finish_case(),
            _ => {}
        }
    }

    fn finish_case(&mut self) {
        if let Some(case) = self.case.take() {
            self.tests.keep(case);
        }
    }

    fn text(&mut self, text: &str) {
        let Some(case) = &mut self.case else { return };
        let kept = match self.places.last() {
            Some(Place::Message) => &mut case.message,
            Some(Place::Output) => &mut case.output,
            Some(Place::Nowhere) | None => return,
        };
        let text = if kept.is_empty() { text.trim_start() } else { text };
        let room = TEXT_BYTES_MAX.saturating_sub(kept.len());
        kept.push_str(&text[..text.floor_char_boundary(room.min(text.len()))]);
    }
}

/// The test of a `testcase` element. Its suite is the class if there is one, else the suites around it.
fn case(element: &BytesStart<'_>, suites: &[String]) -> TestCase {
    let around = || suites.iter().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>().join(" / ");
    let class = attribute(element, "classname").or_else(|| attribute(element, "class"));
    let mut suite = class.filter(|class| !class.is_empty()).unwrap_or_else(around);
    cut(&mut suite, NAME_BYTES_MAX);
    let status = attribute(element, "status").unwrap_or_default();
    let is_skipped = ["notrun", "disabled", "skipped", "ignored"].iter().any(|word| status.eq_ignore_ascii_case(word));
    TestCase {
        suite,
        name: attribute(element, "name").unwrap_or_default(),
        outcome: if is_skipped { TestOutcome::Skipped } else { TestOutcome::Passed },
        duration_ms: attribute(element, "time").map_or(0, |time| milliseconds(&time)),
        message: String::new(),
        output: String::new(),
    }
}

/// Notes a failure, error or skip; the first one that is worse than what is known decides.
fn failed(case: &mut TestCase, outcome: TestOutcome, element: &BytesStart<'_>) -> Place {
    let weight = |outcome| match outcome {
        TestOutcome::Passed => 0,
        TestOutcome::Skipped => 1,
        TestOutcome::Failed => 2,
        TestOutcome::Errored => 3,
    };
    if weight(outcome) > weight(case.outcome) {
        case.outcome = outcome;
    }
    let said = attribute(element, "message").or_else(|| attribute(element, "type"));
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        if !case.message.is_empty() {
            case.message.push('\n');
        }
        case.message.push_str(&said);
        case.message.push('\n');
        cut(&mut case.message, TEXT_BYTES_MAX);
    }
    Place::Message
}

/// The value of an attribute, with entities resolved where that is possible.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    // Checking for duplicates is quadratic in the number of attributes.
    let mut attributes = element.attributes();
    attributes.with_checks(false);
    let attribute = attributes.flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    let mut value = match attribute.normalized_value(XmlVersion::Implicit1_0) {
        Ok(value) => value.into_owned(),
        Err(_) => attribute.value.into_owned(),
    };
    cut(&mut value, if name == "message" { TEXT_BYTES_MAX } else { NAME_BYTES_MAX });
    Some(value)
}

/// One of XML's own entities or a character reference; any other stays as it is written.
fn entity(name: &str) -> String {
    let number = match name.strip_prefix('#') {
        Some(digits) => match digits.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        },
        None => match name {
            "lt" => return "<".to_owned(),
            "gt" => return ">".to_owned(),
            "amp" => return "&".to_owned(),
            "quot" => return "\"".to_owned(),
            "apos" => return "'".to_owned(),
            _ => None,
        },
    };
    number.and_then(char::from_u32).map_or_else(|| format!("&{name};"), String::from)
}

/// A reader whose bytes are UTF-8: what is not becomes U+FFFD. Test runners paste what tests print into their reports.
struct LossyText<R> {
    inner: R,
    ready: Vec<u8>,
    consumed: usize,
    /// The beginning of a character whose rest has not been read; at most three bytes.
    carried: Vec<u8>,
}

impl<R: BufRead> LossyText<R> {
    fn of(inner: R) -> Self {
        Self { inner, ready: Vec::new(), consumed: 0, carried: Vec::new() }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.consumed = 0;
        while self.ready.is_empty() {
            let read = self.inner.fill_buf()?;
            let length = read.len();
            let is_end = length == 0;
            self.carried.extend_from_slice(read);
            self.inner.consume(length);
            let bytes = std::mem::take(&mut self.carried);
            let mut chunks = bytes.utf8_chunks().peekable();
            while let Some(chunk) = chunks.next() {
                self.ready.extend_from_slice(chunk.valid().as_bytes());
                let is_cut = chunks.peek().is_none()
                    && !is_end
                    && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
                if is_cut {
                    self.carried = chunk.invalid().to_vec();
                } else if !chunk.invalid().is_empty() {
                    self.ready.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
            if is_end {
                break;
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Read for LossyText<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for LossyText<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.ready.len() {
            self.refill()?;
        }
        Ok(&self.ready[self.consumed..])
    }

    fn consume(&mut self, length: usize) {
        self.consumed += length;
    }
}

/// Seconds as test runners write them: `0.012`, also `1,234.5` and `1.2e-5`. What is no time is zero.
fn milliseconds(text: &str) -> u64 {
    let seconds: f64 = text.trim().replace(',', "").parse().unwrap_or(0.0);
    // The cast saturates, and takes NaN and what is negative to zero.
    (seconds * 1000.0).round() as u64
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

#[cfg(test)]
mod tests {
    use graph::TestOutcome;
    use proptest::prelude::*;

    use super::{DEPTH_MAX, TESTS_MAX, TEXT_BYTES_MAX, Tests};

    /// One line a test, then the fault if there is one.
    fn check(report: &[u8], expected: &[&str]) {
        let mut tests = Tests::default();
        let read = tests.read(report);
        let word = |outcome| match outcome {
            TestOutcome::Passed => "passed",
            TestOutcome::Failed => "failed",
            TestOutcome::Errored => "errored",
            TestOutcome::Skipped => "skipped",
        };
        let mut shown: Vec<String> = Vec::new();
        for case in &tests.cases {
            let mut line = format!("{} {} {} {}ms", word(case.outcome), case.suite, case.name, case.duration_ms);
            for text in [&case.message, &case.output] {
                if !text.is_empty() {
                    line.push_str(&format!(" {text:?}"));
                }
            }
            shown.push(line);
        }
        shown.extend(read.err().map(|fault| fault.to_string()));
        assert_eq!(shown, expected);
    }

    #[test]
    fn surefire() {
        check(
            br#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" name="org.example.AppTest" time="1.5" tests="3">
  <properties><property name="java.version" value="21"/></properties>
  <testcase name="adds" classname="org.example.AppTest" time="0.012"/>
  <testcase name="divides" classname="org.example.AppTest" time="1,234.5">
    <failure message="expected:&lt;1&gt; but was:&lt;2&gt;" type="AssertionError"><![CDATA[at App.java:7]]></failure>
    <system-out><![CDATA[dividing]]></system-out>
  </testcase>
  <testcase name="flaky" classname="org.example.AppTest" time="0.1">
    <flakyFailure message="once" type="X"><stackTrace><![CDATA[at]]></stackTrace><system-out>no</system-out></flakyFailure>
  </testcase>
</testsuite>"#,
            &[
                "passed org.example.AppTest adds 12ms",
                r#"failed org.example.AppTest divides 1234500ms "expected:<1> but was:<2>\nat App.java:7" "dividing""#,
                r#"passed org.example.AppTest flaky 100ms "no""#,
            ],
        );
    }

    #[test]
    fn pytest() {
        check(
            br#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="1" failures="0" skipped="1" tests="2" time="0.05" timestamp="2024-01-01T00:00:00" hostname="h"><testcase classname="tests.test_a" name="test_one[1-2]" time="0.001"><skipped type="pytest.skip" message="not here">tests/test_a.py:3: not here</skipped></testcase><testcase classname="tests.test_a" name="test_two" time="0.002"><error message="failed on setup">def f():
&gt;   raise X</error></testcase></testsuite></testsuites>"#,
            &[
                r#"skipped tests.test_a test_one[1-2] 1ms "not here\ntests/test_a.py:3: not here""#,
                r#"errored tests.test_a test_two 2ms "failed on setup\ndef f():\n>   raise X""#,
            ],
        );
    }

    #[test]
    fn googletest_and_nested_suites() {
        check(
            br#"<testsuites name="AllTests"><testsuite name="Math"><testcase name="Off" status="notrun" time="0." classname=""/>
<testsuite name="Deep"><testcase name="On" status="run" time="1.2e-2"/></testsuite></testsuite>
<testsuite name="Two"><testcase name="x"><failure/><error message="worse"/></testcase></testsuite></testsuites>"#,
            &["skipped Math Off 0ms", "passed Math / Deep On 12ms", r#"errored Two x 0ms "worse""#],
        );
    }

    #[test]
    fn nextest() {
        check(
            br#"<testsuites name="nextest-run" tests="1" failures="1"><testsuite name="ropewalk-worker" tests="1">
<testcase name="reports::tests::x" classname="ropewalk-worker" timestamp="2024-01-01T00:00:00Z" time="0.004">
<failure message="thread 'x' panicked" type="test failure with exit code 101">thread 'x' panicked
left: 1</failure><system-out>running 1 test
</system-out><system-err>&#27;[1m&#x41;&unknown;</system-err></testcase></testsuite></testsuites>"#,
            &[
                "failed ropewalk-worker reports::tests::x 4ms \"thread 'x' panicked\\nthread 'x' panicked\\nleft: 1\" \"running 1 test\\n\\u{1b}[1mA&unknown;\"",
            ],
        );
    }

    #[test]
    fn what_is_broken_is_told() {
        check(b"", &["no element: not a JUnit report"]);
        check(b"<html></html>", &["no `testsuite` element: not a JUnit report"]);
        check(
            b"<testsuite><testcase name='a'/><testcase name='b'>",
            &["passed  a 0ms", "not well-formed XML at byte 50: the end is missing"],
        );
        check(
            b"<testsuite><testcase name='a'><failure/>",
            &["failed  a 0ms", "not well-formed XML at byte 40: the end is missing"],
        );
        check(
            b"<testsuite><testcase name='a'/></testsuit>",
            &[
                "passed  a 0ms",
                "not well-formed XML at byte 31: ill-formed document: expected `</testsuite>`, but `</testsuit>` was found",
            ],
        );
        let deep = "<testsuite>".repeat(DEPTH_MAX + 1);
        check(deep.as_bytes(), &["elements are nested deeper than 128"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let report = b"<testsuite><testcase name='\xc3'><system-out>a\xff\xc3\xbc</system-out></testcase></testsuite>";
        check(report, &["passed  \u{fffd} 0ms \"a\u{fffd}\u{fc}\""]);
        let cut_everywhere = std::io::BufReader::with_capacity(1, &report[..]);
        let mut tests = Tests::default();
        tests.read(cut_everywhere).unwrap();
        assert_eq!(tests.cases[0].output, "a\u{fffd}\u{fc}");
    }

    #[test]
    fn entity_bombs_stay_small() {
        let bomb = br#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
<testsuite><testcase name="&b;"><failure message="m">&b;&c;</failure></testcase></testsuite>"#;
        check(bomb, &[r#"failed  &b; 0ms "m\n&b;&c;""#]);
    }

    #[test]
    fn bounds_hold() {
        let mut tests = Tests::default();
        let long = "ü".repeat(TEXT_BYTES_MAX);
        let report =
            format!("<testsuite><testcase name='{long}'><system-out>{long}</system-out></testcase></testsuite>");
        tests.read(report.as_bytes()).unwrap();
        assert_eq!(tests.cases[0].output.len(), TEXT_BYTES_MAX);
        let many = format!("<testsuite>{}</testsuite>", "<testcase/>".repeat(TESTS_MAX));
        tests.read(many.as_bytes()).unwrap();
        assert_eq!((tests.cases.len(), tests.dropped, tests.is_cut), (TESTS_MAX, 1, true));
    }

    #[test]
    fn what_failed_is_kept_before_what_passed() {
        let suite = |cases: &str| format!("<testsuite>{cases}</testsuite>");
        let mut tests = Tests::default();
        let output = "o".repeat(TEXT_BYTES_MAX);
        let most = format!("<testcase name='f0'><failure/></testcase>{}", "<testcase/>".repeat(TESTS_MAX - 2));
        tests.read(suite(&format!("{most}<testcase><system-out>{output}</system-out></testcase>")).as_bytes()).unwrap();
        assert_eq!((tests.dropped, tests.is_cut), (0, false));
        let failed = |tests: &Tests| tests.cases.iter().filter(|case| case.outcome.is_failure()).count();
        tests.read(suite("<testcase name='f1'><error/></testcase><testcase/>").as_bytes()).unwrap();
        assert_eq!((failed(&tests), tests.dropped, tests.dropped_failed, tests.is_cut), (2, 2, 0, true));
        assert_eq!((tests.cases[TESTS_MAX - 1].name.as_str(), tests.texts_bytes), ("f1", 0));
        tests.read(suite(&"<testcase><failure/></testcase>".repeat(TESTS_MAX)).as_bytes()).unwrap();
        assert_eq!((failed(&tests), tests.cases.len(), tests.dropped_failed), (TESTS_MAX, TESTS_MAX, 2));
        assert_eq!(tests.cases[0].name, "f0");
    }

    #[test]
    fn a_report_that_may_hold_more_is_told_from_what_is_none() {
        let check = |report: &str, expected: bool| {
            let mut tests = Tests::default();
            let _ = tests.read(report.as_bytes());
            assert_eq!(tests.is_cut, expected, "{report}");
        };
        check("<testsuite><testcase/></testsuite>", false);
        check("<coverage/>", false);
        check("", true);
        check("<?xml version='1.0'?>", true);
        check("<testsuite><testcase/>", true);
        check(&"<testsuite>".repeat(DEPTH_MAX + 1), true);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(report in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Tests::default().read(report.as_slice());
        }

        #[test]
        fn any_order_of_elements_is_judged(parts in proptest::collection::vec(
            prop::sample::select(vec!["<testsuites>", "</testsuites>", "<testsuite name='s'>", "</testsuite>", "<testcase>", "</testcase>",
                "<failure message='&x;'>", "</failure>", "text", "&lt;", "<![CDATA[x]]>", "<skipped/>", "<testcase/>"]), 0..40)) {
            let _ = Tests::default().read(parts.concat().as_bytes());
        }
    }
}
