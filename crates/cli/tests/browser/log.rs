//! The log in a real browser: groups, what is usual, links and times, following, the keyboard alone, a slow network, and what a
//! long one costs the browser.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::installation::Site;
use super::process::{PATIENCE, Process, appears};
use super::{Browser, Kind, has_browser};

/// A pipeline whose first build passes and whose second does not, since the file `broken` has come.
const GROUPED: &str = r"
name: demo
defaults: { environment: host }
jobs:
  g:
    run: |
      echo '--- set up'
      seq 1 50
      echo '+++ test'
      echo took $$ ms
      echo see https://example.org/a?b=c.
      echo '--- more'
      seq 60 90
      if [ -e broken ]; then printf '10 %%\r55 %%\r100 %%\n'; echo 'error: it broke'; exit 3; fi
  e: { run: 'echo to stderr >&2' }
";

fn row(line: u64) -> String {
    format!("#log [id='1:{line}']")
}

/// A site where a job passed once, then failed.
fn broken() -> (Site, Vec<Process>) {
    let site = Site::new(GROUPED);
    let (server, worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    fs::write(site.root().join("broken"), "").expect("a file");
    site.git(&["add", "-A"]);
    site.submit(&[], 1);
    (site, vec![worker.process, server])
}

/// The log of the failed step, drawn at its error.
fn at_the_error(site: &Site) -> Browser {
    let browser = Browser::open(site, Kind::Desk);
    browser.go("/builds/2/jobs/g");
    browser.until("#log .marked .c", "error: it broke");
    browser.until_is("document.querySelector('#log').hasAttribute('data-drawn')");
    browser
}

impl Browser {
    /// Presses a key where the focus is.
    #[track_caller]
    pub fn press(&self, key: &str) {
        let presses = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keys = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] });
        self.call("POST", "/actions", &keys);
    }

    /// Presses keys together, the last of them last.
    #[track_caller]
    pub fn chord(&self, keys: &[&str]) {
        let down = keys.iter().map(|key| json!({ "type": "keyDown", "value": key }));
        let up = keys.iter().rev().map(|key| json!({ "type": "keyUp", "value": key }));
        let presses: Vec<Value> = down.chain(up).collect();
        self.call("POST", "/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] }));
    }

    /// Waits until an expression of the page is true.
    #[track_caller]
    pub fn until_is(&self, expression: &str) {
        let began = Instant::now();
        while self.ask(expression) != Value::Bool(true) {
            assert!(began.elapsed() < PATIENCE, "`{expression}` never is");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// A command of the browser's own protocol.
    #[track_caller]
    pub fn command(&self, command: &str, parameters: &Value) -> Value {
        self.call("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// The memory of the browser's largest process of pages, in MiB: what is its own, and its share of what it has in common.
    pub fn tab_mib(&self) -> u64 {
        let own = self.profile().display().to_string();
        let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| Some(entry.ok()?.path()));
        let is_page = |path: &std::path::PathBuf| {
            fs::read(path.join("cmdline")).is_ok_and(|line| {
                let line = String::from_utf8_lossy(&line);
                line.contains("--type=renderer") && line.contains(&own)
            })
        };
        let of = |path: std::path::PathBuf| {
            let maps = fs::read_to_string(path.join("smaps_rollup")).ok()?;
            maps.lines()
                .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        };
        processes.filter(is_page).filter_map(of).max().unwrap_or(0) / 1024
    }
}

#[test]
fn a_failed_step_is_read_by_its_groups_and_what_is_new() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = broken();
    let browser = at_the_error(&site);
    // What the group of the error does not hold is folded away, and comes by a click.
    assert_eq!(
        browser.ask("[...document.querySelectorAll('#groups li')].map(it => it.className.includes('folded'))"),
        json!([true, false, false])
    );
    assert_eq!(browser.find(&row(10)), None);
    browser.screenshot("groups");
    // What the build before printed too is dim, whatever its numbers; what is new is not.
    let is_same =
        |line: u64| browser.ask(&format!("document.querySelector(\"{}\").classList.contains('same')", row(line)));
    assert_eq!([is_same(1), is_same(52), is_same(53), is_same(88)], [true, true, true, false]);
    // A bar shows its end, an address is a link that hands on nothing.
    browser.until(&format!("{} .c", row(87)), "100 %");
    assert_eq!(browser.ask("document.querySelector('#log .c a').rel"), "noreferrer noopener nofollow");
    assert_eq!(browser.ask("document.querySelector('#log .c a').href"), "https://example.org/a?b=c");
    // Errors stand beside the scroll bar, and the step's end below.
    browser.until_is("document.querySelectorAll('.stage .map .error').length === 1");
    browser.until("#ending", "exit 3");
    let command = browser.ask("document.querySelector('#shell-command').textContent");
    assert!(command.as_str().is_some_and(|it| it.starts_with("ropewalk shell 2 g@1 --server http://")), "{command}");
    // What is folded away comes by a click.
    browser.ask(&format!("document.querySelector(\"{} button.fold\").click()", row(1)));
    browser.until(&format!("{} .c", row(10)), "9");
    // Both streams are told apart.
    browser.go("/builds/2/jobs/e");
    browser.until("#log .l.err .c", "to stderr");
    browser.is_content();
}

#[test]
fn a_log_is_read_by_the_keyboard_alone() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = broken();
    let browser = at_the_error(&site);
    // A search from the keyboard, its hits one after the other, folded or not.
    browser.press("/");
    assert_eq!(browser.ask("document.activeElement.id"), "search");
    for key in ["^", "6", ".", "$", "\u{e007}"] {
        browser.press(key);
    }
    browser.until("#hits", "10 lines match");
    browser.until_is("document.querySelectorAll('.stage .map .hit').length > 0");
    browser.is_within_reach();
    browser.press("p");
    browser.until_is("location.hash === '#1:65'");
    browser.press("p");
    browser.until_is("location.hash === '#1:64'");
    browser.press("n");
    browser.until_is("location.hash === '#1:65'");
    browser.until(&format!("{}.marked .c", row(65)), "69");
    // Times: of the clock, since the beginning, since the line before; long lines; folds.
    for expected in ["Clock", "Since start", "Since line", "Times"] {
        browser.press("t");
        browser.until("[data-do=t]", expected);
    }
    browser.press("w");
    browser.until_is("document.querySelector('[data-do=w]').ariaPressed === 'true' && document.querySelector('#log').matches('.wrap')");
    browser.press("w");
    browser.press("d");
    browser.until_is("!document.querySelector('#log').matches('.dims')");
    browser.press("z");
    browser.press("z");
    browser.until_is("document.querySelectorAll('#groups li.folded').length === 3");
    browser.press("?");
    browser.until("dialog#keys", "next and previous");
    browser.is_within_reach();
    browser.press("\u{e00c}");
    browser.is_content();
    // A range in an address leads to the step and its lines, whatever step is the page's own.
    browser.go("/builds/2/jobs/g?attempt=1#1:54-55");
    browser.until(&format!("{}.marked .c", row(54)), "see https://");
    assert_eq!(browser.ask("document.querySelectorAll('#log .marked').length"), 2);
    browser.is_content();
}

/// Groups within groups, as programs, our SDK and Buildkite's notation make them.
const NESTED: &str = r"
name: demo
defaults: { environment: host }
jobs:
  n:
    run: |
      echo '--- prepare'
      seq 1 20
      echo '--- check'
      echo '::group::workspace'
      echo '::group::engine'
      seq 100 120
      echo '::endgroup::'
      echo '::group::<b>store</b>'
      seq 200 220
      echo '::endgroup::'
      echo '::endgroup::'
      echo '+++ report'
      echo '::endgroup::'
      seq 300 310
";

#[test]
fn groups_within_groups_fold_by_themselves_and_are_walked_as_a_tree() {
    if !has_browser() {
        return;
    }
    let site = Site::new(NESTED);
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/n");
    browser.until_is("document.querySelector('#log').hasAttribute('data-drawn')");
    let folded =
        || browser.ask("[...document.querySelectorAll('#groups li')].map(it => it.classList.contains('folded'))");
    let seen = || {
        browser
            .ask("[...document.querySelectorAll('#groups a')].filter(it => it.offsetParent).map(it => it.textContent)")
    };
    let focus = || browser.ask("document.activeElement.textContent");
    assert_eq!(folded(), json!([true, true, true, true, true, false]));
    assert_eq!(seen(), json!(["prepare", "check", "report"]));
    // The keyboard walks the tree: into a group, to what is in it, out again.
    browser.ask("document.querySelector('#groups a').focus()");
    let right = "\u{e014}";
    let (left, down) = ("\u{e012}", "\u{e015}");
    browser.press(down);
    assert_eq!(focus(), "check");
    for key in [right, right, right, right] {
        browser.press(key);
    }
    assert_eq!(
        (focus(), seen()),
        (json!("engine"), json!(["prepare", "check", "workspace", "engine", "<b>store</b>", "report"]))
    );
    assert_eq!(folded(), json!([true, false, false, true, true, false]));
    browser.press(down);
    browser.press(right);
    // What is in it is in the log, and what is in the one before it is not.
    browser.until(&format!("{} .c", row(50)), "202");
    assert_eq!(browser.find(&row(30)), None);
    assert_eq!(browser.ask(&format!("document.querySelector(\"{}\").dataset.depth", row(47))), "2");
    browser.screenshot("nested");
    browser.is_within_reach();
    for key in [left; 5] {
        browser.press(key);
    }
    assert_eq!(seen(), json!(["prepare", "check", "report"]));
    assert_eq!(folded()[4], true);
    // A line within two groups is gone to through both.
    browser.go("/builds/1/jobs/n?again#1:50");
    browser.until(&format!("{}.marked .c", row(50)), "202");
    assert_eq!(folded(), json!([true, false, false, true, false, false]));
    browser.is_content();
    for kind in [Kind::Dark, Kind::Phone] {
        browser.turn(kind);
        browser.go("/builds/1/jobs/n#1:50");
        browser.until(&format!("{}.marked .c", row(50)), "202");
        browser.screenshot("nested");
    }
    let plain = browser;
    plain.turn(Kind::Plain);
    plain.go("/builds/1/jobs/n");
    plain.until("#groups > li > ol > li > ol > li:last-child > a", "<b>store</b>");
}

/// Three rows that are drawn three hundred times, as programs do that think they write to a terminal.
const REDRAWN: &str = r"
name: demo
defaults: { environment: host }
jobs:
  bars:
    run: |
      echo begin
      n=0
      while [ $n -lt 300 ]; do
        if [ $n -gt 0 ]; then printf '\033[3A'; fi
        printf '\033[2Klayer one: \033[32m%s\033[0m\n\033[2Klayer two: %s\n\033[2Klayer three: %s\n' $n $n $n
        n=$((n + 1))
      done
      echo end
";

#[test]
fn bars_of_several_rows_show_their_last_drawing() {
    if !has_browser() {
        return;
    }
    let site = Site::new(REDRAWN);
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let rows = "[...document.querySelectorAll('#log .l')].map(it => it.querySelector('.c').textContent)";
    let last = json!(["begin", "layer one: 299", "layer two: 299", "layer three: 299", "end"]);
    let browser = Browser::open(&site, Kind::Desk);
    for kind in [Kind::Desk, Kind::Dark, Kind::Phone] {
        browser.turn(kind);
        browser.go("/builds/1/jobs/bars");
        browser.until("#log button.redraws", "299 redraws");
        assert_eq!(browser.ask(rows), last);
        // Numbers are those of what was recorded.
        browser.until(&format!("{} .c", row(899)), "layer one: 299");
        assert_eq!(browser.ask("document.querySelectorAll('#log .c .f2').length"), 1);
        browser.screenshot("redrawn");
        // All drawings are there for whoever wants them, and go again.
        browser.click("#log button.redraws");
        browser.until(&format!("{}.over .c", row(898)), "layer three: 298");
        assert_eq!(browser.ask("document.querySelector('#log button.redraws').ariaExpanded"), "true");
        browser.screenshot("redrawn-open");
        browser.is_within_reach();
        browser.click("#log button.redraws");
        browser.until_is("document.querySelectorAll('#log .l').length === 5");
        // A line that was drawn over has its address all the same.
        browser.go("/builds/1/jobs/bars?again#1:500");
        browser.until(&format!("{}.marked .c", row(500)), "layer one: 166");
        browser.is_content();
    }
    let plain = browser;
    plain.turn(Kind::Plain);
    plain.go("/builds/1/jobs/bars?from=800");
    plain.until("#log details.redrawn summary", "33 redraws");
    plain.until("#log > [id='1:901'] .c", "layer three: 299");
    plain.screenshot("redrawn");
}

#[test]
fn a_step_is_followed_until_the_reader_scrolls_away() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = |name: &str| folder.path().join(name);
    let wait = |name: &str| format!("while [ ! -e {} ]; do sleep 0.05; done", sign(name).display());
    let script = format!("seq 1 500; {}; seq 501 700; {}; echo end", wait("one"), wait("two"));
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: '{script}' }}\n"));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    let began = Instant::now();
    while browser.find("#log[data-source]").is_none() {
        assert!(began.elapsed() < PATIENCE, "the job prints nothing");
        browser.go("/builds/1/jobs/slow");
    }
    browser.until(&format!("{} .c", row(500)), "500");
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until(&format!("{} .c", row(1)), "1");
    fs::write(sign("one"), "").expect("a file");
    browser.until(".newer", "↓ 200 new lines");
    browser.screenshot("follow");
    assert_eq!(browser.ask("document.querySelector('#log').scrollTop"), 0);
    browser.click(".newer");
    browser.until(&format!("{} .c", row(700)), "700");
    fs::write(sign("two"), "").expect("a file");
    browser.until(&format!("{} .c", row(701)), "end");
    browser.until("#ending", "exit 0");
    browser.is_content();
}

#[test]
fn who_follows_a_step_goes_on_to_the_next() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = |name: &str| folder.path().join(name);
    let wait = |name: &str| format!("while [ ! -e {} ]; do sleep 0.05; done", sign(name).display());
    let steps = format!("['seq 1 5; {}', 'true', 'seq 1 300; {}', 'seq 1 7']", wait("one"), wait("two"));
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: {steps} }}\n"));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    let began = Instant::now();
    while browser.find("#log[data-source]").is_none() {
        assert!(began.elapsed() < PATIENCE, "the job prints nothing");
        browser.go("/builds/1/jobs/slow");
    }
    let here = |step: u32| format!("document.querySelector('#step-{step}[aria-current]') !== null");
    browser.until_is(&here(1));
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    fs::write(sign("one"), "").expect("a file");
    browser.until_is(&here(3));
    browser.until("#log [id='3:300'] .c", "300");
    // Who looks at something else stays there.
    browser.ask("document.querySelector('#log').scrollTop = 0");
    browser.until("#log [id='3:1'] .c", "1");
    fs::write(sign("two"), "").expect("a file");
    browser.until_is("document.querySelector('#step-4.passed') !== null");
    browser.until_is("!document.querySelector('#log').hasAttribute('data-open')");
    browser.until_is(&here(3));
}

#[test]
fn a_step_is_followed_on_after_the_server_was_gone() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = |name: &str| folder.path().join(name);
    let wait = |name: &str| format!("while [ ! -e {} ]; do sleep 0.05; done", sign(name).display());
    let script = format!("seq 1 5; {}; echo after; {}; echo end", wait("one"), wait("two"));
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: '{script}' }}\n"));
    let (mut server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/slow");
    browser.until(&format!("{} .c", row(5)), "5");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    browser.ask("window.stays = true");
    // It ends in order, and what it was telling with it: the step goes on.
    server.signal("TERM");
    server.ended();
    let mut server = site.serve();
    fs::write(sign("one"), "").expect("a file");
    browser.until(&format!("{} .c", row(6)), "after");
    assert_eq!(browser.ask("document.querySelector('#log').hasAttribute('data-open')"), true);
    // It ends as it does when its machine does.
    server.kill();
    let _server = site.serve();
    fs::write(sign("two"), "").expect("a file");
    browser.until(&format!("{} .c", row(7)), "end");
    browser.until("#ending", "exit 0");
    browser.until_is("!document.querySelector('#log').hasAttribute('data-open')");
    assert_eq!(browser.ask("window.stays"), true, "the page was loaded anew");
}

#[test]
fn lines_are_copied_where_scripts_have_no_clipboard() {
    if !has_browser() {
        return;
    }
    let site = Site::new("defaults: { environment: host }\njobs:\n  a: { run: 'seq 1 9' }\n");
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1/jobs/a#1:3-5");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    // As it is over HTTP from another machine.
    browser.ask("Object.defineProperty(navigator, 'clipboard', { value: undefined }) === navigator");
    browser.click("#log-tools [data-do=c]");
    browser
        .until_is("[...document.querySelectorAll('[role=status]')].some((it) => it.textContent === '3 lines copied')");
    browser.ask("document.body.append(Object.assign(document.createElement('textarea'), { id: 'pasted' }))");
    browser.click("#pasted");
    browser.chord(&["\u{e009}", "v"]);
    browser.until_is("document.querySelector('#pasted').value === '3\\n4\\n5'");
    // Where that is not let either, nothing is said to be copied.
    browser.ask("(document.execCommand = () => false, true)");
    browser.click("#log-tools [data-do=c]");
    browser.until(".find + .problem", "Nothing was copied");
    browser.is_content();
}

#[test]
fn a_log_is_read_over_a_slow_network() {
    if !has_browser() {
        return;
    }
    let (site, _processes) = super::site();
    let browser = Browser::open(&site, Kind::Phone);
    browser.go("/builds/1");
    browser.until("#failure-0", "it broke");
    browser.command("Network.enable", &json!({}));
    let slow = json!({ "offline": false, "latency": 300, "downloadThroughput": 50_000, "uploadThroughput": 20_000 });
    browser.command("Network.emulateNetworkConditions", &slow);
    browser.go("/builds/1/jobs/long");
    browser.until("#log .marked .c", "error: it broke");
    // The page stands before its script does, which then goes to the error: the reader scrolls until it stays.
    let began = std::time::Instant::now();
    while browser.text(&format!("{} .c", row(1))).is_none() {
        assert!(began.elapsed() < crate::PATIENCE, "the first line does not come");
        browser.ask("document.querySelector('#log').scrollTop = 0");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
    assert_eq!(too_wide, false, "the log's page scrolls sideways on a phone");
    browser.screenshot("log");
}

/// A picture of 8 pixels, with a length behind its end that no line of text has.
const PICTURED: &str = r#"
defaults: { environment: host }
jobs:
  shot:
    run: |
      echo before
      picture=$({ echo iVBORw0KGgoAAAANSUhEUgAAAAQAAAACCAYAAAB/qH1jAAAAEklEQVR4nGM4EaDxHxkzoAsAAC+1Efn6TKJoAAAAAElFTkSuQmCC | base64 -d; head -c 40000 /dev/zero; } | base64 -w0)
      printf 'the \033[1mpage\033[0m: \033]1337;File=name=%s;inline=1:%s\a done\n' "$(printf 'a <b>.png' | base64)" "$picture"
      printf '\033]1337;File=inline=1:PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+\a\n'
      echo after
"#;

#[test]
fn a_picture_that_a_step_prints_is_seen() {
    if !has_browser() {
        return;
    }
    let site = Site::new(PICTURED);
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    for kind in [Kind::Dark, Kind::Phone, Kind::Desk] {
        browser.turn(kind);
        browser.go("/builds/1/jobs/shot");
        browser.until_is("document.querySelector('#log[data-drawn]') !== null");
        browser.until(&format!("{} .c", row(4)), "after");
        browser.until_is("document.querySelector('#log .picture img')?.naturalWidth === 4");
        browser.until(&format!("{} .c", row(2)), "a <b>.png");
        browser.until(&format!("{} .c", row(3)), "neither PNG, JPEG, GIF nor WebP");
        // It does not move what stands below it.
        let tall = browser.ask("document.querySelector('#log .picture').closest('.l').getBoundingClientRect().height");
        assert_eq!(tall, 20);
        browser.screenshot("picture");
        browser.is_within_reach();
        browser.click("#log .picture");
        browser.until_is("document.querySelector('dialog.shown-picture[open] img')?.naturalWidth === 4");
        browser.screenshot("picture-large");
        browser.press("\u{e00c}");
        browser.until_is("document.querySelector('dialog.shown-picture') === null");
        browser.is_content();
    }
    // Copied it is its name.
    let plain = browser;
    plain.turn(Kind::Plain);
    plain.go("/builds/1/jobs/shot");
    plain.until("#log .picture", "a <b>.png");
}

/// How many lines the long log has: `$ROPEWALK_LOG_LINES`, for `cargo xtask bench pages`, else ten million in CI.
fn very_many() -> u64 {
    let asked = std::env::var("ROPEWALK_LOG_LINES").ok().and_then(|text| text.parse().ok());
    // At a desk a minute is long.
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    asked.unwrap_or(if is_ci { 10_000_000 } else { 200_000 })
}

#[test]
fn a_log_of_very_many_lines_is_opened_searched_and_followed() {
    if !has_browser() {
        return;
    }
    let lines = very_many();
    let error = lines / 2;
    let folder = tempfile::tempdir().expect("a folder");
    let (printed, sign) = (folder.path().join("printed"), folder.path().join("go-on"));
    let script = format!(
        "seq -f \"compiling part %.0f of the whole\" 1 {}; echo \"error: it broke\"; seq -f \"linking part %.0f of the whole\" {} {lines}; \
         touch {}; while [ ! -e {} ]; do sleep 0.05; done; echo over; exit 1",
        error - 1,
        error + 1,
        printed.display(),
        sign.display()
    );
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  broken: {{ run: '{script}' }}\n"));
    // Not the short patience of other tests: what is printed here keeps a small machine busy.
    fs::write(site.path("data/settings.toml"), "worker.heartbeat = \"15s\"\n").expect("a file");
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    appears(&printed);

    // Followed to its end.
    browser.go("/builds/1/jobs/broken");
    browser.until(&format!("{} .c", row(lines)), &format!("linking part {lines} of"));
    fs::write(&sign, "").expect("a file");
    browser.until(&format!("{} .c", row(lines + 1)), "over");
    browser.is_content();
    browser.go("/builds/1");
    browser.until("#failure-0", "ended with code 1");
    let figure = |name: &str, value: f64| println!("figure: {name} = {value:.1}");
    let number = |expression: &str| browser.ask(expression).as_f64().expect("a number");

    // Opened, at its first error.
    browser.go("/builds/1/jobs/broken");
    browser.until_is("document.querySelector('#log[data-drawn]') !== null");
    figure("interactive ms", number("performance.getEntriesByName('log drawn')[0].startTime"));
    browser.until("#log .marked .c", "error: it broke");
    assert!(browser.find(&row(error)).is_some(), "line {error} is not in the page");
    figure("at the error ms", number("performance.now()"));
    browser.screenshot("long");

    // Anywhere in it, and searched.
    browser.ask("document.querySelector('#log').scrollTop = 1e9");
    browser.until(&format!("{} .c", row(lines)), &format!("linking part {lines} of"));
    let began = number("performance.now()");
    browser.type_into("#search", "part [0-9]*77777 of\n");
    browser.until_is("document.querySelector('#hits') !== null");
    figure("searched ms", number("performance.now()") - began);
    let hits = (1..=lines).filter(|line| line % 100_000 == 77_777).count();
    browser.until("#hits", &format!("{hits} lines match"));
    browser.until_is(&format!("document.querySelectorAll('.stage .map .hit').length === {}", hits.min(240)));
    let memory = browser.tab_mib();
    figure("tab MiB", memory as f64);
    assert!((1..300).contains(&memory), "the tab takes {memory} MiB");
    browser.is_content();
}
