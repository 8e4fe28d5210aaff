//! Schemathesis against a server with something in it: no fault of the server's, no answer that the OpenAPI document does
//! not name. `cargo xtask test` installs it into `target/schemathesis`.

use std::path::{Path, PathBuf};
use std::process::Command;

use api::client::Client;
use api::project::{ProjectSettings, SecretValue};
use graph::{Failure, Outcome};
use store::log::StepEnd;

use super::site::{Worker, log_section};
use super::{GATED, ONE, Served, asked, run};

/// How long it may test, in seconds.
const SECONDS_MAX: u32 = 60;
/// The same requests every time.
const SEED: u32 = 20_261_121;
/// What it looks at in each answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method";

fn program() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/schemathesis/bin/schemathesis");
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "schemathesis is missing: `cargo xtask test` installs it");
    eprintln!("skipped: schemathesis is not in target/schemathesis; `cargo xtask test` installs it");
    None
}

/// A project with a build that passed, one that failed, and one whose gate waits.
async fn fill(served: &Served, admin: &Client) {
    admin.project_put("sails", &ProjectSettings::default()).await.unwrap();
    admin.secret_put("sails", "TOKEN", &SecretValue { value: "hush".to_owned() }).await.unwrap();
    let mut worker = Worker::join(&served.site, "w1", []).await;
    let failed = Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None });
    for (name, outcome) in [("hello", Outcome::passed()), ("hallo", failed)] {
        let build = asked(served, admin, &ONE.replace("hello", name)).await;
        let start = worker.start().await;
        let log = log_section(&start.spec, 0, 0, b"hello\nworld\n", Some(StepEnd::Closed));
        worker.say(&served.site, &[log]).await;
        worker.end(&served.site, &start.spec, outcome).await;
        served.site.ended(build).await;
    }
    asked(served, admin, GATED).await;
}

#[test]
fn every_answer_is_documented() {
    let Some(program) = program() else { return };
    run(async {
        let served = Served::new().await;
        let admin = served.admin();
        fill(&served, &admin).await;
        let token = served.token(&[server::access::Verb::Admin], None, None);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(folder.path())
            .args(["run", "--no-color", "--continue-on-failure", "--no-shrink", "--workers", "1"])
            .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--checks", CHECKS])
            .args(["--max-time", &SECONDS_MAX.to_string(), "--seed", &SEED.to_string()])
            .args(["--generation-database", "none", "--request-timeout", "10", "--suppress-health-check", "all"])
            .args(["--warnings", "off", "--header", &format!("Authorization: Bearer {token}")])
            // These two have no end while something goes on.
            .args(["--exclude-operation-id", "events", "--exclude-operation-id", "build_stream"])
            .arg(format!("{}/openapi.json", served.address));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let last: Vec<&str> = told.lines().rev().take(12).collect();
        for line in last.into_iter().rev() {
            println!("{line}");
        }
        assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(admin.health().await.is_ok());
        served.end().await;
    });
}
