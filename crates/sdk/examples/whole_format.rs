//! The pipeline that stands in four notations in `crates/dialects/tests/native/notation_*`, as a program: the same graph.

use std::time::Duration;

use ropewalk::condition::{actor, branch, tag};
use ropewalk::hook::{manual, on, push, schedule};
use ropewalk::{Cache, Ci, Concurrency, Data, Environment, Matrix, Network, Retry, RetryOn, Step, field};

#[derive(Data)]
#[allow(dead_code, reason = "only the names of the choices count here")]
enum Region {
    #[data("eu")]
    Europe,
    #[data("us")]
    America,
}

fn release(ci: &Ci) {
    ci.name("release");
    ci.env("RUST_BACKTRACE", "1");
    ci.env("LEVEL", 3);
    ci.defaults().environment(Environment::sandbox(Network::On)).timeout(Duration::from_secs(20 * 60));
    ci.stages(["check", "ship"]);

    let lint = ci.job("lint").stage("check").run("cargo clippy --all-targets").input_files(["src/**", "Cargo.*"]);

    let build = ci
        .job("build")
        .stage("check")
        .artifact("app", "target/release/app")
        .cache(Cache::new("cargo-${{ hash_files('Cargo.lock') }}", ["target", "~/.cargo/registry"]).restore(["cargo-"]))
        .run("cargo build --release")
        .step(
            Step::sh(r#"echo "version=$(./target/release/app --version)" >> "$ROPEWALK_OUTPUT""#)
                .name("version")
                .id("v"),
        )
        .step(
            Step::sh("echo \"built $V\"\necho 'on ${{ event.branch }}'\n")
                .name("tell")
                .run_if("steps.v.outputs.version != '' && failure() == false")
                .env("V", "${{ steps.v.outputs.version }}")
                .working_directory("docs")
                .timeout(Duration::from_secs(30))
                .allow_failure(),
        );
    let version = build.output::<String>("version");

    let test = ci
        .job("test")
        .stage("check")
        .needs(&build)
        .matrix(
            Matrix::new()
                .axis("os", ["linux"])
                .axis("shard", [1, 2, 3])
                .axis("ratio", [0.5])
                .include([("os", "linux".into()), ("shard", 9.into()), ("slow", ropewalk::Json::Bool(true))])
                .exclude([("shard", 2)]),
        )
        .title("test ${{ matrix.shard }}")
        .run_if(format!("event.kind == 'push' || {} != '0'", version.path()))
        .run("./ci/test.sh ${{ matrix.shard }}")
        .junit("results/*.xml")
        .retry(
            Retry::times(2)
                .on([RetryOn::Infra, RetryOn::Lost, RetryOn::Exit(vec![75])])
                .backoff(Duration::from_secs(5)),
        )
        .cpu(2)
        .memory("4GiB")
        .labels("fast-disk")
        .pool("linux-x86_64");

    ci.job("report").after_finished(&test).cleanup().run("./ci/report.sh");

    ci.job("deploy")
        .stage("ship")
        .needs((&build, &test, &lint))
        .when(branch("main") & !actor("bot-.*"))
        .gate(format!("Ship {}?", version.expression()))
        .gate_field(field::<String>("notes"))
        .gate_field(field::<Region>("region"))
        .run("./ci/ship.sh ${{ gate.region }}")
        .secrets(["DEPLOY_TOKEN"])
        .concurrency(Concurrency::cancel_waiting("production"))
        .retry(0);
}

fn main() {
    let params = manual()
        .param(field::<String>("version").default("1.0").help("what to release"))
        .param(field::<bool>("dry_run").default(true));
    Ci::main([on(push().branch(["main", "release/.*"]))
        .or(tag("v.*"))
        .or(schedule("0 3 * * *").timezone("Europe/Paris"))
        .or(params)
        .run(release)]);
}
