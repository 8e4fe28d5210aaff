//! The keys of the native format that `whole_format` does not use; beside it stands `crates/dialects/tests/program_parity/other_keys.yaml`, which says the same.

use std::time::Duration;

use ropewalk::condition::{all, any, branch, changed, event, not, param, tag};
use ropewalk::{
    Cache, Child, Ci, Concurrency, Environment, EventKind, Json, Matrix, Network, Pull, Retry, RetryOn, Reuse, Service,
    Step, Workspace, field,
};

fn keys(ci: &Ci) {
    ci.name("other keys");
    ci.defaults()
        .environment(Environment::sandbox(Network::On))
        .timeout(Duration::from_secs(1200))
        .shell("bash")
        .working_directory("app")
        .workspace(Workspace::Isolated)
        .retry(1)
        .labels(["fast"])
        .pool("big")
        .cpu(2);

    let every = ci
        .job("all")
        .environment(Environment::sandbox(Network::Off))
        .workspace(Workspace::InPlace)
        .shell("python3 -u {0}")
        .working_directory("other")
        .timeout(Duration::from_millis(5_400_250))
        .retry(
            Retry::times(3)
                .on([
                    RetryOn::Infra,
                    RetryOn::Timeout,
                    RetryOn::Step,
                    RetryOn::Exit(vec![75, 2]),
                    RetryOn::Exit(vec![1]),
                ])
                .backoff(Duration::from_secs(5)),
        )
        .cpu(0.5)
        .memory("4GiB")
        .labels("fast-disk")
        .pool("linux")
        .allow_failure()
        .cleanup()
        .junit(["r/*.xml", "s/*.xml"])
        .artifact("app", "bin/app")
        .artifact("docs", ["doc/**", "!doc/x"])
        .cache(Cache::new("k-${{ hash_files('lock') }}", ["target", "~/.cache/x"]).restore("k-"))
        .cache(Cache::new("second", "b"))
        .concurrency(Concurrency::cancel_running("deploy-${{ event.branch }}"))
        .outputs(["a", "b"])
        .env("GREETING", "hello ${{ event.branch }}")
        .env("N", 1)
        .env("FLAG", false)
        .step(
            Step::sh("print(1)")
                .name("step ${{ event.branch }}")
                .timeout(Duration::from_secs(30))
                .allow_failure()
                .outputs(["a"])
                .working_directory("sub")
                .shell(["sh", "-eu", "{0}"])
                .env("N", 1)
                .env("T", true),
        )
        .steps(["print(2)", "print(3)"]);

    ci.job("some")
        .environment(Environment::host())
        .artifacts("dist/**")
        .concurrency("one")
        .gate("Really?")
        .input_files([""; 0])
        .reuse(Reuse::Always)
        .run("true");
    ci.job("image").environment(Environment::image("rust:${{ event.branch }}")).reuse(Reuse::Never).run("true");
    ci.job("file").environment(Environment::dockerfile("ci/Dockerfile")).artifacts(["a", "b"]).run("true");
    ci.job("container")
        .environment(
            Environment::image("a")
                .entrypoint(["tini", "--"])
                .user("1000")
                .network(Network::Off)
                .platform("linux/arm64")
                .pull(Pull::Always)
                .login("LOGIN"),
        )
        .service("cache", Service::image("redis:7"))
        .service(
            "db",
            Service::image("postgres:${{ event.branch }}")
                .command(["postgres", "-c", "application_name=${{ event.branch }}"])
                .env("POSTGRES_PASSWORD", "x")
                .ports([5432])
                .health("pg_isready", Duration::from_millis(500), 9)
                .tmpfs("/data")
                .pull(Pull::Never)
                .login("LOGIN"),
        )
        .run("true");
    ci.job("from_file")
        .environment(
            Environment::dockerfile("D").context("ci").arg("BRANCH", "${{ event.branch }}").arg("N", 1).target("t"),
        )
        .run("true");
    ci.job("nix").environment(Environment::nix(".#ci")).run("true").step(Step::nix_build(".#one"));
    ci.job("built")
        .environment(Environment::host())
        .artifacts(["nix:app"])
        .step(Step::nix_build([".#app", ".#packages.${{ event.branch }}.doc"]).id("all"));
    ci.job("number").outputs(["n"]).run("./number");
    let whole = Child::file(".ropewalk/child.yaml").kind(EventKind::Push).branch("b").tag("v1").hand_on("pack", "url");
    ci.build("child", whole.param("n", "${{ needs.number.outputs.n }}").param("dry", true)).needs("number");
    ci.build("swept", Child::command("sweep").no_wait());
    let container = Json::object([("image", "x".into())]);
    let pod = Json::object([("containers", Json::List(vec![container]))]);
    ci.job("pod").environment(Environment::kubernetes(pod)).run("true");
    ci.wait();

    ci.job("after").after_failure(&every).run("true");
    ci.job("ended").after_finished((&every, "after")).run("true");
    ci.job("plan").outputs(["shards", "matrix"]).run("./plan");
    ci.job("legs")
        .needs("plan")
        .matrix(Matrix::new().axis("shard", "${{ fromJSON(needs.plan.outputs.shards) }}"))
        .run("./leg ${{ matrix.shard }}");
    ci.job("whole").needs("plan").matrix(Matrix::expression("${{ fromJSON(needs.plan.outputs.matrix) }}")).run("true");
    ci.wait();

    ci.job("ask").gate("");
    ci.job("when")
        .when(all([event(EventKind::Push), branch(["main", "next"]) | tag("v.*")]))
        .when(any([changed(["src/**"]), param("level", 3)]))
        .when(not(event(EventKind::Api)))
        .when(!tag("old.*") & !branch("x"))
        .run("true");
    ci.job("fields")
        .gate("Ship?")
        .gate_field(field::<f64>("share").default(0.5))
        .gate_field(field::<bool>("sure").help("really"))
        .run("true");
}

fn main() {
    Ci::main(keys);
}
