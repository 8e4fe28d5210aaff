//! `ropewalk builds`: builds, newest first, with what failed in a few words.

use engine::fact::What;
use graph::{BuildId, Event, EventKind, Verdict};
use serde_json::{Value, json};
use store::BuildFilter;
use store::rows::{BuildRow, VerdictWord};

use super::Stop;
use crate::agent::source;
use crate::archive::Archive;
use crate::args::{Builds, Colour, ListForm};
use crate::calendar::Calendar;
use crate::child;
use crate::columns::{self, Cell, Columns, Paint, Style};
use crate::places;
use crate::program::testing;
use crate::project::Project;
use crate::{exit, output, words};

/// The fewest digits by which a commit is known.
const COMMIT_DIGITS_MIN: usize = 7;
/// The most digits of a commit, by SHA-256.
const COMMIT_DIGITS_MAX: usize = 64;

/// How many builds of a pipeline must have passed before one is compared with them.
const BUILDS_COMPARED_MIN: usize = 3;

/// Runs the command.
///
/// # Errors
/// If what is kept cannot be read.
pub fn run(arguments: &Builds, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let paint = Paint::of(colour, &std::io::stdout());
    let width = output::columns(&std::io::stdout());
    let filter = filter(arguments, project)?;
    let text = match arguments.at.archive(project)? {
        Some(archive) => list(arguments, &filter, &*archive, &Calendar::system(), (paint, width))?,
        None if arguments.output == ListForm::Json => "[]\n".to_owned(),
        None => format!("{}\n", places::NO_BUILDS),
    };
    output::print(text)?;
    Ok(exit::PASSED)
}

fn filter(arguments: &Builds, project: &Project) -> Result<BuildFilter, Stop> {
    Ok(BuildFilter {
        branch: arguments.branch.clone(),
        commit: arguments.commit.as_deref().map(|text| commit_meant(text, project)).transpose()?,
        kind: arguments.event.as_deref().and_then(EventKind::from_name),
        verdict: arguments.verdict.as_deref().and_then(VerdictWord::from_word),
        pipeline: arguments.pipeline.clone(),
        project: None,
    })
}

/// What the ids of the commits begin with that `text` means: digits as they are, and the id of what git knows by another name.
fn commit_meant(text: &str, project: &Project) -> Result<String, Stop> {
    let digits = text.to_ascii_lowercase();
    if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits.len() <= COMMIT_DIGITS_MAX {
        return match digits.len() {
            0..COMMIT_DIGITS_MIN => Err(Stop::wrong(format!(
                "`{text}` may be many commits: give at least {COMMIT_DIGITS_MIN} digits of it"
            ))),
            _ => Ok(digits),
        };
    }
    source::commit_id(&project.root, text).map_err(|fault| {
        Stop::wrong(format!(
            "--commit: {}; give a commit's id, its first {COMMIT_DIGITS_MIN} digits or more, or a name that git knows here",
            words::harmless(&fault)
        ))
    })
}

fn list(
    arguments: &Builds,
    filter: &BuildFilter,
    archive: &dyn Archive,
    calendar: &Calendar,
    (paint, width): (Paint, usize),
) -> Result<String, Stop> {
    let builds = archive.builds(filter, arguments.before.map(BuildId), arguments.limit as usize)?;
    let listed: Vec<Listed> = builds.into_iter().map(|row| Listed::of(row, archive)).collect::<Result<_, _>>()?;
    if arguments.output == ListForm::Json {
        let listed: Vec<Value> = listed.iter().map(|build| build.json(calendar)).collect();
        return Ok(format!("{:#}\n", Value::from(listed)));
    }
    Ok(if listed.is_empty() { nothing(arguments, archive) } else { table(&listed, calendar, paint, width) })
}

/// That there is none of what was asked for.
fn nothing(arguments: &Builds, archive: &dyn Archive) -> String {
    let of = |what: &str, value: &Option<String>| value.as_ref().map(|value| format!(" of {what} {value}"));
    let asked = [
        of("branch", &arguments.branch),
        of("commit", &arguments.commit),
        of("event", &arguments.event),
        of("verdict", &arguments.verdict),
        of("pipeline", &arguments.pipeline),
        arguments.before.map(|build| format!(" before build {build}")),
    ];
    let asked: String = asked.into_iter().flatten().collect();
    if asked.is_empty() { format!("{}\n", archive.nothing()) } else { format!("no builds{asked}\n") }
}

/// A build and what rows do not say of it.
struct Listed {
    row: BuildRow,
    remark: String,
}

impl Listed {
    fn of(row: BuildRow, archive: &dyn Archive) -> Result<Self, Stop> {
        let remark = remark(&row, archive)?;
        Ok(Self { row, remark })
    }

    fn took_ms(&self, calendar: &Calendar) -> u64 {
        self.row.finished.unwrap_or(calendar.now).ms_since(self.row.created)
    }

    fn json(&self, calendar: &Calendar) -> Value {
        let mut value = serde_json::to_value(&self.row).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.insert("duration_ms".to_owned(), json!(self.took_ms(calendar)));
            fields.insert("remark".to_owned(), json!(self.remark));
        }
        value
    }
}

/// The builds as a table that no line of which is wider than the terminal: first columns go that say least, then remarks are cut.
fn table(listed: &[Listed], calendar: &Calendar, paint: Paint, width: usize) -> String {
    let fits = |left_out: &usize| {
        let text = whole_table(listed, calendar, Paint::Plain, &LEFT_OUT[..*left_out], REMARK_CELLS_MIN);
        text.lines().all(|line| columns::cells(line) <= width)
    };
    let left_out = (0..LEFT_OUT.len()).find(fits).unwrap_or(LEFT_OUT.len());
    let text = whole_table(listed, calendar, paint, &LEFT_OUT[..left_out], REMARK_CELLS_MAX);
    // A colour that was on where a line is cut must not run into the next.
    let end = if paint == Paint::Coloured { "\u{1b}[0m\n" } else { "\n" };
    text.lines().map(|line| columns::cut_coloured(line, width) + end).collect()
}

/// The columns that a narrow terminal has no room for, in this order.
const LEFT_OUT: [usize; 4] = [STARTED, AGAINST, COMMIT, EVENT];
const EVENT: usize = 2;
const COMMIT: usize = 3;
const STARTED: usize = 4;
const AGAINST: usize = 7;
/// Cells of a remark.
const REMARK_CELLS_MAX: usize = 120;
/// So many cells of a remark are worth more than a column.
const REMARK_CELLS_MIN: usize = 24;

fn whole_table(
    listed: &[Listed],
    calendar: &Calendar,
    paint: Paint,
    left_out: &[usize],
    remark_cells: usize,
) -> String {
    let mut columns = Columns::default();
    let age = if left_out.contains(&STARTED) { "started" } else { "" };
    let titles = [">build", "verdict", "event", "commit", "started", age, ">took", "", ""];
    columns.titles(std::array::from_fn::<_, 9, _>(|index| if left_out.contains(&index) { "" } else { titles[index] }));
    for build in listed {
        let row = &build.row;
        let took_ms = build.took_ms(calendar);
        let usual_ms = usual_ms(listed, row, calendar);
        let is_compared = matches!(row.verdict, Verdict::Passed { .. });
        let against = usual_ms.filter(|_| is_compared).and_then(|usual| columns::against_usual(took_ms, usual));
        let cells = [
            Cell::right(row.build.to_string()).style(Style::Strong),
            columns::verdict_mark(&row.verdict),
            Cell::new(event(&row.event)),
            Cell::new(commit(&row.event)).style(Style::Dim),
            Cell::new(calendar.time(row.created)),
            Cell::new(calendar.age(row.created)).style(Style::Dim),
            Cell::right(words::duration(took_ms)),
            against.unwrap_or_default(),
            Cell::new(columns::cut(&build.remark, remark_cells)),
        ];
        let shown = |(index, cell)| if left_out.contains(&index) { Cell::default() } else { cell };
        columns.row(cells.into_iter().enumerate().map(shown));
    }
    columns.text(paint, 0)
}

/// The median time of the listed builds of the same pipeline that passed.
fn usual_ms(listed: &[Listed], row: &BuildRow, calendar: &Calendar) -> Option<u64> {
    let is_like = |other: &&Listed| {
        other.row.pipeline == row.pipeline && matches!(other.row.verdict, Verdict::Passed { .. }) && other.row.jobs > 0
    };
    let mut times: Vec<u64> = listed.iter().filter(is_like).map(|other| other.took_ms(calendar)).collect();
    times.sort_unstable();
    (times.len() >= BUILDS_COMPARED_MIN).then(|| times[(times.len() - 1) / 2])
}

fn event(event: &Event) -> String {
    let kind = event.kind.name().replace('_', " ");
    match (&event.tag, event.pull_request, &event.branch) {
        (Some(tag), _, _) if event.kind == EventKind::Tag => format!("tag {tag}"),
        (_, Some(number), _) => format!("{kind} {number}"),
        (_, _, Some(branch)) => format!("{kind} {branch}"),
        _ => kind,
    }
}

fn commit(event: &Event) -> String {
    let short = event.commit.get(..8).unwrap_or(&event.commit);
    let changes = if event.checkout == graph::Checkout::Changed { " + local" } else { "" };
    format!("{short}{changes}")
}

/// What failed, or what the build waits for, in a few words.
fn remark(row: &BuildRow, archive: &dyn Archive) -> Result<String, Stop> {
    Ok(match &row.verdict {
        Verdict::Running if row.open_gates > 0 => {
            let gates = archive.open_gates(row.build)?;
            let Some(gate) = gates.first() else { return Ok(progress(row)) };
            let graph = archive.graph(row.build)?;
            let job = graph.as_ref().and_then(|graph| graph.jobs.get(&gate.job));
            let approve = words::approve(row.build, &gate.job, job.map(|job| &**job));
            format!("waits: {}", archive.whereabouts().command(approve))
        }
        Verdict::Running if !archive.is_run(row)? => {
            format!("killed: ropewalk run --resume {}", child::resumed_by(row, |build| archive.build(build))?)
        }
        Verdict::Running => progress(row),
        Verdict::Failed { because: Some(job) } => {
            let report = archive.reports(row.build, Some(job))?.pop().map(|(_, report)| report);
            let why = match report.as_ref().map(|report| &report.outcome) {
                Some(graph::Outcome::Failed(failure)) => format!(": {}", words::failure_of(failure, report.as_ref())),
                _ => String::new(),
            };
            let others = row.counts.failed.saturating_sub(1);
            let more = if others > 0 { format!(" (+{} failed)", words::thousands(others)) } else { String::new() };
            format!("{job}{why}{more}")
        }
        Verdict::Failed { because: None } if archive.whereabouts().is_there() => {
            let show = archive.whereabouts().command(format_args!("show {}", row.build));
            format!("the pipeline has {}: {show}", words::count(count(row.errors), "error"))
        }
        Verdict::Failed { because: None } if was_ended_by_tests(row, archive)? => {
            "the pipeline's tests do not pass: ropewalk test".to_owned()
        }
        Verdict::Failed { because: None } => match row.errors {
            0 => "the pipeline is wrong: ropewalk check".to_owned(),
            errors => format!("the pipeline has {}: ropewalk check", words::count(count(errors), "error")),
        },
        Verdict::Canceled { by } => format!("by {by}"),
        Verdict::Diverged { job } => format!("the pipeline changed {job} after it had begun"),
        Verdict::Passed { note: Some(note) } => note.clone(),
        Verdict::Passed { note: None } => passed(row),
    })
}

/// Whether the tests of its own pipeline ended it, which another command tries again than other faults.
fn was_ended_by_tests(row: &BuildRow, archive: &dyn Archive) -> Result<bool, Stop> {
    let evaluations = archive.evaluations(row.build)?;
    Ok(evaluations.iter().any(|fact| match &fact.what {
        What::Evaluated { diagnostics, .. } => diagnostics.iter().any(|fault| fault.code == testing::FAILED),
        _ => false,
    }))
}

fn progress(row: &BuildRow) -> String {
    format!("{} of {} ended", words::thousands(row.counts.ended()), words::count(count(row.jobs), "job"))
}

fn passed(row: &BuildRow) -> String {
    let mut text = words::count(count(row.jobs), "job");
    for (number, word) in
        [(row.counts.reused, "cached"), (row.counts.skipped, "skipped"), (row.counts.failed, "may fail")]
    {
        if number > 0 {
            text.push_str(&format!(", {} {word}", words::thousands(number)));
        }
    }
    text
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use engine::fact::{Ended, What};
    use graph::{Outcome, SkipReason};

    use super::*;
    use crate::places::kept::Kept;

    fn arguments(output: ListForm) -> Builds {
        let nothing = || None;
        Builds {
            limit: 20,
            before: None,
            branch: nothing(),
            commit: nothing(),
            event: nothing(),
            verdict: nothing(),
            pipeline: nothing(),
            output,
            at: crate::args::Where::default(),
        }
    }

    fn text(kept: &Kept, arguments: &Builds, width: usize) -> Result<String, String> {
        let project = Project::find(std::path::Path::new(".")).expect("a folder");
        let filter = filter(arguments, &project).map_err(|stop| stop.message)?;
        let text = list(arguments, &filter, &kept.places(), &kept.calendar(), (Paint::Plain, width));
        text.map_err(|stop| stop.message)
    }

    #[track_caller]
    fn check(kept: &Kept, arguments: &Builds, expected: &str) {
        let text = text(kept, arguments, usize::MAX);
        assert_eq!(text.as_deref(), Ok(expected));
    }

    #[test]
    fn builds_are_listed_newest_first() {
        let mut kept = Kept::new();
        for _ in 0..3 {
            kept.build(&["a", "b"]).pass("a", 1000).reuse("b", 1, 1).end();
        }
        kept.build(&["a"]).pass("a", 5000).end();
        kept.build(&["a", "b"]).fail("a", 101).fail("b", 2).end();
        kept.build(&["a"]).lease("a");
        check(
            &kept,
            &arguments(ListForm::Human),
            "\
build  verdict    event      commit    started                              took
    6  ● running  push main  1a2b3c4d  2026-11-21 04:05:11  5 min ago   5 m 00 s            killed: ropewalk run --resume 6
    5  ✗ failed   push main  1a2b3c4d  2026-11-21 04:04:08  6 min ago      3.0 s            b: `make` ended with code 2 (+1 failed)
    4  ✓ passed   push main  1a2b3c4d  2026-11-21 04:03:03  7 min ago      5.0 s  ▲ +400 %  1 job
    3  ✓ passed   push main  1a2b3c4d  2026-11-21 04:02:02  8 min ago      1.0 s            2 jobs, 1 cached
    2  ✓ passed   push main  1a2b3c4d  2026-11-21 04:01:01  9 min ago      1.0 s            2 jobs, 1 cached
    1  ✓ passed   push main  1a2b3c4d  2026-11-21 04:00:00  10 min ago     1.0 s            2 jobs, 1 cached
",
        );
    }

    #[test]
    fn a_killed_build_is_told_as_killed_whatever_its_gate_asked() {
        let mut kept = Kept::new();
        let opened = || What::GateOpened { job: "ship".into(), prompt: "go?".to_owned() };
        let outcome = Outcome::Skipped(SkipReason::NotWanted { text: "stopped".to_owned() });
        let mut build = kept.build(&["a", "ship"]);
        build.fact(opened()).lease("a");
        kept.build(&["a", "ship"]).fact(opened()).fail("a", 1).fact(What::JobEnded {
            job: "ship".into(),
            outcome,
            how: Ended::Decided,
        });
        let text = text(&kept, &arguments(ListForm::Human), usize::MAX).expect("there are builds");
        let mut lines = text.lines().skip(1);
        assert!(lines.next().is_some_and(|line| line.ends_with("  killed: ropewalk run --resume 2")), "{text}");
        assert!(lines.next().is_some_and(|line| line.ends_with("  waits: ropewalk approve 1 ship")), "{text}");
    }

    #[test]
    fn a_list_is_no_wider_than_its_terminal() {
        let mut kept = Kept::new();
        for _ in 0..3 {
            kept.build(&["a", "b"]).pass("a", 1000).reuse("b", 1, 1).end();
        }
        kept.build(&["a"]).fail("a", 101).end();
        let at = |width| text(&kept, &arguments(ListForm::Human), width).expect("there are builds");
        for width in [90, 70, 40] {
            assert!(at(width).lines().all(|line| columns::cells(line) <= width), "{}", at(width));
        }
        let expected = "    4  ✗ failed  push main  6 min ago  1.5 s  a: `make` ended with co…\n";
        assert!(at(70).contains(expected), "{}", at(70));
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        let kept = Kept::new();
        check(&kept, &arguments(ListForm::Human), "no builds yet: start one with `ropewalk run`\n");
        check(&kept, &arguments(ListForm::Json), "[]\n");
        let branch = Builds { branch: Some("x".to_owned()), ..arguments(ListForm::Human) };
        check(&kept, &branch, "no builds of branch x\n");
    }

    #[test]
    fn a_commit_is_asked_for_by_its_first_digits() {
        let mut kept = Kept::new();
        kept.build(&["a"]).pass("a", 1000).end();
        let of = |commit: &str| {
            let asked = Builds { commit: Some(commit.to_owned()), ..arguments(ListForm::Human) };
            text(&kept, &asked, usize::MAX)
        };
        for commit in ["1a2b3c4d", "1A2B3C4"] {
            assert!(of(commit).is_ok_and(|text| text.contains("passed")), "{commit}");
        }
        assert_eq!(of("1a2b3c5"), Ok("no builds of commit 1a2b3c5\n".to_owned()));
        assert_eq!(of("1a2b3c"), Err("`1a2b3c` may be many commits: give at least 7 digits of it".to_owned()));
        assert!(of("no-such-name").is_err_and(|text| text.contains("give a commit's id, its first 7 digits or more")));
    }

    #[test]
    fn json_has_the_row_and_the_remark() {
        let mut kept = Kept::new();
        kept.build(&["a"]).fail("a", 101).end();
        let text = text(&kept, &arguments(ListForm::Json), usize::MAX);
        let value: Value = serde_json::from_str(&text.expect("a list")).expect("JSON");
        assert_eq!(value[0]["build"], 1);
        assert_eq!(value[0]["verdict"]["verdict"], "failed");
        assert_eq!(value[0]["duration_ms"], 1500);
        assert_eq!(value[0]["remark"], "a: `make` ended with code 101");
    }
}
