//! A plugin's view: steps around jobs of the program and of config files.

use ropewalk::{Ci, JobView, Origin, Step};

fn docker(ci: &Ci) {
    ci.before(|job| job.has_label("docker"), "docker login");
    ci.after_steps(|job| job.has_label("docker"), Step::sh("docker logout").run_if("always()"));
    ci.before(|job: &JobView| job.origin() == Origin::File && job.has_secret("TOKEN"), "./audit.sh");
    ci.job("image").labels("docker").run("docker build .");
    ci.job("plain").run("true");
    ci.job("replaced").overrides().run("new");
    ci.job("taken").run("new");
    let names: Vec<String> = ci.jobs().iter().map(|job| job.name().to_owned()).collect();
    ci.env("JOBS", names.join(","));
}

fn main() {
    Ci::main(docker);
}
