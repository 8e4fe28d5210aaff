//! A job that is tried again while its page is open, and links into the log of a try.

use std::fs;

use super::installation::Site;
use super::{Browser, Kind, has_browser};

#[test]
fn what_is_looked_at_of_a_try_stays_when_another_begins() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("sign");
    let wait = format!("while [ ! -e {}-$n ]; do sleep 0.05; done", sign.display());
    // Each try is another process, and says which one it is.
    let count = folder.path().join("count");
    let script = format!("echo >> {0}; n=$(wc -l < {0}); seq 1 300; echo this is $n; {wait}; exit 1", count.display());
    let site = Site::new(&format!(
        "defaults: {{ environment: host }}\njobs:\n  t: {{ run: '{script}', retry: {{ max: 2, on: [step], backoff: 1s }} }}\n"
    ));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let go_on = |attempt: u32| fs::write(folder.path().join(format!("sign-{attempt}")), "").expect("a file");
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/t");
    browser.until("#log [id='1:301'] .c", "this is 1");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    // Who follows a try follows the next one.
    go_on(1);
    browser.until("#log [id='1:301'] .c", "this is 2");
    browser.until("#job-header .attempts a[aria-current]", "try 2");
    browser.until_is(
        "document.querySelector('#log[data-drawn]') !== null && document.querySelector('#other-try') === null",
    );
    // The address of a line names its try, by a click and as the link itself says it.
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until("#log [id='1:1'] .c", "1");
    assert_eq!(
        browser.ask("document.querySelector(\"#log [id='1:2'] a.n\").getAttribute('href')"),
        "?attempt=2&step=0&from=0#1:2"
    );
    // Who looks at something keeps it, and is told.
    go_on(2);
    browser.until("#other-try", "Try 3 has begun: go to it");
    browser.until("#job-header .attempts a[aria-current]", "try 2");
    browser.until("#ending", "exit 1");
    assert_eq!(browser.ask("document.querySelector('#log').dataset.api.includes('/attempts/2/')"), true);
    browser.is_within_reach();
    browser.screenshot("other-try");
    browser.ask("document.querySelector('#log').scrollTop = 1e6");
    browser.until("#log [id='1:301'] .c", "this is 2");
    browser.ask("document.querySelector(\"#log [id='1:301'] a.n\").click()");
    let named = browser.path();
    assert!(named.contains("attempt=2") && named.ends_with("#1:301"), "{named}");
    browser.click("#other-try a");
    browser.until("#log [id='1:301'] .c", "this is 3");
    browser.until("#job-header .attempts a[aria-current]", "try 3");
    browser.go(&named);
    browser.until("#log [id='1:301'].marked .c", "this is 2");
    browser.is_content();
    go_on(3);
}
