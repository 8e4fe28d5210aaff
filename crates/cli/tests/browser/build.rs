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
      mkdir -p deps; echo 1 > deps/one
    artifacts: { coverage: "report/**" }
    cache: [{ key: deps-1, paths: [deps] }]
  unit: { needs: build, matrix: { part: [core, wire, store, web, cli, sim] }, run: 'echo "${{ matrix.part }}"' }
  browser-tests-against-the-staging-site: { needs: [build, lint], run: 'echo "error: expected 200, got 502"; exit 1' }
  package: { needs: [unit, lint], run: sleep 0.2 }
  docs:
    needs: lint
    run:
      - { name: write the pages, run: sleep 0.3 }
      - { name: "find <b>links</b>", run: sleep 0.1 }
  deploy:
    needs: [package, docs]
    gate: { prompt: "Deploy to production?", fields: { region: { type: choice, options: [eu, us], default: eu }, version: { type: string, default: "1.2" } } }
    run: echo deployed
"##;

/// Two builds of [`PIPELINE`], of which only the gate of the second is open: it supersedes the first. The browser looks at the second.
fn built() -> (Site, Vec<Process>, Browser) {
    let site = Site::new(PIPELINE);
    let (server, worker) = (site.serve(), site.work("w", &[]));
    let browser = Browser::open(&site, Kind::Desk);
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
    let (_site, _processes, browser) = built();
    for kind in [Kind::Desk, Kind::Phone, Kind::Dark] {
        browser.turn(kind);
        browser.go("/builds/2");
        for view in ["time", "flame", "table", "graph"] {
            browser.ask("window.stays = true");
            browser.click(&format!("#view-{view}"));
            browser.until(&format!("#view-{view}[aria-current]"), "");
            assert_eq!(browser.ask("window.stays"), true, "the page was loaded anew");
            let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
            assert_eq!(too_wide, false, "{view} scrolls sideways");
            browser.is_within_reach();
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
fn the_way_back_leads_to_the_view_before() {
    if !has_browser() {
        return;
    }
    let site = Site::new("defaults: { environment: host }\njobs:\n  a: { run: echo }\n  b: { needs: a, run: echo }\n");
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&[], 0);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1");
    let first = browser.ask("document.querySelector('#views [aria-current]').id");
    let first = format!("#{}[aria-current]", first.as_str().expect("a name"));
    for view in ["#view-flame", "#view-time", "#order-state"] {
        browser.click(view);
        browser.until(&format!("{view}[aria-current]"), "");
    }
    for before in ["#order-order[aria-current]", "#view-flame[aria-current]", &first] {
        browser.call("POST", "/back", &json!({}));
        browser.until(before, "");
    }
    assert_eq!(browser.ask("location.pathname"), "/builds/1");
    browser.is_content();
}

#[test]
fn what_runs_is_followed_by_a_button_beside_the_views() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("sign");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", sign.display());
    let site = Site::new(&format!("defaults: {{ environment: host }}\njobs:\n  slow: {{ run: 'echo; {wait}' }}\n"));
    let (_server, _worker) = (site.serve(), site.work("w", &[]));
    site.submit(&["--no-wait"], 0);
    let browser = Browser::open(&site, Kind::Desk);
    for path in ["/builds/1", "/builds/1?job=slow"] {
        browser.go(path);
        browser.until(".follow-run", "Follow what runs");
        browser.until_is(&format!("(document.querySelector('.step-panel') !== null) === {}", path.contains("job=")));
        let covered = browser.ask(
            "(() => { const over = document.querySelector('.follow-run').getBoundingClientRect(); \
             return [...document.querySelectorAll('#views a')].map((it) => it.getBoundingClientRect()) \
             .filter((it) => it.left < over.right && over.left < it.right && it.top < over.bottom && over.top < it.bottom).length; })()",
        );
        assert_eq!(covered, 0, "{path}");
        browser.screenshot(if path.contains("job=") { "follow-panel" } else { "follow-button" });
    }
    // It is still there when the views were read again.
    browser.click("#view-table");
    browser.until("#view-table[aria-current]", "");
    browser.until(".follow-run", "Follow what runs");
    browser.is_content();
    fs::write(sign, "").expect("a file");
}

#[test]
fn the_drawing_answers_to_keys_and_pointers() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built();
    // What is needed and what needs it is lit when a job is entered.
    browser.ask("document.querySelector('.graph .node[href$=\"/jobs/package\"]').focus()");
    assert_eq!(browser.ask("document.querySelectorAll('.graph .edge.lit').length"), 3);
    assert_eq!(browser.ask("document.querySelectorAll('.graph .node').length"), 7);
    // A box is called by what stands on it and more, for those who speak to the browser and those who listen to it.
    let name = browser.name(".graph .node.several");
    assert_eq!(name, "unit ×6 6 passed; unfold");
    // A matrix is unfolded and the page stays.
    browser.ask("window.stays = true");
    browser.ask("document.querySelector('.graph .node.several').dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true }))");
    let began = Instant::now();
    while browser.ask("document.querySelectorAll('.graph .node').length") != 12 {
        assert!(began.elapsed() < PATIENCE, "the matrix is not unfolded");
    }
    assert_eq!(browser.ask("window.stays"), true);
    browser.screenshot("build-unfolded");
    browser.is_within_reach();
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
    // What runs or asks is kept in sight, until the reader scrolls.
    browser.turn(Kind::Phone);
    browser.go("/builds/2?view=graph");
    assert_eq!(browser.ask("document.querySelector('#canvas').scrollLeft"), 0);
    browser.ask("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'j', bubbles: true }))");
    browser.until_is("document.querySelector('#canvas').scrollLeft > 0");
    browser.turn(Kind::Desk);
    browser.go("/builds/2");
    browser.click(".follow-run");
    browser.until(".follow-run[aria-pressed=true]", "");
    browser.screenshot("build-followed");
    browser.ask("document.querySelector('#canvas').dispatchEvent(new Event('wheel'))");
    browser.until(".follow-run[aria-pressed=false]", "");
    // A search narrows the tree as one types.
    browser.type_into("#search", "brow");
    browser.until("#tree", "1 job of 12");
    browser.is_within_reach();
    browser.is_content();
}

#[test]
fn a_row_of_the_waterfall_opens_to_its_steps() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built();
    for kind in [Kind::Dark, Kind::Phone, Kind::Desk] {
        browser.turn(kind);
        browser.go("/builds/2?view=time");
        browser.ask("window.stays = true");
        for job in ["docs", "build"] {
            browser.ask(&format!("document.getElementById('steps-{job}').focus()"));
            browser.press("\u{e007}");
            browser.until(&format!("#steps-{job}[aria-expanded=true]"), "▾");
            // Whoever goes by keys stays where they are.
            browser.until_is(&format!("document.activeElement?.id === 'steps-{job}'"));
        }
        browser.until(".time .step a[href*='/jobs/docs?']", "write the pages");
        assert_eq!(browser.ask("document.querySelectorAll('.time .step.passed').length"), 3);
        let within = "(() => { const of = (row) => row.querySelector('rect.passed').getBoundingClientRect(); \
                      const steps = [...document.querySelectorAll('.time .step')].filter((row) => row.querySelector('[href*=docs]')).map(of); \
                      const job = of(document.getElementById('steps-docs').closest('li')); \
                      return steps[0].left >= job.left - 1 && steps[0].right <= steps[1].left + 1 && steps[1].right <= job.right + 1 })()";
        assert_eq!(browser.ask(within), true, "steps stand elsewhere than their job");
        // What was done with a cache stands in the bar.
        let cached =
            "document.querySelector('.time svg[aria-label*=\"cache deps-1 (\"] rect.restoring.cache') !== null";
        assert_eq!(browser.ask(cached), true, "{}", browser.ask("document.querySelector('.time').outerHTML"));
        assert_eq!(browser.ask("window.stays"), true, "the page was loaded anew");
        browser.ask("document.querySelector('.drawn').scrollIntoView()");
        browser.screenshot("build-steps");
        browser.is_within_reach();
        browser.is_content();
    }
    // A search finds steps too, opens what it found so, and leads to the log.
    browser.go("/builds/2?view=time");
    browser.type_into("#search", "links");
    browser.until("#tree", "1 job of 12");
    browser.until(".time .step .found", "find <b>links</b>");
    browser.is_within_reach();
    browser.click(".time .step .found");
    browser.until_is("new URLSearchParams(location.search).get('step') === '1'");
    browser.until_is(&inside("page.querySelector('.steps [aria-current]')?.textContent.includes('find <b>links</b>')"));
    // Without scripts the same links lead there and back.
    let plain = browser;
    plain.turn(Kind::Plain);
    plain.go("/builds/2?view=time");
    plain.click("#steps-docs");
    plain.until(".time .step a[href*='step=1']", "find <b>links</b>");
    plain.click("#steps-docs");
    plain.until("#steps-docs[aria-expanded=false]", "▸");
    assert_eq!(plain.find(".time .step"), None);
}

#[test]
fn a_flame_shows_what_ran_beside_what() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built();
    browser.go("/builds/2?view=flame");
    browser.until("svg.flame", "docs");
    let bars =
        browser.ask("document.querySelectorAll('.flame a.bar:not(.of-step)').length").as_u64().expect("a number");
    assert!(bars >= 11, "{bars} of 11 jobs that ran");
    let name = browser.name(".flame a.of-step[href*='/jobs/docs?']");
    assert!(name.starts_with("write the pages ") && name.ends_with(", passed"), "{name}");
    // No bar lies over another, and steps stand below their job.
    let clear = "(() => { const boxes = [...document.querySelectorAll('.flame a.bar rect')].map((it) => it.getBoundingClientRect()); \
                 return boxes.every((a, i) => boxes.every((b, j) => i <= j || a.right <= b.left + 3 || b.right <= a.left + 3 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1)) })()";
    assert_eq!(browser.ask(clear), true, "bars lie over one another");
    // On every screen: each bar has a size.
    let seen =
        "[...document.querySelectorAll('.flame a.bar rect')].every((it) => it.getBoundingClientRect().width > 0)";
    for kind in [Kind::Phone, Kind::Dark, Kind::Desk] {
        browser.turn(kind);
        browser.go("/builds/2?view=flame");
        browser.until_is(seen);
        browser.ask("document.querySelector('.drawn').scrollIntoView()");
        browser.screenshot("flame");
    }
    let before = browser.ask("document.querySelector('.flame').clientWidth").as_u64().expect("a width");
    browser.press("+");
    let after = browser.ask("document.querySelector('.flame').clientWidth").as_u64().expect("a width");
    assert!(after > before, "{before} {after}");
    browser.press("0");
    // It leads to the log, beside the build.
    browser.ask("document.querySelector(\".flame a.bar.failed\").focus()");
    browser.press("\u{e007}");
    browser.until_is(&inside("page.querySelector('#log .marked .c')?.textContent.includes('got 502')"));
    browser.is_content();
    let plain = browser;
    plain.turn(Kind::Plain);
    plain.go("/builds/2");
    plain.click("#view-flame");
    plain.until("svg.flame", "docs");
}

#[test]
fn whoever_is_quicker_than_the_scripts_goes_without_them() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built();
    // The page's own module does not come: as in the moment before it does.
    browser.command("Network.enable", &json!({}));
    browser.command("Network.setBlockedURLs", &json!({ "urls": ["*/build.js"] }));
    let visit = |path: &str| browser.call("POST", "/url", &json!({ "url": format!("{}{path}", browser.url) }));
    visit("/builds/2?view=time");
    browser.ask("document.getElementById('steps-docs').focus()");
    browser.press("\u{e007}");
    browser.until(".time .step a[href*='step=1']", "find <b>links</b>");
    assert_eq!(browser.path(), "/builds/2?open=docs&view=time");
    browser.type_into("#search", "links\n");
    browser.until("#tree", "1 job of 12");
    browser.until(".time .step .found", "find <b>links</b>");
    browser.click("#tree a[href='/builds/2/jobs/docs']");
    browser.until("#log", "");
    assert_eq!(browser.path(), "/builds/2/jobs/docs");
}

#[test]
fn what_came_out_is_looked_at_and_runs_as_nobody() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built();
    browser.until(".markdown h3", "Coverage");
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
    browser.is_within_reach();
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
    let (_site, _processes, browser) = built();
    browser.click("#build-header button[value=failed]");
    browser.until("#tree", "try 2");
    browser.until("#failure-0", "2 tries side by side");
    browser.click("#failure-0 a[href$='/attempts']");
    browser.until("table.tries thead", "try 2");
    browser.until("table.tries tbody", "exit 1");
    browser.screenshot("tries");
    browser.is_within_reach();
    browser.is_content();
}

/// An expression about the `page` that is shown beside the build, once there is one.
pub fn inside(expression: &str) -> String {
    format!(
        "(() => {{ const page = document.querySelector('.step-panel iframe')?.contentDocument; return page && ({expression}) }})()"
    )
}

#[test]
fn a_job_is_looked_at_beside_its_build() {
    if !has_browser() {
        return;
    }
    let (_site, _processes, browser) = built();
    browser.go("/builds/2");
    let job = "/builds/2/jobs/browser-tests-against-the-staging-site";
    browser.ask("window.stays = true");
    browser.click(&format!("#tree a[href='{job}']"));
    browser.until_is(&inside("page.querySelector('#log .marked .c')?.textContent.includes('got 502')"));
    assert_eq!(browser.path(), "/builds/2?job=browser-tests-against-the-staging-site");
    browser.screenshot("build-panel");
    browser.is_within_reach();
    let too_wide = browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth");
    assert_eq!(too_wide, false, "the page scrolls sideways");
    // Its lines have their names in the address of the whole, and nothing of a page stands around it twice.
    assert_eq!(browser.ask(&inside("page.querySelectorAll('header.top').length")), 0);
    browser.ask(&inside("page.querySelector('#log .marked a.n').click()"));
    browser.until_is("location.hash === '#1:1'");
    // It is as wide as one likes, for the next one too.
    let width = "document.querySelector('.step-panel').getBoundingClientRect().width";
    let before = browser.ask(width).as_f64().expect("a width");
    browser.ask("document.querySelector('.step-panel .edge').focus()");
    browser.press("\u{e012}");
    let after = browser.ask(width).as_f64().expect("a width");
    assert!(after > before, "{before} {after}");
    // It stands below the build if one likes, made higher by the arrows, and so does the next one.
    browser.click(".step-panel .dock");
    let height = "document.querySelector('.step-panel').getBoundingClientRect().height";
    let before = browser.ask(height).as_f64().expect("a height");
    assert_eq!(browser.ask(width), browser.ask("document.documentElement.clientWidth"));
    browser.ask("document.querySelector('.step-panel .edge').focus()");
    browser.press("\u{e013}");
    let after = browser.ask(height).as_f64().expect("a height");
    assert!(after > before, "{before} {after}");
    browser.screenshot("build-panel-below");
    browser.is_within_reach();
    browser.is_content();
    assert_eq!(browser.ask("localStorage.getItem('panel-dock')"), "below");
    browser.click(".step-panel .dock");
    browser.ask(&inside("page.querySelector('#log').focus() ?? true"));
    // It is left by a key, by the browser's own way back, and by its button; the page around it stays.
    browser.ask(&inside(
        "page.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })) && true",
    ));
    browser.until_is(
        "document.querySelector('.step-panel') === null && location.pathname + location.search === '/builds/2'",
    );
    browser.until_is(&format!("document.activeElement?.getAttribute('href') === '{job}'"));
    browser.press("\u{e007}");
    browser.until_is(&inside("page.querySelector('#log .marked') !== null"));
    browser.call("POST", "/back", &json!({}));
    browser.until_is("document.querySelector('.step-panel') === null && location.search === ''");
    assert_eq!(browser.ask("window.stays"), true, "the page was loaded anew");
    // Who is given the address sees the same.
    browser.go("/builds/2?job=browser-tests-against-the-staging-site&step=0#1:1");
    browser.until_is(&inside("page.querySelector('#log .marked .c')?.textContent.includes('got 502')"));
    browser.click(".step-panel header button:last-child");
    browser.until_is("document.querySelector('.step-panel') === null && location.search === ''");
    browser.is_content();
    let phone = browser;
    phone.turn(Kind::Phone);
    phone.go("/builds/2?job=browser-tests-against-the-staging-site");
    phone.until_is(&inside("page.querySelector('#log[data-drawn]') !== null"));
    phone.screenshot("build-panel");
    phone.is_content();
    // Without scripts the link leads to the job's own page.
    let plain = phone;
    plain.turn(Kind::Plain);
    plain.go("/builds/2");
    plain.click(&format!("#tree a[href='{job}']"));
    plain.until("#log .marked .c", "got 502");
    assert_eq!(plain.path(), job);
}

/// What compilers and scripts say of lines.
const ANNOTATED: &str = r#"
name: demo
defaults: { environment: host }
jobs:
  lint: { run: 'echo "::warning file=src/a.rs,line=7::<b>long</b> line"; echo "::notice::all in all"' }
  build: { run: 'seq 1 300; echo "src/main.c:3:5: error: expected expression" >&2; exit 1' }
"#;

#[test]
fn what_steps_say_of_lines_is_listed_by_severity() {
    if !has_browser() {
        return;
    }
    let site = Site::new(ANNOTATED);
    let (_server, _worker) = (site.serve(), site.work("w", &[]).process);
    site.submit(&[], 1);
    let browser = Browser::open(&site, Kind::Desk);
    browser.go("/builds/1");
    browser.until("#annotations", "1 error, 1 warning, 1 notice");
    browser.until("#annotations li:nth-child(1)", "error src/main.c:3:5 expected expression");
    browser.until("#annotations li:nth-child(2)", "warning src/a.rs:7 <b>long</b> line");
    browser.ask("document.querySelector('#annotations').scrollIntoView()");
    browser.screenshot("annotations");
    browser.is_within_reach();
    browser.click("#annotations li:nth-child(1) a");
    browser.until_is(&inside("page.querySelector('#log .marked .c')?.textContent.includes('src/main.c:3:5')"));
    browser.is_content();
    // Without scripts they have a page of their own.
    let plain = browser;
    plain.turn(Kind::Plain);
    plain.go("/builds/1");
    plain.click("#build-header a[href$=annotations]");
    plain.until(".annotations li", "expected expression");
}
