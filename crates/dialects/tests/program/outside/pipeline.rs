use ropewalk::*;

fn ci(ci: &Ci) {
    let build = ci.job("build").run("cargo build");
    ci.job("test").needs(&build).run("cargo test");
}
