use ropewalk::*;

fn ci(ci: &Ci) {
    ci.job("build").run("cargo build");
}
