//! A log that is read: long lines that are wrapped, what is selected and what has the focus while it is drawn again, and errors that come
//! while it is watched.

use std::fs;

use super::installation::Site;
use super::{Browser, Kind, has_browser};

/// Notes which lines are in view, and gives whether the view is full of them.
const LOOK: &str = "(() => { const log = document.querySelector('#log'), box = log.getBoundingClientRect(), bottom = box.top + log.clientTop + log.clientHeight; \
    const rows = [...log.querySelectorAll('.l')].map((row) => [row, row.getBoundingClientRect()]).filter(([, at]) => at.bottom > box.top + 2 && at.top < bottom - 2); \
    window.seen = new Set([...(window.seen ?? []), ...rows.map(([row]) => Number(row.id.split(':')[1]))]); \
    return rows.length > 0 && rows[0][1].top <= box.top + 2 && rows.at(-1)[1].bottom >= bottom - 1; })()";

#[test]
fn all_of_a_log_with_long_lines_is_seen_while_they_are_wrapped() {
    if !has_browser() {
        return;
    }
    let site = Site::new("defaults: { environment: host }\njobs:\n  long: { run: 'seq -f \"%01500.0f\" 1 150' }\n");
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/long");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    browser.ask("document.querySelector('#log').focus() ?? true");
    browser.press("w");
    browser.until_is("document.querySelector(\"#log.wrap [id='1:1']\")?.offsetHeight > 60");
    browser.until_is(LOOK);
    let down = "(() => { const log = document.querySelector('#log'), before = log.scrollTop; log.scrollTop += 300; return log.scrollTop > before; })()";
    let mut steps = 0;
    while browser.ask(down) == true {
        browser.until_is(LOOK);
        steps += 1;
        assert!(steps < 500, "the end never comes");
    }
    assert_eq!(browser.ask("window.seen.size"), 150, "of 150 lines");
    assert!(browser.find("#log [id='1:150']").is_some(), "the last line is not at the end");
    browser.screenshot("wrapped");
    // What is gone to is in view, from wherever one is.
    browser.ask("(window.seen = new Set(), location.hash = '#1:40')");
    browser.until_is(&format!(
        "{LOOK} && window.seen.has(40) && document.querySelector(\"#log [id='1:40'].marked\") !== null"
    ));
    browser.press("w");
    browser.until_is("document.querySelector('#log:not(.wrap) [id=\"1:40\"]')?.offsetHeight === 20");
    browser.is_content();
}

/// What is selected, as it would be copied.
const SELECTED: &str = "getSelection().toString().trim().split(/\\s*\\n\\s*/).join(',')";

#[test]
fn what_is_selected_in_a_log_stays_so_while_it_grows() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = |name: &str| folder.path().join(name);
    let wait = |name: &str| format!("while [ ! -e {} ]; do sleep 0.05; done", sign(name).display());
    let script = format!(
        "seq 1 20; echo \"--- part\"; seq 22 30; echo \"--- rest\"; seq 32 600; {}; seq 601 610; {}; echo \"error: it broke\"; seq 612 700; exit 1",
        wait("one"),
        wait("two")
    );
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: '{script}' }}\n"));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/slow");
    browser.until("#log [id='1:600'] .c", "600");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    let select = |from: u32, to: u32| {
        browser.ask(&format!(
            "getSelection().setBaseAndExtent(document.querySelector(\"#log [id='1:{from}'] .c\").firstChild, 0, document.querySelector(\"#log [id='1:{to}'] .c\").firstChild, 3) ?? true"
        ))
    };
    select(595, 597);
    assert_eq!(browser.ask(SELECTED), "595,596,597");
    fs::write(sign("one"), "").expect("a file");
    browser.until("#log [id='1:610'] .c", "610");
    assert_eq!(browser.ask(SELECTED), "595,596,597");
    // Also when it is scrolled out of view, and back.
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until("#log [id='1:1'] .c", "1");
    assert_eq!(browser.ask(SELECTED), "595,596,597");
    browser.ask("getSelection().removeAllRanges() ?? true");
    browser.ask("document.querySelector('#log').scrollTop = 200");
    browser.until_is("document.querySelector(\"#log [id='1:597']\") === null");
    // Who folds a group by the keyboard unfolds it by the same key.
    browser.until_is("document.querySelector(\"#log [id='1:21'] button.fold\") !== null");
    browser.ask("document.querySelector(\"#log [id='1:21'] button.fold\").focus() ?? true");
    for expanded in ["false", "true"] {
        browser.press("\u{e007}");
        browser.until_is(&format!("document.activeElement.matches('button.fold[aria-expanded={expanded}]')"));
    }
    // What a search found is more when there is more, and so are errors.
    browser.type_into("#search", "^6[01].$\n");
    browser.until("#hits", "11 lines match");
    fs::write(sign("two"), "").expect("a file");
    browser.until("#ending", "exit 1");
    browser.until_is("document.querySelectorAll('.stage .map .error').length === 1");
    for _ in 0..13 {
        let before = browser.ask("location.hash");
        browser.press("n");
        browser.until_is(&format!("location.hash !== {before}"));
    }
    assert_eq!(browser.ask("location.hash"), "#1:613");
    browser.until("#hits", "19 lines match");
    browser.is_content();
}

#[test]
fn a_log_that_is_watched_learns_of_its_errors() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("sign");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", sign.display());
    let script = format!("seq 1 300; {wait}; echo \"error: it broke\"; seq 302 400; exit 1");
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: '{script}' }}\n"));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/slow");
    browser.until("#log [id='1:300'] .c", "300");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    browser.press("n");
    browser.until_is("document.querySelector('.viewer p.unseen').textContent === 'no line looks like an error'");
    fs::write(sign, "").expect("a file");
    browser.until("#ending", "exit 1");
    browser.until_is("document.querySelectorAll('.stage .map .error').length === 1");
    browser.press("p");
    browser.until("#log [id='1:301'].marked .c", "error: it broke");
    browser.is_content();
}

#[test]
fn a_line_that_the_page_cuts_says_so_when_it_is_copied() {
    if !has_browser() {
        return;
    }
    let site =
        Site::new("defaults: { environment: host }\njobs:\n  long: { run: 'echo short; seq -f \"%020000.0f\" 1 1' }\n");
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/long");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    browser.press("c");
    browser.until(
        ".find + .problem",
        "2 lines copied, but 1 line of them cut where the page cuts long ones: take the whole from Raw.",
    );
}
