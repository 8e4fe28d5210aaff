//! How long lowering takes: `cargo run --release -p ropewalk-dialects --example lower_speed`.
//!
//! 10,000 jobs of about 150 bytes each, as YAML; reading alone, then everything.

use std::fmt::Write;
use std::time::Instant;

use graph::{Event, EventKind, Known};
use ropewalk_dialects::native::{SourceFile, lower};
use ropewalk_dialects::tree::{Notation, Rules, Sources};

fn main() {
    let known = Known::of(Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) });
    for count in [1_000, 10_000] {
        let mut text = "env: { A: b }\njobs:\n".to_owned();
        for index in 0..count {
            let needs = if index == 0 { String::new() } else { format!("    needs: [job_{}]\n", (index - 1) / 2) };
            write!(
                text,
                "  job_{index}:\n{needs}    when: {{ branch: [main, \"release/.*\"] }}\n    inputs: [\"src/{index}/**\"]\n    \
                 env: {{ INDEX: {index} }}\n    run: ./build --target {index} --verbose\n"
            )
            .expect("strings take everything");
        }
        let reading = median(|| {
            let (root, _) = Sources::new().read("pipeline.yaml", text.as_bytes(), Notation::Yaml, &Rules::NATIVE);
            assert!(root.is_some());
        });
        let files = [SourceFile::new("pipeline.yaml", text.as_str())];
        let whole = median(|| {
            let lowered = lower(&files, &known);
            assert_eq!(lowered.evaluation.graph.jobs.len(), count);
            assert!(!lowered.is_wrong());
        });
        let bytes = text.len();
        println!("{count} jobs, {bytes} bytes: reading {reading:.1} ms, lowering {:.1} ms", whole - reading);
    }
}

/// The median of eleven runs, in milliseconds.
fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..11)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[5]
}
