//! `ropewalk-sim`: runs storms and prints the first that breaks a law, with its trace.

use std::process::ExitCode;

use ropewalk_sim::{Sabotage, Tally, run};

const USAGE: &str = "usage: ropewalk-sim [--seeds COUNT] [--seed SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let seeds = match words[..] {
        [] => Some(0..1000),
        ["--seeds", count] => number(count).map(|count| 0..count),
        ["--seed", seed] => number(seed).map(|seed| seed..seed.saturating_add(1)),
        ["--seeds", count, "--seed", seed] | ["--seed", seed, "--seeds", count] => {
            number(count).zip(number(seed)).map(|(count, seed)| seed..seed.saturating_add(count))
        }
        _ => None,
    };
    let Some(seeds) = seeds else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let count = seeds.end - seeds.start;
    let mut tally = Tally::default();
    for seed in seeds {
        match run(seed, Sabotage::None) {
            Ok(storm) => tally += storm,
            Err(failure) => {
                println!(
                    "{}\n\nseed {seed} breaks the law that {}: {}",
                    failure.trace, failure.violation.law, failure.violation.text
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{count} storms broke no law");
    println!("{tally:?}");
    ExitCode::SUCCESS
}
