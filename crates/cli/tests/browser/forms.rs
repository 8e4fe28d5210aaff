//! Forms in pages that change while they are looked at: what was filled in stays, and is sent by whoever means to.

use super::installation::Site;
use super::process::appears;
use super::{Browser, Kind, has_browser};
use serde_json::Value;
use std::fs;

impl Browser {
    /// What stands in a field.
    #[track_caller]
    fn value(&self, css: &str) -> Value {
        self.ask(&format!("document.querySelector(`{css}`)?.value"))
    }

    /// Takes the focus from whatever has it.
    #[track_caller]
    fn leave(&self) {
        self.ask("document.activeElement.blur()");
    }
}

#[test]
fn a_secret_of_several_lines_arrives_as_it_was_typed() {
    if !has_browser() {
        return;
    }
    let script = r#"printf "%s" "$KEY" | wc -lc"#;
    let site = Site::new(&format!(
        "defaults: {{ environment: host }}\njobs:\n  count: {{ secrets: [KEY], run: '{script}' }}\n"
    ));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go(&format!("/projects/{}/settings", super::settings::project_of(&browser)));
    browser.type_into("[name=secret]", "KEY");
    browser.type_into("textarea[name=value]", "-- first --\nand second\n");
    // Nobody who looks over a shoulder reads it.
    assert_eq!(
        browser.ask("getComputedStyle(document.querySelector('textarea[name=value]')).webkitTextSecurity"),
        "disc"
    );
    browser.screenshot("secret");
    browser.click("form[action$='/secrets'] button.main");
    browser.until_is("[...document.querySelectorAll('.entries code')].some((it) => it.textContent === 'KEY')");
    site.submit(&["--separate"], 0);
    browser.go("/builds/2/jobs/count");
    browser.until_is("/^ *1 +22$/.test(document.querySelector('#log .l .c')?.textContent ?? '')");
    browser.is_content();
}

#[test]
fn a_gate_that_is_half_filled_in_stays_so_while_the_page_changes() {
    const FILLED: [(&str, &str); 4] = [
        ("[name='field.force']", "true"),
        ("[name='field.notes']", "by hand"),
        ("[name='field.region']", "us"),
        ("[name=reason]", "because"),
    ];
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = |name: &str| folder.path().join(name);
    let until = |name: &str| {
        format!("'touch {0}-waits; while [ ! -e {0} ]; do sleep 0.05; done; exit 1'", sign(name).display())
    };
    let (one, two) = (until("one"), until("two"));
    let site = Site::new(&format!(
        r#"
defaults: {{ environment: host }}
jobs:
  ship:
    gate: {{ prompt: "Ship it?", fields: {{ force: {{ type: boolean }}, notes: {{ type: string }}, region: {{ type: choice, options: [eu, us] }} }} }}
    run: echo "to ${{{{ gate.region }}}}, ${{{{ gate.notes }}}}, force ${{{{ gate.force }}}}"
  one: {{ run: {one} }}
  two: {{ run: {two} }}
"#
    ));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    appears(&sign("one-waits"));
    appears(&sign("two-waits"));
    browser.go("/builds/1");
    browser.until(".gate h2", "Ship it?");
    browser.ask("window.stays = true");
    // What nobody has chosen is not sent.
    assert_eq!(browser.value("[name='field.region']"), "");
    browser.click(".gate button[value=approve]");
    browser.until_is("document.activeElement?.name === 'field.force'");
    for (field, value) in FILLED {
        browser.type_into(field, if field.contains("force") { "yes" } else { value });
        assert_eq!(browser.value(field), value);
    }
    // Enter in a field is no approval.
    browser.press("\u{e007}");
    // Nor is anything lost under who is about to approve.
    browser.ask("document.querySelector('.gate button[value=approve]').focus()");
    fs::write(sign("one"), "").expect("a file");
    browser.until("#build-header .facts", "1 failed");
    for (field, value) in FILLED {
        assert_eq!(browser.value(field), value, "{field}");
    }
    assert_eq!(browser.ask("document.activeElement.value"), "approve");
    // Nor once nothing has the focus: what has come since is there, and what was filled in too.
    browser.leave();
    fs::write(sign("two"), "").expect("a file");
    browser.until("#failure-1 h2", "two");
    for (field, value) in FILLED {
        assert_eq!(browser.value(field), value, "{field}");
    }
    browser.screenshot("gate-filled");
    assert_eq!(browser.ask("window.stays"), true, "the form was sent");
    browser.is_content();
    browser.click(".gate button[value=approve]");
    browser.until("#tree", "ship");
    browser.until_is("document.querySelector('.gate') === null");
    browser.until("p.verdict", "failed");
    browser.go("/builds/1/jobs/ship");
    browser.until("#log", "to us, by hand, force true");
    browser.is_content();
}

#[test]
fn a_reason_that_is_typed_at_the_queue_stays_while_the_queue_changes() {
    if !has_browser() {
        return;
    }
    let site = Site::new("defaults: { environment: host }\njobs:\n  a: { run: echo }\n");
    let _server = site.serve();
    let browser = Browser::open(&site, Kind::Desk);
    site.submit(&["--no-wait"], 0);
    browser.go("/queue");
    browser.until("#pools", "default");
    browser.click("#hold-default summary");
    browser.type_into("#hold-default [name=reason]", "a leak");
    browser.leave();
    browser.ask("window.before = document.querySelector('#hold-default')");
    site.submit(&["--no-wait", "--separate"], 0);
    browser.until_is("!window.before.isConnected");
    assert_eq!(browser.value("#hold-default [name=reason]"), "a leak");
    browser.click("#hold-default button");
    browser.until("#pools .problem", "a leak");
    browser.is_content();
}
