fn ci(ci: &Ci) {
    let tests = ci.group("test", |ci| {
        ci.job("linux").run("make test");
        ci.job("mac").run("make test");
    });
    let plan = ci.job("plan").output::<Vec<u32>>("shards").run("./plan");
    let shards = ci.then(&plan, |ci, shards| { ci.job("x").run("x"); });
    ci.job("all").needs((&tests, &shards)).run_fn(all);
    ci.job("typo").needs_named("tests").run("true");
}
