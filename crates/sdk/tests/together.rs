//! What a program and its tests import together, as people write it: all of the program, and all of `testing`.

use ropewalk::Ci;
use ropewalk::hook::{on, push};

/// The hooks of a program that names its trigger `push`.
fn hooks() -> [ropewalk::Hook; 1] {
    [on(push().branch("main")).run(ci)]
}

fn ci(ci: &Ci) {
    ci.job("build").run("cargo build");
}

mod tests {
    // Both have a `push`: the tests' own is named, and stands before what comes with the star.
    use super::*;
    use ropewalk::testing::push;
    use ropewalk::testing::*;

    #[test]
    fn the_program_and_its_tests_each_have_their_push() {
        let event: Event = push("main").changed(["src/a.rs"]).given("build", failed(1));
        assert!(format!("{event:?}").contains("main"));
        assert_eq!(hooks().len(), 1);
    }
}
