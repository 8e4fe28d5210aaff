//! What is shown of a fault: the text for people, the JSON line, the SARIF log.

use graph::{Diagnostic, Location};
use ropewalk_dialects::report::{self, Color};
use ropewalk_dialects::tree::{Notation, Rules, Sources};

/// Reads a YAML text with faults, adds `more`, and renders all as plain text.
fn render(text: &str, more: impl FnOnce(&mut Vec<Diagnostic>)) -> String {
    let mut sources = Sources::new();
    let (_, mut diagnostics) = sources.read("ci/pipeline.yaml", text.as_bytes(), Notation::Yaml, &Rules::NATIVE);
    more(&mut diagnostics);
    report::text(&diagnostics, &sources, Color::Never)
}

fn location(line: u32, column: u32, start: u32, end: u32) -> Location {
    Location { file: "ci/pipeline.yaml".into(), line, column, start, end }
}

#[test]
fn try_out() {
    println!("{}", render("a: 1\nb: 2\na: 3\nc: *x\n", |_| ()));
    println!("{}", render("a: \x1b[31mred\u{202e}é\n\nb: [\n", |_| ()));
    println!(
        "{}",
        render("jobs:\n  deploy:\n    needs: tests\n", |d| d.push(
            Diagnostic::error("unknown-need", "job `deploy` needs `tests`, which does not exist")
                .at(location(3, 12, 29, 34), "no job has this name")
                .help("did you mean `test`?")
        ))
    );
    println!("{}", render(&format!("a: [{}@]\n", "x, ".repeat(10000)), |_| ()));
    println!(
        "{}",
        render("a: b\n", |d| {
            d.push(Diagnostic::warning("w", "evil \x1b]0;x\x07\nline").at(location(9, 9, 900, 990), "l\n\x1b"));
            d.push(Diagnostic::error("x", "nowhere"));
        })
    );
}
