//! The page of a build: the drawing, the tree, the waterfall, what came out, and reports that may run nothing as the reader.

use super::*;

/// A pipeline like those that people have, with a report that tries what it must not.
const PIPELINE: &str = r##"
name: ropes
defaults: { environment: host }
jobs:
  lint: { run: echo clean }
  build:
    run: |
      mkdir report
      cat > report/index.html <<'END'
      <!doctype html><link rel="stylesheet" href="style.css"><h1>Coverage</h1><p id="told">nothing ran</p><script src="try.js"></script>
      END
      cat > report/try.js <<'END'
      let said = "no origin";
      try { said = document.cookie ? "a cookie" : "an origin"; } catch {}
      try { if (parent !== window) { parent.document.title = "taken"; said = "the page around"; } } catch {}
      document.getElementById("told").textContent = said;
      fetch("/api/v1/whoami", { credentials: "include" }).then((it) => { document.getElementById("told").textContent += it.ok ? ", a right" : ", no right"; }, () => { document.getElementById("told").textContent += ", no right"; });
      END
      echo 'h1 { color: rgb(1, 2, 3); }' > report/style.css
      echo 'a line' > report/notes.txt
      {
        echo '## Coverage'
        echo
        echo '| crate | lines | branches |'
        echo '|---|--:|--:|'
        echo '| ropes | 91.2 % | 80.1 % |'
        echo '| strands | 88.0 % | 71.4 % |'
        echo
        echo '- [x] thresholds hold in `ropes`'
        echo '- [ ] see [the report](https://example.org/r) <script>document.title = "ran"</script>'
      } >> "$ROPEWALK_SUMMARY"
    artifacts: { coverage: "report/**" }
  unit: { needs: build, matrix: { part: [core, wire, store, web, cli, sim] }, run: 'echo "${{ matrix.part }}"' }
  browser-tests-against-the-staging-site: { needs: [build, lint], run: 'echo "error: expected 200, got 502"; exit 1' }
  package: { needs: [unit, lint], run: sleep 0.2 }
  docs: { needs: lint, run: echo written }
  deploy:
    needs: [package, docs]
    gate: { prompt: "Deploy to production?", fields: { region: { type: choice, options: [eu, us], default: eu }, version: { type: string, default: "1.2" } } }
    run: echo deployed
"##;

/// Two builds of [`PIPELINE`], of which only the gate of the second is open: it supersedes the first. The browser looks at the second.
fn built(kind: Kind) -> (Site, Vec<Process>, Browser) {
    let site = Site::new(PIPELINE);
    let (server, worker) = (site.serve(), site.work("w", &[]));
    let browser = Browser::open(&site, kind);
    for build in [1, 2] {
        site.submit(&["--no-wait"], 0);
        until_it_asks(&browser, build);
    }
    (site, vec![worker.process, server], browser)
}

/// Waits until all but the gate of a build has ended.
fn until_it_asks(browser: &Browser, build: u64) {
    browser.go(&format!("/builds/{build}"));
    browser.until("#failure-0", "got 502");
    browser.until(".gate h2", "Deploy to production?");
}

#[test]
fn a_build_is_seen_as_graph_table_and_waterfall() {
    if !has_browser() {
        return;
    }
    let (site, _processes, desk) = built(Kind::Desk);
    let others = [Kind::Phone, Kind::Dark].map(|kind| Browser::open(&site, kind));
    for browser in [desk].into_iter().chain(others) {
        browser.go("/builds/2");
        for view in ["time", "table", "graph"] {
            browser.ask("window.stays = true");
            browser.click(&format!("#view-{view}"));
            browser.until(&format!("#view-{view}[aria-current]"), "");
            assert_eq!(browser.ask("window.stays"), true, "the page was loaded anew");
            let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
            assert_eq!(too_wide, false, "{view} scrolls sideways");
            browser.ask("document.querySelector('.drawn').scrollIntoView()");
            browser.screenshot(&format!("build-{view}"));
        }
        browser.ask("window.scrollTo(0, 0)");
        browser.screenshot("build-top");
        browser.ask("document.querySelector('#results').scrollIntoView()");
        browser.screenshot("build-results");
        browser.is_content();
    }
}

#[test]
fn the_drawing_answers_to_keys_and_pointers() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built(Kind::Desk);
    // What is needed and what needs it is lit when a job is entered.
    browser.ask("document.querySelector('.graph .node[href$=\"/jobs/package\"]').focus()");
    assert_eq!(browser.ask("document.querySelectorAll('.graph .edge.lit').length"), 3);
    assert_eq!(browser.ask("document.querySelectorAll('.graph .node').length"), 7);
    // A matrix is unfolded and the page stays.
    browser.ask("window.stays = true");
    browser.ask("document.querySelector('.graph .node.several').dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true }))");
    let began = Instant::now();
    while browser.ask("document.querySelectorAll('.graph .node').length") != 12 {
        assert!(began.elapsed() < PATIENCE, "the matrix is not unfolded");
    }
    assert_eq!(browser.ask("window.stays"), true);
    browser.screenshot("build-unfolded");
    // The waterfall has a ghost for each job of the build before, says what bars mean, and is widened by keys.
    browser.click("#view-time");
    browser.until("ol.time", "package");
    assert_eq!(browser.ask("document.querySelectorAll('.time .ghost').length >= 9"), true);
    let said = browser.ask("document.querySelector('.time svg[aria-label]').getAttribute('aria-label')");
    assert!(
        said.as_str().is_some_and(|said| said.contains("running ") && said.contains("in the build before")),
        "{said}"
    );
    let before = browser.ask("document.querySelector('.time').scrollWidth").as_u64().expect("a width");
    browser.ask("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '+', bubbles: true }))");
    browser.ask("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '+', bubbles: true }))");
    let after = browser.ask("document.querySelector('.time').scrollWidth").as_u64().expect("a width");
    assert!(after > before * 2, "{before} {after}");
    // What was chosen is kept, here and without scripts.
    browser.click("#order-state");
    browser.until("#order-state[aria-current]", "By state");
    browser.go("/builds/1");
    browser.until("ol.time", "package");
    browser.until("#tree", "failed");
    browser.go("/builds/2");
    // A search narrows the tree as one types.
    browser.type_into("#search", "brow");
    browser.until("#tree", "1 job of 12");
    browser.is_content();
}

#[test]
fn what_came_out_is_looked_at_and_runs_as_nobody() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built(Kind::Desk);
    browser.until(".markdown h4", "Coverage");
    browser.until(".markdown", "<script>document.title = \"ran\"</script>");
    assert_ne!(browser.ask("document.title"), "ran");
    browser.is_content();
    browser.click("#results a[href*='/artifacts/']");
    browser.until("h1", "coverage");
    let frame = browser.find("iframe.file").expect("the report");
    browser.call("POST", "/frame", &json!({ "id": { ELEMENT: frame } }));
    browser.until("#told", "no right");
    assert_eq!(browser.text("#told").as_deref(), Some("no origin, no right"));
    // What lies beside it is there.
    assert_eq!(browser.ask("getComputedStyle(document.querySelector('h1')).color"), "rgb(1, 2, 3)");
    browser.call("POST", "/frame", &json!({ "id": null }));
    assert_ne!(browser.ask("document.title"), "taken");
    browser.screenshot("artifact");
    // Nor as a page of its own.
    let alone = browser.ask("document.querySelector('iframe.file').getAttribute('src')");
    browser.go(alone.as_str().expect("an address"));
    browser.until("#told", "no origin, no right");
}

#[test]
fn tries_stand_side_by_side() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built(Kind::Desk);
    browser.click("#build-header button[value=failed]");
    browser.until("#tree", "try 2");
    browser.until("#failure-0", "2 tries side by side");
    browser.click("#failure-0 a[href$='/attempts']");
    browser.until("table.tries thead", "try 2");
    browser.until("table.tries tbody", "exit 1");
    browser.screenshot("tries");
    browser.is_content();
}
