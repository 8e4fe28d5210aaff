//! A build goes on after a gate as it began, whatever its sources are by then.

use std::fs;

use crate::{Repository, data};

const GATED: &str = r#"
use ropewalk::{Ci, Environment};

fn main() {
    Ci::main(ci)
}

fn ci(ci: &Ci) {
    let plan = ci.job("plan").environment(Environment::host()).run_fn(|_, ()| Ok(1u32));
    let to = ci.gate("ship").needs(&plan).field::<String>("to");
    ci.then(&to.output(), |ci, to: String| {
        ci.job("deploy").environment(Environment::host()).run(format!("echo $(cat file.txt) to {to} by script A"));
    });
}
"#;

#[test]
fn a_build_goes_on_after_a_gate_with_the_program_that_it_began_with() {
    let repository = Repository::new("begun");
    let approved = |build: &str, edited: &str| {
        repository.write(".ropewalk/pipeline.rs", GATED);
        repository.write("file.txt", "v1\n");
        repository.prints(&["run"], 4, &[&format!("ropewalk approve {build} ship")]);
        repository.write(".ropewalk/pipeline.rs", edited);
        repository.write("file.txt", "v2\n");
        let text = repository.check(&["approve", build, "ship", "--field", "to=eu"], 0);
        assert!(text.contains("deploy | v1 to eu by script A"), "{text}");
    };
    approved("1", &GATED.replace("script A", "script B").replace("1u32", "2u32"));
    approved("2", "this does not compile");
    repository.write(".ropewalk/pipeline.rs", GATED);
    repository.check(&["run"], 4);
    for project in fs::read_dir(data("begun")).expect("a folder").flatten() {
        fs::remove_dir_all(project.path().join("programs")).expect("it was there");
    }
    let gone = ["is not kept any more", "`ropewalk retry 3` begins anew"];
    repository.prints(&["approve", "3", "ship", "--field", "to=eu"], 2, &gone);
}

#[test]
fn config_files_are_those_of_the_start_too() {
    let repository = Repository::new("begun-files");
    let grows = "jobs:
  ship: { gate: Ship? }
  plan: { needs: [ship], outputs: [parts], run: 'echo parts=[1,2] >> \"$ROPEWALK_OUTPUT\"' }
  part:
    needs: [plan]
    matrix: { n: '${{ fromJSON(needs.plan.outputs.parts) }}' }
    run: echo old ${{ matrix.n }}
";
    repository.write(".ropewalk/pipeline.yaml", grows);
    repository.check(&["run"], 4);
    repository.write(".ropewalk/pipeline.yaml", &grows.replace("echo old", "echo new"));
    repository.prints(&["approve", "1", "ship"], 0, &["| old 1", "| old 2"]);
}
