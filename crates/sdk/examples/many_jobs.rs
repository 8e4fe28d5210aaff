//! A pipeline of ten thousand jobs, for measurements of evaluation: `echo REQUEST | many_jobs evaluate`.

use ropewalk::Ci;
use ropewalk::condition::branch;

fn many(ci: &Ci) {
    let build = ci.job("build").run("cargo build").artifact("app", "target/release/app");
    for number in 0..10_000 {
        ci.job(format!("test-{number}"))
            .needs(&build)
            .when(branch("main"))
            .env("SHARD", number)
            .run(format!("./test.sh {number}"))
            .junit("results/*.xml");
    }
}

fn main() {
    Ci::main(many);
}
