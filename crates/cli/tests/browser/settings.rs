//! Projects, tests, the queue and settings: looked at on desk and phone, light and dark, with scripts and without.

use super::*;

/// A pipeline of which a job reports tests, some of which fail as `MODE` says; and a job that waits for a pool of nobody.
const TESTED: &str = r#"
name: demo
defaults: { environment: host }
jobs:
  lint: { run: "true" }
  test:
    needs: lint
    run: |
      printf '<testsuite name="<b>suite</b>"><testcase name="adds" time="0.2"/><testcase name="parses <i>all</i>" time="1.5">MODE</testcase><testcase name="old" time="0.1"><failure>never worked</failure></testcase></testsuite>' > junit.xml
      exit 1
    reports: { junit: junit.xml }
  elsewhere: { pool: gpu, run: "true" }
"#;
/// What the second build makes of `MODE`.
const BROKEN: &str = "<failure>assertion failed<![CDATA[\n      - expected 3\n      + actual <img src=x onerror=alert(1)>]]></failure><system-out>what it printed</system-out>";

#[test]
fn projects_tests_queue_and_settings_are_looked_at() {
    if !has_browser() {
        return;
    }
    let site = Site::new(&TESTED.replace("MODE", ""));
    let (_server, _worker) = (site.serve(), site.work("w", &[]).process);
    let desk = Browser::open(&site, Kind::Desk);
    for (number, mode) in [(1, ""), (2, BROKEN)] {
        fs::write(site.root().join(".ropewalk/pipeline.yaml"), TESTED.replace("MODE", mode)).expect("a file");
        site.git(&[
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@localhost",
            "commit",
            "-qam",
            "the <u>next</u>",
            "--allow-empty",
        ]);
        site.submit(&["--no-wait"], 0);
        desk.go(&format!("/builds/{number}"));
        desk.until("#failure-0", "test");
        if number == 1 {
            // Live parts are replaced at any time: at once what is found is clicked.
            desk.ask("document.querySelector('#build-header form[action$=cancel] button').click()");
            desk.until("p.verdict", "canceled");
        }
    }
    desk.go("/builds/2/tests");
    desk.until("#tests-header", "2 of 3 failed: 1 new, 1 failing before");
    desk.until(".test[open] .difference .added", "actual <img");
    desk.until(".test[open] .output", "what it printed");
    // From a failure to a shell in what it left, and to its history.
    let shell = desk.ask("document.querySelector('.test[open] .ways a:nth-child(2)').getAttribute('href')");
    let history = desk.ask("document.querySelector('.test[open] .ways a:nth-child(3)').getAttribute('href')");
    desk.go(shell.as_str().expect("a path"));
    desk.until("#open-shell", "Open a shell here");
    desk.until("#job-header", "Worker\nw");
    desk.until_is("(({ top, bottom }) => top >= 0 && bottom <= innerHeight)(document.querySelector('#open-shell').getBoundingClientRect())");
    desk.go(history.as_str().expect("a path"));
    desk.until("dl.facts", "50 %");
    // A form is sent, its answer is shown once, and the page after it says what there is.
    desk.go("/settings/tokens");
    desk.type_into("input[name=name]", "<b>helper</b>");
    desk.click("input[name='verb.read']");
    desk.click("form[action='/settings/tokens'] button");
    desk.until(".shown-once", "It is shown this once.");
    desk.click(".shown-once p a");
    desk.until("table", "<b>helper</b>");
    desk.go("/settings/members");
    desk.type_into("input[name=name]", "Ann <b>B.</b>");
    desk.click("form[action='/settings/members'] button");
    desk.until(".shown-once", "A link for Ann <b>B.</b>");
    desk.screenshot("member-link");
    desk.is_within_reach();
    let link = desk.text(".shown-once code").expect("a link");
    let link = link[link.find("/join?link=").expect("a link")..].to_owned();
    desk.click(".shown-once p a");
    desk.until("table.members", "not yet");
    let project = project_of(&desk);
    desk.go(&format!("/projects/{project}/settings"));
    desk.type_into("input[name=secret]", "TOKEN");
    desk.type_into("textarea[name=value]", "hush");
    desk.click("form[action$=secrets] button");
    desk.until(".settings section:nth-of-type(3) table", "TOKEN");
    // A test goes into quarantine from where it failed.
    desk.go("/builds/2/tests");
    desk.click("details.test a[href*='/quarantine?']");
    desk.until("h1", "Quarantine");
    desk.type_into("input[name=owner]", "ann");
    desk.type_into("input[name=reason]", "comes and goes");
    desk.click("#new button");
    desk.until("table.quarantine", "comes and goes");
    desk.go("/builds/2/tests");
    desk.until("#failures", "quarantined by ann until");
    desk.go("/queue");
    desk.until(".reasons", "a worker: the pool gpu has no worker");
    desk.is_content();
    let pages = [
        ("wall", "/wall".to_owned()),
        ("project", format!("/projects/{project}")),
        ("branches", format!("/projects/{project}?group=branch")),
        ("project-settings", format!("/projects/{project}/settings")),
        ("tests", "/builds/2/tests".to_owned()),
        ("test", format!("/projects/{project}/tests?name=adds&suite=%3Cb%3Esuite%3C%2Fb%3E")),
        ("quarantine", format!("/projects/{project}/quarantine")),
        ("compare", "/builds/2/compare".to_owned()),
        ("queue-waiting", "/queue".to_owned()),
        ("settings", "/settings".to_owned()),
        ("members", "/settings/members".to_owned()),
        ("tokens", "/settings/tokens".to_owned()),
        ("audit", "/settings/audit".to_owned()),
        ("caches", "/settings/caches".to_owned()),
    ];
    let browser = &desk;
    for (name, path) in &pages {
        browser.go(path);
        for kind in [Kind::Desk, Kind::Phone, Kind::Dark] {
            browser.turn(kind);
            browser.until("h1", "");
            let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
            assert_eq!(too_wide, false, "{path} scrolls sideways");
            assert_eq!(
                browser.ask("document.querySelectorAll('main b, main i, main u, img[src=x]').length"),
                0,
                "{path}"
            );
            browser.screenshot(name);
            browser.is_within_reach();
        }
        browser.is_content();
    }
    // Once a build has ended, its failing tests can be chosen and run again.
    desk.turn(Kind::Desk);
    desk.go("/builds/2");
    desk.ask("document.querySelector('#build-header form[action$=cancel] button').click()");
    desk.until("p.verdict", "canceled");
    desk.go("/builds/2/tests");
    desk.click("input[name='test.quarantined-0']");
    for kind in [Kind::Desk, Kind::Phone, Kind::Dark] {
        desk.turn(kind);
        let too_wide = desk.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
        assert_eq!(too_wide, false, "the tests scroll sideways");
        desk.screenshot("tests-chosen");
        desk.is_within_reach();
    }
    desk.turn(Kind::Desk);
    // All of it is read, and forms are sent, without scripts.
    let plain = Browser::open(&site, Kind::Plain);
    plain.go("/queue");
    plain.click("#hold-default summary");
    plain.type_into("#hold-default input[name=reason]", "looking");
    plain.click("#hold-default button");
    plain.until("#pool-default", "Held by a");
    plain.go("/settings/audit");
    plain.until("table", "pool_hold");
    // A member signs in by a link, and is who stands there.
    plain.go(&link);
    for kind in [Kind::Phone, Kind::Dark] {
        plain.turn(kind);
        plain.screenshot("join");
        plain.is_within_reach();
    }
    plain.turn(Kind::Plain);
    plain.screenshot("join");
    plain.click("form[action='/join'] button");
    plain.until("h1", "Projects");
    plain.go("/settings");
    plain.until("main", "You are Ann <b>B.</b>");
    plain.go(&format!("/projects/{project}/settings"));
    plain.until(".empty", "You may look at these and not change them");
    desk.go("/settings/members");
    desk.until("table.members", "1 time");
    desk.click("form[action$='/remove'] button");
    desk.until("main", "Nobody is a member yet.");
    plain.go("/settings");
    plain.until("main", "this token was revoked");
}

/// The project of the builds that a browser may see.
pub fn project_of(browser: &Browser) -> String {
    browser.go("/builds/1");
    let path = browser.ask("document.querySelector('.top ol li:nth-child(2) a').getAttribute('href')");
    path.as_str().and_then(|path| path.strip_prefix("/projects/")).expect("a project").to_owned()
}
