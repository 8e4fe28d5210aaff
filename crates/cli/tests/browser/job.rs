//! A job's page beside its log: what it hands on and what it ran in, on every screen and without scripts; and that all of it is within reach.

use super::installation::Site;
use super::{Browser, Kind, has_browser};

const PIPELINE: &str = r#"
name: demo
defaults: { environment: host }
env: { COLOUR: red }
jobs:
  make:
    env: { GREETING: "<b>hi</b> ${{ job.name }}", LONG: "a value that is rather long, so that it has to be seen what becomes of it on a small screen" }
    matrix: { level: [low] }
    artifacts: { report: ["*.txt"] }
    run:
      - { run: "echo hello > hello.txt; echo '::group::outer'; echo '::group::inner'; echo x; echo '::endgroup::'; echo '::endgroup::'", env: { LOUD: "1" } }
      - |
        printf 'a 1\nb 1\n\033[2Aa 2\nb 2\n'
"#;

#[test]
fn a_job_shows_what_it_hands_on_and_what_it_ran_in() {
    if !has_browser() {
        return;
    }
    let site = Site::new(PIPELINE);
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    for kind in [Kind::Desk, Kind::Dark, Kind::Phone, Kind::Plain] {
        browser.turn(kind);
        browser.go("/builds/1/jobs/make%2Flow");
        browser.until("#tabs [aria-current]", "Log");
        browser.click("#tab-artifacts");
        browser.until(".artifacts", "report");
        browser.until(".artifacts", "1 file, 6 B");
        let is_content = |name: &str| {
            browser.screenshot(name);
            if kind == Kind::Plain {
                return;
            }
            let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
            assert_eq!(too_wide, false, "{name} scrolls sideways");
            browser.is_content();
            browser.is_within_reach();
        };
        is_content("tab-artifacts");
        browser.click("#tab-environment");
        browser.until(".environment", "processes of the worker's machine");
        for part in [
            "level = low",
            "COLOUR",
            "<b>hi</b> ${{ job.name }}",
            "evaluated when it starts",
            "env of the pipeline",
            "env of the job",
            "env of step 1",
            "known to the worker alone",
        ] {
            browser.until(".environment", part);
        }
        is_content("tab-environment");
        browser.click("#tab-log");
        browser.until("#steps", "echo hello");
        for (step, waits_for) in [(0, "#group-2"), (1, "#log button.redraws")] {
            browser.go(&format!("/builds/1/jobs/make%2Flow?step={step}"));
            if kind != Kind::Plain {
                browser.until_is(&format!("document.querySelector('{waits_for}') !== null"));
            }
            is_content(&format!("tab-log-{step}"));
        }
    }
}
