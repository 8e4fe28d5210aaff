//! What axe-core finds wrong for people who read by other means, on every page that links lead to: nothing.
//!
//! `cargo xtask test` installs it into `target/npm`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Browser, Kind, has_browser, site};

/// The most pages that are looked at.
const PAGES_MAX: usize = 60;

/// The checker's text; says so if it is not there, which in CI is a failure.
pub fn checker() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/npm/node_modules/axe-core/axe.min.js");
    let found = fs::read_to_string(&path).ok();
    assert!(found.is_some() || std::env::var("CI").as_deref() != Ok("true"), "CI needs {}", path.display());
    if found.is_none() {
        eprintln!("skipped: `cargo xtask test` installs axe-core");
    }
    found
}

/// The kind of a page: its path, names and numbers left out.
fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.bytes().any(|byte| byte.is_ascii_digit()) { "N" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Paths of pages that this one links to.
fn links(browser: &Browser) -> Vec<String> {
    let found = browser.ask(
        "[...document.querySelectorAll('a[href]')].filter(it => it.origin === location.origin && !it.hasAttribute('download')).map(it => it.pathname)",
    );
    let paths = found.as_array().expect("a list").iter().filter_map(Value::as_str);
    paths.filter(|path| !path.starts_with("/api/") && !path.contains('.')).map(str::to_owned).collect()
}

/// What is wrong on the page that is open. In the dark nothing but colours is another.
pub fn faults(browser: &Browser, checker: &str) -> Vec<String> {
    if browser.ask("typeof axe") == "undefined" {
        browser.command("Runtime.evaluate", &json!({ "expression": checker }));
    }
    let rules = match browser.kind.get() {
        Kind::Dark => json!({ "runOnly": { "type": "rule", "values": ["color-contrast", "link-in-text-block"] } }),
        _ => json!({}),
    };
    let script = "const done = arguments[arguments.length - 1]; axe.run(document, arguments[0]).then(found => done(found.violations.map(it => \
                  `${it.id}: ${it.nodes.slice(0, 4).map(node => node.target + ' ' + (node.any[0]?.message ?? '')).join(' | ')}`)), error => done([String(error)]))";
    let found = browser.call("POST", "/execute/async", &json!({ "script": script, "args": [rules] }));
    found.as_array().expect("a list").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Browser {
    /// Asserts that all of what is shown is within reach. Not for [`Kind::Plain`], where the checker does not run either.
    #[track_caller]
    pub fn is_within_reach(&self) {
        if let Some(checker) = checker() {
            let kind = self.kind.get().name();
            assert_eq!(faults(self, &checker), Vec::<String>::new(), "axe at {} ({kind})", self.path());
        }
    }
}

#[test]
fn nothing_is_out_of_reach_on_any_page() {
    if !has_browser() {
        return;
    }
    let Some(checker) = checker() else { return };
    let (site, _processes) = site();
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1");
    browser.until("#failure-0", "it broke");
    let mut seen = BTreeSet::new();
    let mut left: Vec<String> = vec!["/builds/1/jobs/long".to_owned(), "/builds/1".to_owned(), "/".to_owned()];
    while let Some(path) = left.pop() {
        if seen.len() >= PAGES_MAX || !seen.insert(shape(&path)) {
            continue;
        }
        browser.go(&path);
        browser.until("h1", "");
        for kind in [Kind::Desk, Kind::Dark, Kind::Phone] {
            browser.turn(kind);
            for fault in faults(&browser, &checker) {
                wrong.entry(fault).or_default().push(format!("{path} ({})", kind.name()));
            }
        }
        left.extend(links(&browser));
    }
    println!("looked at {} pages", seen.len());
    assert!(seen.len() >= 5, "{seen:?}");
    assert!(wrong.is_empty(), "axe found: {wrong:#?}");
}
