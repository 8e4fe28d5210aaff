//! A shell in the page: opened in what a step left, typed into, left by the keyboard, ended; and what is said where there is none.

use super::*;

/// A job whose second step fails.
const PIPELINE: &str = r#"
name: demo
defaults: { environment: host }
jobs:
  broken:
    run:
      - { name: make, run: 'echo made > made-here.txt' }
      - { name: check, run: 'printf "\033[31merror\033[0m: it broke\n"; exit 3' }
"#;

/// A site with a build whose job `broken` has failed.
fn broken() -> (Site, Vec<Process>) {
    let site = Site::new(PIPELINE);
    let (server, worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 1);
    (site, vec![worker.process, server])
}

/// What stands on the terminal's screen.
const SCREEN: &str = "#shell .xterm-rows";

#[test]
fn a_shell_is_opened_in_the_page_and_typed_into() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = broken();
    let browser = Browser::open(&site, Kind::Desk);
    for kind in [Kind::Phone, Kind::Dark, Kind::Desk] {
        browser.turn(kind);
        browser.go("/builds/1/jobs/broken");
        browser.click("#ending button[data-shell-at=failed]");
        browser.until("#shell-said", "Open, with the files as step 2 (check) left them");
        browser.until_is("document.activeElement?.matches('.xterm-helper-textarea')");
        browser.type_into(
            "#shell .xterm-helper-textarea",
            "cat made-here.txt; echo $((6 * 7)) $COLUMNS; printf '\\033[1;32mgreen\\033[0m\\n'\n",
        );
        browser.until(SCREEN, "made\n42 ");
        browser.until(SCREEN, "green\n");
        // The size is the screen's, when it changes too.
        let columns =
            browser.ask("Number(document.querySelector('#shell .xterm-rows').textContent.match(/42 (\\d+)/)[1])");
        assert!(columns.as_u64().is_some_and(|columns| columns > 20), "{columns}");
        browser.screenshot("shell");
        browser.is_within_reach();
        let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
        assert_eq!(too_wide, false, "the page scrolls sideways");
        // No key of the page is one of the shell, but the one that leaves it, and comes back.
        browser.chord(&["\u{e009}", "\u{e008}", "."]);
        browser.until_is("document.activeElement?.id === 'shell-close'");
        browser.chord(&["\u{e009}", "\u{e008}", "."]);
        browser.until_is("document.activeElement?.matches('.xterm-helper-textarea')");
        browser.type_into("#shell .xterm-helper-textarea", "exit 5\n");
        browser.until("#shell-said", "The shell has ended with code 5.");
        browser.click("#shell-again");
        browser.until("#shell-said", "Open, with the files");
        browser.click("#shell-close");
        browser.until_is("document.querySelector('#shell') === null");
        browser.is_content();
    }
    let desk = browser;
    // Another moment, by the form, without the mouse.
    desk.go("/builds/1/jobs/broken");
    desk.ask("document.querySelector('details.shell summary').focus()");
    desk.press("\u{e007}");
    desk.ask("document.querySelector('.shell select').value = 'start'");
    desk.screenshot("shell-ways");
    desk.is_within_reach();
    desk.ask("document.querySelector('.shell form button').focus()");
    desk.press("\u{e007}");
    desk.until("#shell-said", "before the first step");
    desk.until_is("document.activeElement?.matches('.xterm-helper-textarea')");
    desk.type_into("#shell .xterm-helper-textarea", "ls made-here.txt; stty size\n");
    desk.until(SCREEN, "No such file");
    desk.click("#shell-close");
    // Who opened what is told afterwards.
    desk.go("/settings/audit");
    desk.until("table", "shell_open");
    desk.until("table", "@failed");
    desk.is_content();
}

#[test]
fn who_may_not_open_a_shell_is_told_so() {
    if !has_browser() {
        return;
    }
    let (site, processes) = broken();
    let data = site.path("data");
    let mut command = site.command(&["token", "create", "--name", "reader", "--verb", "read", "--data"]);
    let output = command.arg(&data).output().expect("ropewalk starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reader = Browser::open_as(&site, Kind::Desk, &String::from_utf8_lossy(&output.stdout));
    reader.go("/builds/1/jobs/broken");
    reader.click("#ending button[data-shell-at=failed]");
    reader.until("#shell-said", "This token does not grant `shell`");
    reader.screenshot("shell-refused");
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/broken");
    // The worker goes while somebody is there, and is gone for the next.
    browser.click("#ending button[data-shell-at=failed]");
    browser.until("#shell-said", "Open, with the files");
    let mut processes = processes;
    processes[0].kill();
    browser.until("#shell-said", "The shell was lost");
    browser.screenshot("shell-lost");
    browser.click("#shell-again");
    browser.until("#shell-said", "is joined that could open it");
    // The server goes.
    processes[1].kill();
    browser.click("#shell-again");
    browser.until("#shell-said", "the server cannot be reached");
}
