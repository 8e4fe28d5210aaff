//! Jobs as people write them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use graph::{JobName, NeedResult, Outcome};
use ropewalk_worker::Cancel;
use ropewalk_worker::depot::Secrets;
use serde_json::{Value, json};

use crate::Case;
use crate::ground::{MemoryLog, compare, on_ground, secret};

pub const CASES: &[Case] = &[
    ("cases::steps_hand_values_on", steps_hand_values_on),
    ("cases::pipes_are_as_new_for_each_step", pipes_are_as_new_for_each_step),
    ("cases::conditions", conditions),
    ("cases::a_tolerated_failure", a_tolerated_failure),
    ("cases::expressions", expressions),
    ("cases::variables_see_those_of_the_maps_around_theirs", variables_see_those_of_the_maps_around_theirs),
    ("cases::variables_of_one_map_do_not_see_each_other", variables_of_one_map_do_not_see_each_other),
    ("cases::needs_and_artifacts", needs_and_artifacts),
    ("cases::shells", shells),
    ("cases::isolated_jobs_leave_the_tree_alone", isolated_jobs_leave_the_tree_alone),
    ("cases::caches", caches),
    ("cases::a_secret_reaches_no_cache", a_secret_reaches_no_cache),
    ("cases::what_is_kept_for_a_shell_holds_no_secret", what_is_kept_for_a_shell_holds_no_secret),
    ("cases::tests_that_are_asked_for", tests_that_are_asked_for),
    ("cases::restored_caches_are_layers_of_isolated_jobs", restored_caches_are_layers_of_isolated_jobs),
    ("cases::what_a_job_changes_of_a_restored_cache_is_saved", what_a_job_changes_of_a_restored_cache_is_saved),
    ("cases::reports_of_a_failed_job", reports_of_a_failed_job),
    ("cases::reports_of_a_job_that_passed", reports_of_a_job_that_passed),
    ("cases::reports_that_are_links", reports_that_are_links),
    ("cases::tests_in_quarantine", tests_in_quarantine),
    ("cases::secrets_are_hidden", secrets_are_hidden),
    ("cases::a_trivial_job_makes_no_file", a_trivial_job_makes_no_file),
    ("cases::a_changed_input_is_noted", a_changed_input_is_noted),
    ("cases::a_sandbox", a_sandbox),
    ("cases::caches_of_a_sandbox_stay_within_its_walls", caches_of_a_sandbox_stay_within_its_walls),
];

fn pipes_are_as_new_for_each_step() {
    on_ground(&[], async |ground| {
        let (report, log) = ground
            .run(steps(&[
                // Makes its stdout not block, and leaves it so.
                "printf x | dd oflag=nonblock status=none",
                "head -c 3000000 /dev/zero",
                "echo out; echo err >&2",
                "true",
            ]))
            .await;
        assert_eq!(report.outcome, Outcome::passed());
        assert_eq!(log.0.lock().unwrap().bytes, 3_000_005);
        ground
            .check(steps(&["true", "echo next"]), "passed {}\npassed 0: true\npassed 0: echo next\n1 Stdout: next")
            .await;
    });
}

/// A job in the tree itself with these steps.
fn steps(steps: &[&str]) -> Value {
    let steps: Vec<Value> = steps.iter().map(|run| json!({ "run": run })).collect();
    json!({ "workspace": "in_place", "steps": steps })
}

fn steps_hand_values_on() {
    on_ground(&[("bin/tool", "#!/bin/sh\necho tool\n")], async |ground| {
        let mut job = steps(&[
            "chmod +x bin/tool; echo v=1 >> $ROPEWALK_OUTPUT; printf 'long<<E\\na\\nb\\nE\\n' >> $ROPEWALK_OUTPUT",
            "echo FLAG=on >> \"$ROPEWALK_ENV\"; echo $PWD/bin >> \"$ROPEWALK_PATH\"; echo '# Title' >> $ROPEWALK_SUMMARY",
            "echo $FLAG $CI $ROPEWALK $ROPEWALK_BUILD $ROPEWALK_JOB $ROPEWALK_BRANCH $ROPEWALK_COMMIT $ROPEWALK_EVENT; tool",
            "echo v=2 >> $ROPEWALK_OUTPUT; printf more >> $ROPEWALK_SUMMARY; test \"$ROPEWALK_WORKSPACE\" = \"$PWD\"; test -n $ROPEWALK_ATTEMPT",
        ]);
        job["outputs"] = json!(["v", "long"]);
        ground
            .check(
                job,
                r##"
                passed {"long":"a\nb","v":"2"}
                passed 0: chmod +x bin/tool; echo v=1 >> $ROPEWALK_OUTPUT; printf 'long<<E\na\nb\nE\n' >> $ROPEWALK_OUTPUT
                passed 0: echo FLAG=on >> "$ROPEWALK_ENV"; echo $PWD/bin >> "$ROPEWALK_PATH"; echo '# Title' >> $ROPEWALK_SUMM…
                passed 0: echo $FLAG $CI $ROPEWALK $ROPEWALK_BUILD $ROPEWALK_JOB $ROPEWALK_BRANCH $ROPEWALK_COMMIT $ROPEWALK_E…
                passed 0: echo v=2 >> $ROPEWALK_OUTPUT; printf more >> $ROPEWALK_SUMMARY; test "$ROPEWALK_WORKSPACE" = "$PWD";…
                summary: "# Title\nmore\n"
                2 Stdout: on true true 7 unit/1 main c0ffee push
                2 Stdout: tool
                "##,
            )
            .await;
        ground.check(steps(&["echo x${FLAG}x"]), "passed {}\npassed 0: echo x${FLAG}x\n0 Stdout: xx").await;
    });
}

fn conditions() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["exit 3", "echo no", "echo failed", "echo always", "echo kept", "echo wrong"]);
        job["steps"][2]["if"] = json!("failure()");
        job["steps"][3]["if"] = json!("${{ always() }}");
        job["steps"][4]["if"] = json!("success()");
        job["steps"][5]["if"] = json!("nonsense.x");
        ground
            .check(
                job,
                "failed: step 0, exit 3
                failed 3: exit 3
                skipped: echo no
                passed 0: echo failed
                passed 0: echo always
                skipped: echo kept
                skipped: echo wrong
                2 Stdout: failed
                3 Stdout: always",
            )
            .await;
        let mut job = steps(&["echo wrong"]);
        job["steps"][0]["if"] = json!("fromJSON('{')");
        let (report, _) = ground.run(job).await;
        assert!(matches!(report.outcome, Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, .. })));
        assert!(report.notes[0].starts_with("step 1: if: `fromJSON('{')`: "), "{:?}", report.notes);
    });
}

fn a_tolerated_failure() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["exit 3", "echo $OUT $END"]);
        job["steps"][0]["allow_failure"] = json!(true);
        job["steps"][0]["id"] = json!("a");
        job["steps"][1]["env"] = json!({
            "OUT": {"template": "${{ steps.a.outcome }}"}, "END": {"template": "${{ steps.a.conclusion }}${{ steps.a.exit }}"}
        });
        ground.check(job, "passed {}\nfailed 3: exit 3\npassed 0: echo $OUT $END\n1 Stdout: failed passed3").await;
    });
}

fn expressions() {
    on_ground(&[("sub/x", "1"), ("sub/y", "2")], async |ground| {
        let mut job =
            steps(&["echo v=7 >> $ROPEWALK_OUTPUT; mkdir -p sub/.git; echo z > sub/.git/z", "echo $A; cat x"]);
        job["env"] = json!({ "BASE": {"template": "on-${{ event.branch }}"} });
        job["matrix"] = json!({ "shard": 3 });
        job["steps"][0]["id"] = json!("one");
        job["steps"][0]["name"] = json!("first");
        job["steps"][1]["name"] = json!({"template": "step ${{ matrix.shard }}"});
        job["steps"][1]["if"] = json!(
            "steps.one.outputs.v == 7 && hash_files('sub/*') != hash_files('sub/x') && hash_files('no', '**/z') == ''"
        );
        job["steps"][1]["working_directory"] = json!({"template": "${{ 'sub' }}"});
        job["steps"][1]["env"] = json!({
            "A": {"template": "${{ env.BASE }} ${{ steps.one.outputs.v }} ${{ job.status }} ${{ job.id }} ${{ needs.dep.outputs.n }} ${{ needs.dep.result }}"}
        });
        let need = NeedResult {
            result: "passed".to_owned(),
            outputs: [("n".to_owned(), json!(5))].into(),
            artifacts: BTreeMap::new(),
        };
        // As the engine hands them over.
        let mut needs = [(JobName::from("dep/1"), need)].into();
        graph::legs::join(&mut needs, |_| 0);
        let (report, log) = ground.run_with(job, needs, Secrets::default(), Cancel::new(), MemoryLog::default()).await;
        compare(
            &report,
            &log,
            "passed {}
            passed 0: first
            passed 0: step 3
            1 Stdout: on-main 7 passed unit 5 passed
            1 Stdout: 1",
        );
    });
}

fn variables_see_those_of_the_maps_around_theirs() {
    on_ground(&[], async |ground| {
        let written = |text: &str| json!({ "template": text });
        let mut job = steps(&["echo $IMAGE $OS; echo N=2 >> $ROPEWALK_ENV", "echo $A $B $N $ROPEWALK_EXPR_1"]);
        job["env"] = json!({
            "A_IMAGE": "plain", "IMAGE": written("${{ env.REGISTRY }}/app:${{ job.id }}"), "OS": written("${{ env.ON }}-${{ env.NONE }}"),
            "REGISTRY": written("reg-${{ job.id }}"), "ON": "on"
        });
        job["env_of_pipeline"] = json!(["ON", "REGISTRY"]);
        job["steps"][1]["env"] = json!({
            "A": written("${{ env.IMAGE }}"), "B": "b", "N": written("${{ env.N }}0"),
            "ROPEWALK_EXPR_1": written("${{ env.B }} ${{ env.N }} ${{ env.REGISTRY }}")
        });
        ground
            .check(
                job,
                "passed {}
                passed 0: echo $IMAGE $OS; echo N=2 >> $ROPEWALK_ENV
                passed 0: echo $A $B $N $ROPEWALK_EXPR_1
                0 Stdout: reg-unit/app:unit on-
                1 Stdout: reg-unit/app:unit b 20 b 20 reg-unit",
            )
            .await;
    });
}

fn variables_of_one_map_do_not_see_each_other() {
    on_ground(&[], async |ground| {
        let beside = |name: &str| {
            format!(
                "env `B`: it reads `env.{name}`, which is set beside it, and variables of one `env` do not see each other: \
                 write its value here, or set it under a name of its own in the `env` around this one"
            )
        };
        let mut job = steps(&["echo no"]);
        job["env"] = json!({ "A": "a", "B": { "template": "${{ env.A }}/${{ job.id }}" } });
        let (report, _) = ground.run(job.clone()).await;
        assert!(matches!(report.outcome, Outcome::Failed(graph::Failure::Step { step: 0, exit: 1, .. })));
        assert_eq!(report.notes, [beside("A")]);
        job["env_of_pipeline"] = json!(["A", "B"]);
        let (report, _) = ground.run(job.clone()).await;
        assert_eq!(report.notes, [beside("A")]);
        job["env"] = json!({});
        job["steps"][0]["env"] = json!({ "B": { "template": "${{ env.B }}:${{ job.id }}" } });
        let (report, _) = ground.run(job).await;
        assert_eq!(report.notes, [format!("step 1: {}", beside("B"))]);
    });
}

fn needs_and_artifacts() {
    on_ground(&[("keep", "1")], async |ground| {
        let mut job = steps(&["mkdir -p out/deep; echo made > out/deep/app; chmod 755 out/deep/app"]);
        job["workspace"] = json!("isolated");
        job["artifacts"] = json!({ "app": ["out", "keep"] });
        let (made, log) = ground.run(job.clone()).await;
        assert!(matches!(made.outcome, Outcome::Passed { .. }), "{made:?} {:?}", log.0.lock().unwrap().pieces);
        assert_eq!(made.artifacts["app"].files, 2);
        let (again, _) = ground.run(job).await;
        assert_eq!(again.artifacts, made.artifacts, "equal files, equal digest");
        assert!(!ground.root.join("out").exists());

        let need = NeedResult { result: "passed".to_owned(), outputs: BTreeMap::new(), artifacts: made.artifacts };
        let mut job = steps(&["cat out/deep/app; test -x out/deep/app"]);
        job["workspace"] = json!("isolated");
        let needs = [(JobName::from("build"), need)].into();
        let (report, log) = ground.run_with(job, needs, Secrets::default(), Cancel::new(), MemoryLog::default()).await;
        compare(&report, &log, "passed {}\npassed 0: cat out/deep/app; test -x out/deep/app\n0 Stdout: made");

        let mut job = steps(&["true"]);
        job["artifacts"] = json!({ "app": ["dist/*"] });
        ground
            .check(job, "failed: step 0, exit 1\npassed 0: true\nnote: artifact `app`: `dist/*` matches no file")
            .await;
        let mut job = steps(&["ln -s /etc out-link"]);
        job["artifacts"] = json!({ "app": ["out-link"] });
        ground
            .check(job, "failed: step 0, exit 1\npassed 0: ln -s /etc out-link\nnote: artifact `app`: the link `out-link` leads out of the workspace (to `/etc`)")
            .await;
    });
}

fn shells() {
    on_ground(&[], async |ground| {
        let mut job =
            steps(&["false | true; echo no pipefail", "echo ${BASH_VERSION:+bash}; false | true; echo not here"]);
        job["steps"][1]["shell"] = json!("bash");
        ground
            .check(
                job,
                "failed: step 1, exit 1
                passed 0: false | true; echo no pipefail
                failed 1: echo ${BASH_VERSION:+bash}; false | true; echo not here
                0 Stdout: no pipefail
                1 Stdout: bash",
            )
            .await;
        let mut job = steps(&["$a line$", "s/a/b/"]);
        job["steps"][0]["shell"] = json!({ "custom": ["grep", "-c", "line", "{0}"] });
        job["steps"][1]["shell"] = json!({ "custom": ["cat"] });
        ground.check(job, "passed {}\npassed 0: $a line$\npassed 0: s/a/b/\n0 Stdout: 1\n1 Stdout: s/a/b/").await;
    });
}

fn isolated_jobs_leave_the_tree_alone() {
    on_ground(&[("a", "1"), (".gitignore", "ignored\n"), ("ignored", "x")], async |ground| {
        let mut job = steps(&["cat a; echo 2 > a; test ! -e ignored; touch new", "cat a"]);
        job["workspace"] = json!("isolated");
        let (report, log) = ground.run(job).await;
        assert!(matches!(report.outcome, Outcome::Passed { .. }), "{report:?}");
        let text: Vec<u8> = log.0.lock().unwrap().pieces.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
        assert_eq!(String::from_utf8_lossy(&text), "12\n");
        assert_eq!(std::fs::read(ground.root.join("a")).unwrap(), b"1");
        assert!(!ground.root.join("new").exists());
    });
}

fn caches() {
    on_ground(&[("lock", "1")], async |ground| {
        let job = |run: &str| {
            json!({
                "steps": [{ "run": run }],
                "cache": [{ "key": {"template": "k-${{ hash_files('lock') }}"}, "restore": ["k-"], "paths": ["dir", "absent"] }],
            })
        };
        let (report, _) = ground.run(job("mkdir dir; echo 1 > dir/f; exit 1")).await;
        assert!(
            matches!(report.outcome, Outcome::Failed(_)) && ground.depot.keys().is_empty(),
            "saved on success only"
        );
        let passing = [
            job("test ! -e dir; mkdir -p dir/e; echo 1 > dir/f"),
            job("cat dir/f; echo 2 > dir/f; test -d dir/e"),
            job("grep 1 dir/f"),
        ];
        for job in passing {
            let (report, log) = ground.run(job).await;
            assert!(matches!(report.outcome, Outcome::Passed { .. }), "{report:?} {:?}", log.0.lock().unwrap().pieces);
            assert_eq!(ground.depot.keys().len(), 1);
            let is_saved = report.caches[0].saved == graph::CacheSaved::Written;
            let missing =
                |note: &String| note.starts_with("cache `k-") && note.ends_with("without `absent`: nothing is there");
            assert!(report.notes.len() == usize::from(is_saved) && report.notes.iter().all(missing), "{report:?}");
        }
        let mut job = job("grep 1 dir/f");
        job["cache"][0]["key"] = json!("k-other");
        let (report, _) = ground.run(job.clone()).await;
        assert!(matches!(report.outcome, Outcome::Passed { .. }), "restored by prefix");
        assert_eq!(ground.depot.keys().len(), 2);
        let said = "cache `k-glob` was saved without `d*`: nothing is there; paths are taken as they are written, `*` is no pattern in them";
        (job["cache"][0]["key"], job["cache"][0]["paths"]) = (json!("k-glob"), json!(["dir", "d*"]));
        job["steps"][0]["run"] = json!("mkdir dir");
        let (report, _) = ground.run(job.clone()).await;
        assert_eq!(report.notes, [said]);
        job["cache"][0]["paths"] = json!(["../x"]);
        job["steps"][0]["run"] = json!("true");
        let (report, _) = ground.run(job).await;
        assert!(report.notes[0].contains("`../x` cannot be cached"), "{:?}", report.notes);
    });
}

fn a_secret_reaches_no_cache() {
    on_ground(&[], async |ground| {
        for (key, run, note) in [
            ("k-1", "mkdir dir; echo fine > dir/f; echo \"password $TOKEN\" > dir/netrc", "dir/netrc"),
            ("k-1", "mkdir dir; echo fine > dir/f; ln -s f dir/link", ""),
            ("k-2", "echo fine > \"dir/of-$TOKEN\"", "dir/of-***"),
            ("k-2", "ln -sf /of/$TOKEN dir/link", "dir/link"),
            ("k-2", "echo $TOKEN >> dir/f", "dir/f"),
        ] {
            let job = json!({
                "steps": [{ "run": run }],
                "workspace": "isolated",
                "cache": [{ "key": key, "restore": ["k-"], "paths": ["dir"] }],
            });
            let secrets = secret("TOKEN", "hunter2");
            let (report, _) = ground.run_with(job, BTreeMap::new(), secrets, Cancel::new(), MemoryLog::default()).await;
            assert!(matches!(report.outcome, Outcome::Passed { .. }), "{report:?}");
            let expected: Vec<String> = match note {
                "" => Vec::new(),
                path => vec![format!(
                    "cache `{key}` was not saved: `{path}` holds one of the job's secrets, which other builds would find there: keep the file out of the cache's paths, \
                     or, if the value is none (a user's name, say), give it by `env`"
                )],
            };
            assert_eq!(report.notes, expected, "{run}");
        }
        assert_eq!(ground.depot.keys(), ["k-1"]);
    });
}

fn what_is_kept_for_a_shell_holds_no_secret() {
    on_ground(&[], async |ground| {
        let job = json!({ "workspace": "isolated", "steps": [
            { "run": "mkdir of-$TOKEN; echo \"OF_$TOKEN=1\" >> $ROPEWALK_ENV; echo OTHER=$TOKEN >> $ROPEWALK_ENV" },
            { "run": "true", "working_directory": "of-hunter2" },
            { "run": "exit 1", "working_directory": "of-hunter2" },
        ] });
        let secrets = secret("TOKEN", "hunter2");
        ground.run_with(job, BTreeMap::new(), secrets, Cancel::new(), MemoryLog::default()).await;
        let file = ropewalk_worker::environment_file(&ground.data, graph::BuildId(7), ground.last_attempt());
        let left = std::fs::read_to_string(file).unwrap();
        assert!(left.contains("OTHER") && !left.contains("hunter2"), "{left}");
        let left: ropewalk_worker::LeftBehind = serde_json::from_str(&left).unwrap();
        assert!(left.steps.iter().all(|step| step.directory == left.directory), "{left:?}");
    });
}

fn restored_caches_are_layers_of_isolated_jobs() {
    on_ground(&[("a/b/tracked", "1"), ("a/b/c/replaced", "of the tree")], async |ground| {
        let job = |key: &str, run: &str| {
            let mut job = steps(&[run]);
            job["workspace"] = json!("isolated");
            job["cache"] = json!([{ "key": key, "restore": ["k-"], "paths": ["a/b/c", "other"] }]);
            job
        };
        let passing = [
            (
                "k-1",
                "mkdir -p a/b/c/d other; echo 1 > a/b/c/d/f; echo 2 > a/b/c/g; echo 3 > other/h; echo 4 > a/b/c/replaced",
            ),
            // What a job does to restored files is its own.
            (
                "k-2",
                "cat a/b/tracked && grep 1 a/b/c/d/f && grep 4 a/b/c/replaced && echo new >> a/b/c/d/f && rm a/b/c/g && rm -r other",
            ),
            ("k-1", "grep 2 a/b/c/g && grep 3 other/h && ! grep new a/b/c/d/f && rm -r a"),
            (
                "k-2",
                "grep new a/b/c/d/f && grep 4 a/b/c/replaced && test ! -e a/b/c/g && test ! -e other && cat a/b/tracked",
            ),
        ];
        let mut told = Vec::new();
        for (key, run) in passing {
            let (report, log) = ground.run(job(key, run)).await;
            assert!(matches!(report.outcome, Outcome::Passed { .. }), "{report:?} {:?}", log.0.lock().unwrap().pieces);
            let without = if run.ends_with("rm -r other") {
                &["cache `k-2` was saved without `other`: nothing is there"][..]
            } else {
                &[]
            };
            assert_eq!(report.notes, without);
            let cache = &report.caches[0];
            told.push(format!("{} {:?} {} {:?}", cache.key, cache.found, cache.found_key, cache.saved));
        }
        assert_eq!(told, ["k-1 Nothing  Written", "k-2 Prefix k-1 Written", "k-1 Key k-1 Not", "k-2 Key k-2 Not"]);
        let layers = std::fs::read_dir(ground.data.join("cache-layers")).unwrap().flatten();
        let layers = layers.flat_map(|place| std::fs::read_dir(place.path()).unwrap().flatten());
        let trees: Vec<PathBuf> = layers.map(|layer| layer.path().join("tree")).collect();
        assert_eq!(trees.len(), 2, "one of each entry, used again");
        let inode = |tree: &PathBuf| std::fs::metadata(tree.join("a/b/c/replaced")).unwrap().ino();
        assert_eq!(inode(&trees[0]), inode(&trees[1]), "what did not change is there once");
    });
}

/// Each change is made by a job to which the entry is shown as a layer; what the job saw at its end is what the next one is given.
fn what_a_job_changes_of_a_restored_cache_is_saved() {
    const FILL: &str = "mkdir -p c/d/e c/x/y two/many; for n in $(seq 80); do echo $n > two/many/$n; done; for n in 1 2 3; do echo $n > c/$n; echo d$n > c/d/$n; echo e$n > c/d/e/$n; echo $n > c/x/y/$n; done; \
                        echo more > two/f; ln -s 1 c/link; chmod 700 c/2";
    const LIST: &str = "find c two -type f -printf '%p %m %T@\\n' -o -printf '%p %y %l\\n' | sort; find c two -type f | sort | xargs grep .; true";
    let changes = [
        "true",
        "echo new > c/1; echo more >> c/d/2; echo fresh > c/d/4; rm c/3; rm -r c/x/y; chmod 600 c/2",
        "rm c/1; mkdir c/1; echo below > c/1/f; rm -r c/d; echo file > c/d; ln -sf 3 c/link",
        "rm -r c/d; mkdir c/d; echo alone > c/d/5",
        "rm -r c; mkdir -p c/x; echo alone > c/x/5",
        "mv c/x c/moved; mv c/d/e c/e; touch -d @1000000000 c/3; ln c/1 c/again",
        "rm -r two; mkdir -p c/x/y/deep/er; truncate -s 0 c/x/y/2",
        "rm -r two; ln -s c two; rm -r c/d; ln -s x c/d",
    ];
    on_ground(&[("tracked", "1")], async |ground| {
        for (number, change) in std::iter::once(FILL).chain(changes).enumerate() {
            let run = async |script: String| {
                let mut job = steps(&[&format!("exec 2>&1; {script}")]);
                job["workspace"] = json!("isolated");
                job["cache"] = json!([{ "key": format!("k-{number}"), "restore": ["k-0"], "paths": ["c", "two"] }]);
                let (report, log) = ground.run(job).await;
                assert!(matches!(report.outcome, Outcome::Passed { .. }), "{report:?}");
                let pieces = &log.0.lock().unwrap().pieces;
                let bytes: Vec<u8> = pieces.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
                (String::from_utf8_lossy(&bytes).into_owned(), report.caches[0].found)
            };
            let (seen, _) = run(format!("{change}; {LIST}")).await;
            let (given, found) = run(LIST.to_owned()).await;
            assert_eq!((given, found), (seen, graph::CacheFound::Key), "{change}");
        }
        let places = std::fs::read_dir(ground.data.join("cache-layers")).unwrap().flatten();
        let layers = places.flat_map(|place| std::fs::read_dir(place.path()).unwrap().flatten());
        let names: Vec<_> = layers.map(|layer| layer.file_name().into_string().unwrap()).collect();
        let thin = names.iter().filter(|name| name.starts_with("thin-")).count();
        assert_eq!(
            (thin, names.len()),
            (changes.len() - 1, changes.len()),
            "one is whole, the others stand on it: {names:?}"
        );
    });
}

fn reports_of_a_failed_job() {
    on_ground(&[], async |ground| {
        let mut job = steps(&[
            "mkdir r; echo \"<testsuite><testcase name='t'><failure/></testcase></testsuite>\" > r/a.xml; echo '<oops' > r/b.xml; exit 1",
        ]);
        job["steps"][0]["name"] = json!("tests");
        job["reports"] = json!({ "junit": ["r/*.xml"] });
        ground
            .check(
                job,
                "failed: step 0, exit 1
                failed 1: tests
                note: report `r/b.xml`: not well-formed XML at byte 0: syntax error: tag not closed: `>` not found before end of input
                test: t Failed",
            )
            .await;
        let mut job = steps(&["true"]);
        job["reports"] = json!({ "junit": ["none/*.xml"] });
        ground.check(job, "passed {}\npassed 0: true\nnote: no report matches `none/*.xml`").await;
    });
}

fn reports_of_a_job_that_passed() {
    on_ground(&[], async |ground| {
        let mut job = steps(&[
            "mkdir r; echo \"<testsuite><testcase name='a'/><testcase name='b'><failure/></testcase><testcase name='c'><error/></testcase></testsuite>\" > r/a.xml",
        ]);
        job["steps"][0]["name"] = json!("tests");
        job["reports"] = json!({ "junit": ["s/*.xml", "r/*.xml", "t.xml", "!r/b.xml"] });
        ground
            .check(
                job,
                "passed {}
                passed 0: tests
                note: no report matches `s/*.xml`, `t.xml`
                note: 2 tests of its reports failed, `b` among them; the job passes, since its steps decide
                test: a Passed
                test: b Failed
                test: c Errored",
            )
            .await;
    });
}

fn reports_that_are_links() {
    on_ground(&[], async |ground| {
        let mut job =
            steps(&["mkdir -p r; echo \"<testsuite><testcase name='t'><failure/></testcase></testsuite>\" > r/1.xml
             ln -sf r/1.xml j.xml; ln -sf /etc/passwd k.xml; ln -sf gone l.xml; ln -sf r/1.xml m.xml; exit 1"]);
        job["steps"][0]["name"] = json!("tests");
        job["reports"] = json!({ "junit": ["*.xml"] });
        let told = "failed: step 0, exit 1
                failed 1: tests
                note: report `k.xml`: it is a link out of the project's folder, or with an absolute path; one within it by a relative path is followed
                note: report `l.xml`: it is a link that leads to nothing, or to no file
                test: t Failed";
        ground.check(job.clone(), told).await;
        job["reports"] = json!({ "junit": ["**/*.xml"] });
        ground.check(job, told).await;
    });
}

/// A script runs what `ROPEWALK_TESTS` names, and everything without it.
const RUNNER: &str = r#"{ echo '<testsuite name="s">'
for name in $(if [ -n "${ROPEWALK_TESTS+x}" ]; then printf '%s\n' "$ROPEWALK_TESTS" | cut -f2; else echo a b c; fi); do
echo "<testcase name='$name'/>"; done; echo '</testsuite>'; } > r.xml; echo "asked ${ROPEWALK_TESTS-for all}"; mkdir -p d; echo > d/x"#;

fn tests_that_are_asked_for() {
    on_ground(&[], async |ground| {
        let mut job = steps(&[RUNNER]);
        job["steps"][0]["name"] = json!("tests");
        job["reports"] = json!({ "junit": ["r.xml"] });
        job["cache"] = json!([{ "key": "k", "restore": [], "paths": ["d"] }]);
        let name = |name: &str| graph::TestName { suite: "s".to_owned(), name: name.to_owned() };
        let asked = graph::AskedTests {
            tests: vec![name("a"), name("c")],
            others_failed: Vec::new(),
            of: 3,
            after: graph::AttemptNumber(0),
            never_run: None,
        };
        *ground.asked.borrow_mut() = Some(Arc::new(asked));
        let expected =
            "passed {}\npassed 0: tests\ntest: a Passed\ntest: c Passed\n0 Stdout: asked s\ta\n0 Stdout: s\tc";
        let (report, log) = ground.run(job.clone()).await;
        compare(&report, &log, expected);
        assert_eq!(report.caches[0].saved, graph::CacheSaved::Not, "what some tests leave is not saved");
        *ground.asked.borrow_mut() = None;
        let whole =
            "passed {}\npassed 0: tests\ntest: a Passed\ntest: b Passed\ntest: c Passed\n0 Stdout: asked for all";
        let (report, log) = ground.run(job).await;
        compare(&report, &log, whole);
        assert_eq!(report.caches[0].saved, graph::CacheSaved::Written);
    });
}

fn tests_in_quarantine() {
    on_ground(&[], async |ground| {
        let mut job = steps(&["printf '%s\\n' \"${ROPEWALK_QUARANTINE-nothing}\"; test -z \"$ROPEWALK_QUARANTINE\""]);
        job["steps"][0]["name"] = json!("tests");
        let name = |name: &str| graph::TestName { suite: "s".to_owned(), name: name.to_owned() };
        *ground.quarantine.borrow_mut() = vec![name("a"), name("b")];
        // The script alone says what comes of it.
        let expected = "failed: step 0, exit 1\nfailed 1: tests\nnote: 2 tests are in quarantine; the steps find them in `ROPEWALK_QUARANTINE`\n0 Stdout: s\ta\n0 Stdout: s\tb";
        ground.check(job.clone(), expected).await;
        ground.quarantine.borrow_mut().clear();
        ground.check(job, "passed {}\npassed 0: tests\n0 Stdout: nothing").await;
    });
}

fn secrets_are_hidden() {
    on_ground(&[], async |ground| {
        let mut job = steps(&[
            "echo v=a$TOKEN >> $ROPEWALK_OUTPUT; echo s $TOKEN >> $ROPEWALK_SUMMARY; echo \"oops $TOKEN\" >> $ROPEWALK_PATH; echo \"bad $TOKEN\" >> $ROPEWALK_ENV",
        ]);
        job["steps"][0]["name"] = json!("hunter2 step");
        job["outputs"] = json!(["v"]);
        let (report, _) = ground
            .run_with(job, BTreeMap::new(), secret("TOKEN", "hunter2"), Cancel::new(), MemoryLog::default())
            .await;
        let whole = serde_json::to_string(&report).unwrap();
        assert!(!whole.contains("hunter2"), "{whole}");
        compare(
            &report,
            &MemoryLog::default(),
            r#"failed: step 0, exit 1
            failed 0: *** step
            note: the output `v` held the secret `TOKEN` and was handed on with `***` in its place: give the secret to the jobs that read it
            note: step 1: $ROPEWALK_ENV: line 1: `bad ***` is neither `name=value` nor `name<<DELIMITER`
            summary: "s ***\n""#,
        );
        assert_eq!(report.steps[0].outputs["v"], "a***");
    });
}

fn a_trivial_job_makes_no_file() {
    on_ground(&[], async |ground| {
        ground.check(steps(&["true"]), "passed {}\npassed 0: true").await;
        let count = |path: &std::path::Path| std::fs::read_dir(path).unwrap().count();
        let slot = ground.worker.scratch().join("slot-1");
        assert_eq!((count(&slot), count(ground.worker.scratch()), count(&ground.root)), (0, 1, 1));
        assert_eq!(count(&ground.data), 2, "nothing but the scratch directory and that of workspaces");
        assert_eq!(count(&ground.data.join("workspaces")), 0);
    });
}

fn a_changed_input_is_noted() {
    on_ground(&[("in", "1"), ("other", "1")], async |ground| {
        let mut job = steps(&["echo 2 > in"]);
        job["reuse"] = json!({ "inputs": ["in"] });
        ground.check(job.clone(), "passed {}\npassed 0: echo 2 > in\nnote: an input changed while the job ran: in; its result is not kept for reuse").await;
        job["steps"][0]["run"] = json!("echo 2 > other");
        ground.check(job, "passed {}\npassed 0: echo 2 > other").await;
    });
}

fn is_without_sandbox() -> bool {
    let is_without = ropewalk_worker::sandbox::Sandbox::probe().is_err();
    if is_without {
        assert!(std::env::var_os("CI").is_none(), "a sandbox is needed");
        println!("skipped: no sandbox can be had here");
    }
    is_without
}

fn a_sandbox() {
    if is_without_sandbox() {
        return;
    }
    on_ground(&[("in/a", "1"), ("secret", "2")], async |ground| {
        let mut job = steps(&[
            "cat in/a; test ! -e secret; echo v=1 >> $ROPEWALK_OUTPUT; touch /usr/x 2>/dev/null || echo read-only",
        ]);
        job["steps"][0]["name"] = json!("walls");
        job["workspace"] = json!("isolated");
        job["environment"] = json!({ "sandbox": {} });
        job["reuse"] = json!({ "inputs": ["in/**"] });
        job["outputs"] = json!(["v"]);
        ground.check(job, "passed {\"v\":\"1\"}\npassed 0: walls\n0 Stdout: 1read-only").await;
    });
}

fn caches_of_a_sandbox_stay_within_its_walls() {
    if is_without_sandbox() {
        return;
    }
    on_ground(&[("h/.tool/x", "mine\n")], async |ground| {
        // Not in /tmp, which a sandbox has of its own.
        let home = tempfile::tempdir_in("/var/tmp").expect("a home");
        std::fs::create_dir(home.path().join(".ssh")).expect("a directory");
        std::fs::write(home.path().join(".ssh/id"), "key").expect("written");
        let machines = home.path().to_str().expect("a path");
        let job = |home: &str, path: &str, run: &str| {
            json!({
                "steps": [{ "run": run, "name": "step" }],
                "workspace": "isolated",
                "environment": { "sandbox": { "network": "off" } },
                "env": { "HOME": home },
                "cache": [{ "key": path, "paths": [path] }],
            })
        };
        let refused = |path: &str, done: &str| {
            format!(
                "note: cache `{path}` was not {done}: `{path}` cannot be cached: a job in a sandbox cannot write to the home directory of the machine: \
                 set HOME to a folder in /tmp, such as /tmp/home, or in the workspace by the job's `env`\n"
            )
        };
        let both = |path: &str| refused(path, "restored") + &refused(path, "saved");
        let passed = "passed {}\npassed 0: step\n";

        // From a folder of the workspace, as if that were the home, into the machine's home.
        let of_workspace = ground.root.join("h");
        ground.check(job(of_workspace.to_str().expect("a path"), "~/.tool", "true"), passed).await;
        assert_eq!(ground.depot.keys(), ["~/.tool"]);
        ground.check(job(machines, "~/.tool", "true"), &(passed.to_owned() + &both("~/.tool"))).await;
        ground.check(job("/", "~/.tool", "true"), &(passed.to_owned() + &both("~/.tool"))).await;
        assert!(!home.path().join(".tool").exists());
        let text = "passed {}\npassed 0: step\n0 Stdout: mine";
        ground.check(job("/tmp/home", "~/.tool", "cat /tmp/home/.tool/x"), text).await;

        // What the machine's home holds.
        ground.check(job(machines, "~/.ssh", "true"), &(passed.to_owned() + &both("~/.ssh"))).await;
        ground.check(job("/tmp/../etc", "~/.ssh", "true"), &(passed.to_owned() + &both("~/.ssh"))).await;
        let run = format!("ln -s {machines} /tmp/link; echo HOME=/tmp/link >> $ROPEWALK_ENV");
        let note =
            "note: cache `~/.ssh` was not saved: `link` is a symbolic link, and is not followed out of the workspace";
        ground.check(job("/tmp", "~/.ssh", &run), &(passed.to_owned() + note)).await;
        assert_eq!(ground.depot.keys(), ["~/.tool"]);
    });
}
