//! The scheduler alone, without store, clock or network: decisions with very many jobs that wait and very many workers, and
//! whether a decision costs the same with few (`crates/engine/examples/cost.rs`).

use super::site::{Goal, Rows, row};
use super::{Bench, Row};

/// Jobs that wait, and workers.
const FEW: [usize; 2] = [1_000, 10_000];
const MANY: [usize; 2] = [100_000, 10_000];
/// How much more a decision may cost with a hundred times the jobs: the first level of caches is gone by then.
const FLAT: f64 = 2.0;

/// The measurement.
pub fn scheduler(bench: &Bench) -> Rows {
    let (mut few, mut many) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..bench.rounds.min(3) {
        few = few.min(micros(bench, FEW)?);
        many = many.min(micros(bench, MANY)?);
    }
    let name = "scheduler alone: 100,000 jobs wait, 10,000 workers";
    Ok(vec![
        row(&format!("{name}: decisions"), 1e6 / many, "per s", Goal::AtLeast(20_000.0)),
        Row::at_most(format!("{name}: one decision"), "1,000 jobs wait", many, few, "µs", FLAT),
    ])
}

/// Microseconds of one decision.
fn micros(bench: &Bench, sizes: [usize; 2]) -> Result<f64, String> {
    let sizes = sizes.map(|full| bench.sized(full).to_string());
    let mut command = bench.example("ropewalk-engine", "cost");
    let output = command.args(["decide"]).args(sizes).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| format!("cost said `{text}`: {}", String::from_utf8_lossy(&output.stderr)))
}
