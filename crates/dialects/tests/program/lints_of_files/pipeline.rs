use ropewalk::*;

fn ci(ci: &Ci) {
    ci.job("sweep").needs("a").cleanup().run("rm x");
}
