//! Times commands, takes medians, and knows the raw limit of starting processes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

/// The middle of `values`; the lower one of two.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Milliseconds that `command` takes, its output thrown away.
///
/// # Errors
/// If it does not start or does not succeed.
pub fn time_ms(command: &mut Command) -> Result<f64, String> {
    let started = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("could not start {command:?}: {error}"))?;
    let time = started.elapsed().as_secs_f64() * 1000.0;
    if status.success() { Ok(time) } else { Err(format!("{command:?} ended with {status}")) }
}

/// Medians of several things measured in turn, so that noise falls on all alike.
///
/// # Errors
/// The first thing that could not be measured.
pub fn interleaved<const N: usize>(
    rounds: usize,
    mut measure: [&mut dyn FnMut() -> Result<f64, String>; N],
) -> Result<[f64; N], String> {
    let mut values: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..=rounds {
        for (index, measure) in measure.iter_mut().enumerate() {
            let value = measure()?;
            // The first round warms caches.
            if round > 0 {
                values[index].push(value);
            }
        }
    }
    Ok(values.map(|mut values| median(&mut values)))
}

/// Milliseconds to start and reap `count` times `/bin/sh -c true`, shared by `threads` threads. The standard library
/// does it by `posix_spawn`.
///
/// # Errors
/// If a shell does not start.
pub fn raw_spawn_ms(count: usize, threads: usize) -> Result<f64, String> {
    let started = Instant::now();
    let share = |index: usize| count / threads + usize::from(index < count % threads);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                scope.spawn(move || {
                    for _ in 0..share(index) {
                        Command::new("/bin/sh")
                            .args(["-c", "true"])
                            .stdin(Stdio::null())
                            .status()
                            .map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        handles.into_iter().try_for_each(|handle| handle.join().map_err(|_| "a thread ended".to_owned())?)
    })?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// A git repository with these files, all committed.
///
/// # Errors
/// If git or the file system refuses.
pub fn repository(folder: &Path, files: &[(&str, String)]) -> Result<(), String> {
    for (name, text) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
    }
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        // A commit of very many files has git pack them behind our back, into a folder that the next part empties.
        &["config", "maintenance.auto", "false"],
        &["config", "gc.auto", "0"],
        &["add", "-A"],
        &["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-qm", "bench"],
    ] {
        crate::run(Command::new("git").args(arguments).current_dir(folder))?;
    }
    Ok(())
}
