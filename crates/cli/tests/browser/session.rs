//! A session that ends while a page is looked at: the page says so, and keeps what it shows.

use std::fs;

use super::installation::Site;
use super::{Browser, Kind, has_browser};

#[test]
fn a_page_says_that_the_session_has_ended_and_keeps_what_it_shows() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("sign");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", sign.display());
    let script = format!("seq 1 900; {wait}; echo end");
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: '{script}' }}\n"));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    let data = site.path("data");
    let mut create = site.command(&["token", "create", "--admin", "--name", "short", "--data"]);
    let made = create.arg(&data).output().expect("ropewalk starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(site.path("short.token"), &made.stdout).expect("a file");
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open_as(&site, Kind::Desk, &String::from_utf8_lossy(&made.stdout));
    browser.go("/builds/1/jobs/slow");
    browser.until("#log .l:last-child .c", "900");
    let title = browser.ask("document.title");
    let mut revoke = site.command(&["token", "revoke", "--data"]);
    revoke.arg(&data).arg("--token").arg(site.path("short.token"));
    let revoked = revoke.output().expect("ropewalk starts");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    browser.until("#session-ended", "Your session has ended: sign in to go on");
    // What is no more to be had takes nothing away that is there.
    browser.ask(
        "(window.fetch = ((before) => async (address, how) => { const answer = await before(address, how); \
         window.refused = window.refused || address.includes('/lines/0?from=0&') && answer.redirected; return answer; })(window.fetch), true)",
    );
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until_is("window.refused");
    browser.until("#log .l:last-child .c", "900");
    assert_eq!(browser.ask("document.title"), title);
    browser.is_within_reach();
    browser.screenshot("session-ended");
    browser.click("#session-ended a");
    browser.until("h1", "Ropewalk");
    let token = fs::read_to_string(site.path("admin.token")).expect("a token");
    browser.type_into("#token", &format!("{}\n", token.trim()));
    browser.until("#log .l:last-child .c", "900");
    assert_eq!(browser.path(), "/builds/1/jobs/slow");
    fs::write(sign, "").expect("a file");
    browser.until("#log .l:last-child .c", "end");
}
