//! The README's picture: the live view itself, drawn to a screen in memory, as SVG. `docs/live.svg` is golden:
//! `ROPEWALK_ACCEPT=1` writes it anew. Colours are those of a dark terminal, so that it looks alike on any page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use engine::fact::{Ended, What};
use engine::{BuildRequest, Fact, Reused};
use graph::{
    AttemptNumber, AttemptReport, BuildId, Checkout, Event, EventKind, Failure, Graph, Job, JobName, LeaseId, Outcome,
    StepReport, StepResult, Timestamp, Usage, WorkerId,
};

use super::live::Live;
use super::{Moment, Opening, Stream, View};
use crate::columns::{self, Paint};

/// The width of the terminal, in cells.
const COLUMNS: u16 = 88;
const CELL_WIDTH: f64 = 8.4;
const LINE_HEIGHT: f64 = 21.0;
const MARGIN: f64 = 22.0;
/// The height of the window's bar.
const BAR_HEIGHT: f64 = 34.0;

const BUILD: BuildId = BuildId(12);

/// What a run has shown after fourteen seconds.
fn screen() -> Screen {
    let mut run = Run::new();
    run.begin();
    run.reuse(90, "schema");
    run.lease(100, "format");
    run.lease(110, "build/linux");
    run.finish(1_310, "format", Outcome::passed());
    run.lease(1_320, "lint");
    run.finish(5_420, "lint", Outcome::Failed(Failure::Step { step: 0, exit: 101, message: None }));
    run.lease(5_430, "build/arm");
    run.finish(9_210, "build/linux", Outcome::passed());
    run.lease(9_220, "test/linux");
    run.gate(9_230, "publish", "Publish version 0.2 of the library?");
    run.print(13_900, "build/arm", "   Compiling regex-automata v0.4.13\n");
    run.print(14_150, "test/linux", "test parser::tests::a_long_line_comes_in_pieces ... ok\n");
    run.live.show(Moment::Tick(at(14_200))).expect("memory takes it");
    Screen::of(&String::from_utf8(run.live.into_writer()).expect("it is text"))
}

fn at(ms: u64) -> Timestamp {
    Timestamp(1_795_233_600_000_000 + i64::try_from(ms).expect("a short run") * 1000)
}

/// A run that is told to the view.
struct Run {
    live: Live<Vec<u8>>,
    started: BTreeMap<JobName, Timestamp>,
}

impl Run {
    fn new() -> Self {
        let usual = [("build/linux", 9_000), ("build/arm", 11_500), ("test/linux", 21_000), ("lint", 4_000)];
        let usual_ms = usual.into_iter().map(|(name, ms)| (JobName::from(name), ms)).collect();
        let opening = Opening { build: BUILD, usual_ms, whereabouts: Default::default(), graph: None };
        Self { live: Live::new(Vec::new(), || (COLUMNS, 30), Paint::Coloured, opening), started: BTreeMap::new() }
    }

    fn fact(&mut self, ms: u64, what: What) {
        self.live.show(Moment::Fact(&Fact { build: BUILD, at: at(ms), what })).expect("memory takes it");
    }

    fn begin(&mut self) {
        let mut event = Event::new(EventKind::Push);
        event.branch = Some("main".to_owned());
        event.commit = "95af20b8c4c5d6e7f8091a2b3c4d5e6f70819293".to_owned();
        event.checkout = Checkout::Changed;
        event.actor = "ada".to_owned();
        let request =
            BuildRequest { client: "local".to_owned(), ..BuildRequest::new(event, ".ropewalk/pipeline.yaml") };
        self.fact(0, What::BuildCreated(Box::new(request)));
        let names =
            ["schema", "format", "lint", "build/linux", "build/arm", "test/linux", "test/arm", "publish", "announce"];
        let job = |name: &str| Arc::new(Job { allow_failure: name == "lint", ..Job::default() });
        let jobs = names.iter().map(|name| (JobName::from(*name), job(name))).collect();
        let graph = Arc::new(Graph { jobs, ..Graph::default() });
        self.fact(80, What::Evaluated { graph, questions: Vec::new(), diagnostics: Vec::new(), program: None });
    }

    fn lease(&mut self, ms: u64, job: &str) {
        self.started.insert(job.into(), at(ms));
        let worker = WorkerId("local".into());
        let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
        self.fact(
            ms,
            What::AttemptLeased {
                job: job.into(),
                attempt,
                try_number: 1,
                lease,
                worker,
                partial: None,
                waited_for: None,
            },
        );
    }

    fn finish(&mut self, ms: u64, job: &str, outcome: Outcome) {
        let mut report = AttemptReport::of(outcome, at(ms));
        report.started = self.started[&JobName::from(job)];
        report.steps.push(StepReport {
            name: "cargo clippy --all-targets".to_owned(),
            exit: None,
            signal: None,
            result: StepResult::Failed,
            started: report.started,
            finished: at(ms),
            usage: Usage::default(),
            outputs: BTreeMap::new(),
            lines: 1,
        });
        let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
        let what = What::AttemptFinished { job: job.into(), attempt, lease, report: Box::new(report), retry_at: None };
        self.fact(ms, what);
    }

    fn reuse(&mut self, ms: u64, job: &str) {
        let reused =
            Reused { build: BuildId(11), attempt: AttemptNumber(1), job: job.into(), artifacts: BTreeMap::new() };
        let how = Ended::Reused(reused);
        self.fact(ms, What::JobEnded { job: job.into(), outcome: Outcome::passed(), how });
    }

    fn gate(&mut self, ms: u64, job: &str, prompt: &str) {
        self.fact(ms, What::GateOpened { job: job.into(), prompt: prompt.to_owned() });
    }

    fn print(&mut self, ms: u64, job: &str, text: &str) {
        let (job, bytes) = (JobName::from(job), text.as_bytes());
        let moment = Moment::Output { job: &job, step: 0, stream: Stream::Stdout, bytes, at: at(ms) };
        self.live.show(moment).expect("memory takes it");
    }
}

/// A text in one colour.
struct Text {
    text: String,
    style: String,
}

/// What a terminal shows of the sequences that the live view writes. Any other sequence is a fault.
struct Screen {
    lines: Vec<Vec<Text>>,
}

impl Screen {
    fn of(written: &str) -> Self {
        let mut lines: Vec<Vec<Text>> = vec![Vec::new()];
        let mut style = String::new();
        let mut rest = written;
        while !rest.is_empty() {
            let end = rest.find(['\u{1b}', '\n', '\r']).unwrap_or(rest.len());
            if end > 0 {
                let text = rest[..end].to_owned();
                lines.last_mut().expect("there is a line").push(Text { text, style: style.clone() });
            }
            rest = &rest[end..];
            if let Some(after) = rest.strip_prefix('\n') {
                lines.push(Vec::new());
                rest = after;
            } else if let Some(after) = rest.strip_prefix("\r\u{1b}[J") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("\u{1b}[") {
                let end = after.find(|letter: char| letter.is_ascii_alphabetic()).expect("a whole sequence");
                match (&after[..end], after.as_bytes()[end]) {
                    ("0", b'm') => style.clear(),
                    (code, b'm') => style = code.to_owned(),
                    // Up, and what was there is erased next.
                    (rows, b'A') => {
                        let rows: usize = rows.parse().expect("a number");
                        lines.truncate(lines.len() - rows);
                        *lines.last_mut().expect("the first line stays") = Vec::new();
                    }
                    ("?25", b'l' | b'h') => {}
                    (code, letter) => panic!("the live view wrote ESC [ {code} {}", char::from(letter)),
                }
                rest = &after[end + 1..];
            }
        }
        Self { lines }
    }

    fn svg(&self) -> String {
        let width = 2.0 * MARGIN + f64::from(COLUMNS) * CELL_WIDTH;
        let n_lines = self.lines.iter().filter(|line| !line.is_empty()).count() + 1;
        let height = BAR_HEIGHT + 2.0 * MARGIN + LINE_HEIGHT * n_lines as f64 - 10.0;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n\
             <title>ropewalk run: two jobs run with bars against their usual time, three have ended, a gate waits</title>\n\
             <style>text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,\"DejaVu Sans Mono\",monospace;fill:#e6edf3;\
             white-space:pre}}.s1{{font-weight:700;fill:#fff}}.s2{{fill:#9198a1}}.s31{{fill:#ff7b72}}.s32{{fill:#3fb950}}\
             .s33{{fill:#e3b341}}.s36{{fill:#56d4dd}}.f{{fill:#56d4dd}}.g{{fill:#30363d}}</style>\n\
             <rect x=\".5\" y=\".5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"10\" fill=\"#161b22\" stroke=\"#3d444d\"/>\n",
            width - 1.0,
            height - 1.0,
        );
        for (index, colour) in ["#ff5f57", "#febc2e", "#28c840"].iter().enumerate() {
            let _ = writeln!(text, "<circle cx=\"{}\" cy=\"20\" r=\"6\" fill=\"{colour}\"/>", 24 + index * 20);
        }
        let prompt = [
            Text { text: "$ ".to_owned(), style: "2".to_owned() },
            Text { text: "ropewalk run".to_owned(), style: "1".to_owned() },
        ];
        let shown = self.lines.iter().filter(|line| !line.is_empty()).map(Vec::as_slice);
        for (row, line) in std::iter::once(&prompt[..]).chain(shown).enumerate() {
            let y = BAR_HEIGHT + MARGIN + LINE_HEIGHT * row as f64;
            let mut column = 0;
            for run in line {
                run.draw(&mut text, &mut column, y);
            }
        }
        text.push_str("</svg>\n");
        text
    }
}

impl Text {
    /// Words one by one, each as wide as its cells whatever the font; bars as rectangles.
    fn draw(&self, svg: &mut String, column: &mut usize, y: f64) {
        let mut rest = self.text.as_str();
        while let Some(first) = rest.chars().next() {
            let kind = Kind::of(first);
            let end = rest.find(|letter| Kind::of(letter) != kind).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let (x, cells) = (MARGIN + *column as f64 * CELL_WIDTH, columns::cells(word));
            let width = cells as f64 * CELL_WIDTH;
            match kind {
                Kind::Space => {}
                Kind::Full | Kind::Empty => {
                    let class = if kind == Kind::Full { "f" } else { "g" };
                    let top = y - 11.0;
                    let _ = writeln!(
                        svg,
                        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"13\"/>"
                    );
                }
                Kind::Word => {
                    let class =
                        if self.style.is_empty() { String::new() } else { format!(" class=\"s{}\"", self.style) };
                    let word = word.replace('&', "&amp;").replace('<', "&lt;");
                    let _ =
                        writeln!(svg, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{width:.1}\">{word}</text>");
                }
            }
            *column += cells;
            rest = after;
        }
    }
}

/// What a letter is to the picture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Full,
    Empty,
    Word,
}

impl Kind {
    fn of(letter: char) -> Self {
        match letter {
            // The frame of a bar needs no ink of its own.
            ' ' | '▕' | '▏' => Self::Space,
            '█' => Self::Full,
            '░' => Self::Empty,
            _ => Self::Word,
        }
    }
}

#[test]
fn the_picture_is_what_the_live_view_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/live.svg");
    let drawn = screen().svg();
    if std::env::var_os("ROPEWALK_ACCEPT").is_some() {
        std::fs::write(&path, &drawn).expect("the picture can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == kept, "docs/live.svg is not what the live view shows now: `cargo xtask accept` draws it anew");
}
