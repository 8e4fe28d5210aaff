//! Results are taken over within a project, from builds that are trusted as much, and from machines of the same kind.

use std::fs;

use crate::installation::Site;

#[test]
fn no_project_takes_what_another_made() {
    let site = Site::new("jobs: { made: { reuse: true, run: echo made } }");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    let made = "made | made";
    assert!(site.submit(&[], 0).contains(made));
    assert!(site.submit(&["--separate"], 0).contains("made: cached, from build 1"));
    let text = site.submit(&["--project", "ropes"], 0);
    assert!(text.contains(made) && !text.contains("cached"), "{text}");
    let text = site.submit(&["--project", "ropes", "--separate"], 0);
    assert!(text.contains("made: cached, from build 3"), "{text}");
}

#[test]
fn no_untrusted_build_takes_what_was_made_with_secrets() {
    let pipeline = "jobs:\n  config: { reuse: true, secrets: [TOKEN], run: 'rev <<< $TOKEN > conf', artifacts: { conf: [conf] }, shell: bash }\n  use: { needs: [config], run: cat conf }\n";
    let site = Site::new(pipeline);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    site.put_secret("TOKEN", b"a long secret");
    assert!(site.submit(&[], 0).contains("use | terces gnol a"));
    assert!(site.submit(&["--separate"], 0).contains("config: cached, from build 1"));
    site.submit_untrusted("fork");
    site.shows("3", "builds of untrusted events get no secrets");
    site.shows("3", "failed because of `config`");
}

#[test]
fn no_job_takes_what_ran_on_another_kind_of_machine() {
    let job = |name: &str| format!("  {name}: {{ labels: [{name}], inputs: [], run: 'test -e {{}}' }}\n");
    let site = Site::new("jobs: {}");
    let mark = site.path("mark").display().to_string();
    let jobs = format!("jobs:\n{}{}", job("arm"), job("x86")).replace("{}", &mark);
    fs::write(site.root().join(".ropewalk/pipeline.yaml"), jobs).expect("a file");
    let _server = site.serve();
    let worker = site.work("w1", &["--labels", "x86"]);
    fs::write(&mark, "").expect("a file");
    let build = site.submit_only(&[]);
    site.shows(&build, "no worker");
    site.shows(&build, "✓  x86  passed");
    fs::remove_file(&mark).expect("it is there");
    drop(worker);
    let _worker = site.work("w2", &["--labels", "arm"]);
    site.shows(&build, "failed because of `arm`");
}

/// A tool that goes by times alone makes anew what another worker made of other sources, and keeps what the same worker made of these.
#[test]
fn no_worker_takes_what_another_made_of_other_sources_for_fresh() {
    let site = Site::new("jobs: {}");
    let make =
        "mkdir -p out; if [ ! out/made -nt source ]; then cp source out/made; echo made anew; fi; grep good out/made";
    let submit = |worker: &str, source: &str, code: i32| {
        let job = format!("labels: [{worker}], retry: {{ max: 0 }}, cache: {{ key: made, paths: [out] }}, shell: sh");
        let pipeline = format!("jobs:\n  make: {{ {job}, run: '{make}' }}\n");
        fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
        fs::write(site.root().join("source"), source).expect("a file");
        site.submit(&["--separate"], code)
    };
    let _server = site.serve();
    let _workers = ["first", "second"].map(|name| site.work(name, &["--labels", name]));
    assert!(submit("second", "bad", 1).contains("make | made anew"));
    assert!(submit("first", "good", 0).contains("make | made anew"));
    let text = submit("first", "good", 0);
    assert!(text.contains("make | good") && !text.contains("made anew"), "{text}");
    let text = submit("second", "bad", 1);
    assert!(text.contains("make | made anew") && text.contains("make: failed"), "{text}");
}

#[test]
fn no_build_takes_what_was_evicted() {
    let site = Site::new("jobs: { made: { reuse: true, run: 'echo it > f', artifacts: { f: [f] } } }");
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    assert!(site.submit(&[], 0).contains("made: passed"));
    assert!(site.submit(&["--separate"], 0).contains("made: cached, from build 1"));
    site.evict("made");
    let text = site.submit(&["--separate"], 0);
    assert!(text.contains("made: passed") && !text.contains("cached"), "{text}");
    assert!(site.submit(&["--separate"], 0).contains("made: cached, from build 3"));
}

/// Both have the same program, but for what lies beside it.
#[test]
fn no_project_is_given_the_program_of_another() {
    let site = Site::new("jobs: {}\n");
    fs::remove_file(site.root().join(".ropewalk/pipeline.yaml")).expect("a file");
    let program = "mod helper;\n\nfn main() {\n    ropewalk::Ci::main(|ci: &ropewalk::Ci| drop(ci.job(\"a\").run(helper::SCRIPT)))\n}\n";
    let write = |name: &str, text: &str| fs::write(site.root().join(".ropewalk").join(name), text).expect("a file");
    write("pipeline.rs", program);
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    for (project, word) in [("ropes", "first"), ("sails", "second"), ("ropes", "first")] {
        write("helper.rs", &format!("pub const SCRIPT: &str = \"echo {word}\";\n"));
        let text = site.submit(&["--project", project, "--separate"], 0);
        assert!(text.contains(&format!("a | {word}\n")), "{project}: {text}");
    }
}
