//! What a program and its tests import together, as people write it. Triggers and the events of tests share names, and two stars
//! that bring one name each collide where it is used: so `main` imports the triggers, which `super::*` then does not bring.

use ropewalk::Ci;

/// The hooks of a program, as its `main` gives them to `Ci::main`.
fn hooks() -> [ropewalk::Hook; 2] {
    use ropewalk::hook::*;
    [on(push().branch("main")).run(ci), on(schedule("0 3 * * *")).run(nightly)]
}

fn ci(ci: &Ci) {
    ci.job("build").run("cargo build");
}

fn nightly(ci: &Ci) {
    ci.job("fuzz").run("./fuzz.sh");
}

mod tests {
    use super::*;
    use ropewalk::testing::*;

    /// A test may end with an error: `testing::*` brings no `Result` in place of the usual one.
    #[test]
    fn a_program_and_its_tests_each_have_their_push() -> Result<(), std::fmt::Error> {
        let event: Event = push("main").changed(["src/a.rs"]).given("build", failed(1));
        assert!(format!("{event:?}").contains("main"));
        assert_eq!(hooks().len(), 2);
        Ok(())
    }
}

/// As `ropewalk init --rust` writes it: the tests name what they take, and the program may import its triggers anywhere.
mod named {
    use ropewalk::Ci;
    use ropewalk::hook::{on, push};

    fn hooks() -> [ropewalk::Hook; 1] {
        [on(push().branch("main")).run(ci)]
    }

    fn ci(ci: &Ci) {
        ci.job("build").run("cargo build");
    }

    mod tests {
        use super::{Ci, ci, hooks};
        use ropewalk::testing::*;

        #[test]
        fn a_program_and_its_tests_each_have_their_push() {
            let _: fn(&Ci) = ci;
            assert!(format!("{:?}", push("main").changed(["src/a.rs"])).contains("src/a.rs"));
            assert_eq!(hooks().len(), 1);
        }
    }
}
