//! What is shown of a fault: the text for people, the JSON line, the SARIF log.

use graph::{Diagnostic, Location};
use ropewalk_dialects::report::{self, Color};
use ropewalk_dialects::tree::{Notation, Rules, Sources};

const FILE: &str = "ci/pipe line.yaml";

/// The sources of one YAML file and the faults of reading it.
fn read(text: &str) -> (Sources, Vec<Diagnostic>) {
    let mut sources = Sources::new();
    let (_, diagnostics) = sources.read(FILE, text.as_bytes(), Notation::Yaml, &Rules::NATIVE);
    (sources, diagnostics)
}

/// Compares the plain text of all faults with the snapshot of this name.
fn check(name: &str, sources: &Sources, diagnostics: &[Diagnostic]) {
    snapshot(name, &report::text(diagnostics, sources, Color::Never));
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

fn at(line: u32, column: u32, start: u32, end: u32) -> Location {
    Location { file: FILE.into(), line, column, start, end }
}

const WORKFLOW: &str = "jobs:\n  deploy:\n    needs: tests\n";

fn unknown_need() -> Diagnostic {
    Diagnostic::error("unknown-need", "job `deploy` needs `tests`, which does not exist")
        .at(at(3, 12, 27, 32), "no job has this name")
        .help("did you mean `test`?")
}

#[test]
fn a_fault_with_its_line() {
    let (sources, _) = read(WORKFLOW);
    check("text_one", &sources, &[unknown_need()]);
}

#[test]
fn several_faults_and_related_places() {
    let (sources, diagnostics) = read("a: 1\nb: 2\na: 3\nc: *x\n");
    check("text_several", &sources, &diagnostics);
}

#[test]
fn signs_that_command_terminals_are_harmless() {
    let (sources, mut diagnostics) = read("a: \x1b[31mred\u{202e}\u{9b}é\t: [\n");
    diagnostics.push(Diagnostic::warning("w", "evil \x1b]0;x\x07\nline").at(at(1, 2, 1, 2), "l\n\x1b").help("\r\x7f"));
    check("text_harmless", &sources, &diagnostics);
}

#[test]
fn places_out_of_the_ordinary() {
    let (sources, _) = read("é: ü\nlast");
    let other = Location { file: "elsewhere".into(), ..at(7, 3, 90, 95) };
    let fault = |name: &str| Diagnostic::error("x", name);
    let diagnostics = [
        fault("nowhere"),
        fault("in a file that is not among the sources").at(other, "label").help("help"),
        fault("a point").at(at(1, 2, 2, 2), "here"),
        fault("the end").at(at(2, 5, 11, 11), "here"),
        fault("over several lines").at(at(1, 4, 4, 9), "here"),
        fault("within a character").at(at(1, 1, 1, 1), "here"),
        fault("beyond the end").at(at(9, 9, 900, 990), "here"),
        Diagnostic::warning("y", "without a label").at(at(1, 1, 0, 2), ""),
    ];
    check("text_places", &sources, &diagnostics);
}

#[test]
fn long_lines_are_cut() {
    let (sources, mut diagnostics) = read(&format!("a: [{}@ {}]\n", "x, ".repeat(10_000), "y".repeat(10_000)));
    diagnostics.push(Diagnostic::error("long", "m".repeat(100_000)));
    let shown = report::text(&diagnostics, &sources, Color::Never);
    assert!(shown.len() < 10_000, "{} bytes", shown.len());
    snapshot("text_long", shown.split("\n\n").next().unwrap());
}

#[test]
fn colours_are_there_when_wanted() {
    let (sources, _) = read(WORKFLOW);
    let plain = report::text(&[unknown_need()], &sources, Color::Never);
    let colored = report::text(&[unknown_need()], &sources, Color::Always);
    assert!(!plain.contains('\x1b') && colored.contains("\x1b["), "{colored:?}");
}

#[test]
fn json_and_sarif() {
    let (sources, mut diagnostics) = read("a: 1\nb: é\na: 3\nc: *x\n");
    diagnostics.push(Diagnostic::warning("slow", "no place\x1b"));
    let pretty = |text: &str| {
        assert!(!text.contains('\n'), "one line");
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(text).unwrap()).unwrap()
    };
    snapshot("json", &pretty(&report::json(&diagnostics)));
    snapshot("sarif", &pretty(&report::sarif(&diagnostics, &sources, "0.1.0")));
}

#[test]
fn nothing_wrong() {
    let (sources, diagnostics) = read("a: 1\n");
    assert_eq!(report::text(&diagnostics, &sources, Color::Never), "");
    assert_eq!(report::json(&diagnostics), r#"{"diagnostics":[]}"#);
    assert_eq!(report::summary(&diagnostics), "nothing is wrong");
    assert_eq!(report::summary(&[unknown_need()]), "1 error");
    let warning = || Diagnostic::warning("w", "w");
    assert_eq!(report::summary(&[unknown_need(), warning(), unknown_need()]), "2 errors, 1 warning");
}
