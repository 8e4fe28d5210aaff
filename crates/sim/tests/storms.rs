//! Storms break no law, and would if something were broken.

use ropewalk_sim::{Sabotage, run};

/// How many storms: more where time does not matter.
fn n_storms() -> u64 {
    let is_set = |name, value| std::env::var(name).as_deref() == Ok(value);
    if is_set("SLOW", "1") || is_set("CI", "true") { 3000 } else { 300 }
}

#[test]
fn storms_break_no_law() {
    for seed in 0..n_storms() {
        if let Err(failure) = run(seed, Sabotage::None) {
            panic!("{}\nseed {seed}: {:?}", failure.trace, failure.violation);
        }
    }
}

/// Within how many storms every planted fault must show.
const STORMS_TO_CATCH: u64 = 1000;

#[test]
fn storms_catch_every_planted_fault() {
    for sabotage in Sabotage::ALL {
        let caught = (0..STORMS_TO_CATCH).find_map(|seed| Some((seed, run(seed, sabotage).err()?)));
        let (seed, failure) = caught.unwrap_or_else(|| panic!("{STORMS_TO_CATCH} storms did not catch {sabotage:?}"));
        println!("{sabotage:?}: seed {seed}: {}: {}", failure.violation.law, failure.violation.text);
    }
}

#[test]
fn a_seed_gives_the_same_storm_every_time() {
    let first = (0..STORMS_TO_CATCH).find_map(|seed| run(seed, Sabotage::GroupLeak).err()).expect("one is caught");
    let again = run(first.seed, Sabotage::GroupLeak).expect_err("the same storm");
    assert_eq!((first.violation, first.trace), (again.violation, again.trace));
}
