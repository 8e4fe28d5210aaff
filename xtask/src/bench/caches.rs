//! A cache of 1 GiB in 100,000 files of which a build changes one in a hundred, against `tar | zstd` on the whole, there and back.

use std::path::Path;
use std::process::{Command, Stdio};

use super::measure::{median, repository, time_ms};
use super::{Bench, Row};

/// How many files the cache holds, in directories of a hundred.
const FILES: usize = 100_000;
/// How long each of them is: 1 GiB together.
const FILE_BYTES: usize = (1 << 30) / FILES;
/// How many a directory holds. One of each is changed.
const FILES_OF_A_DIRECTORY: usize = 100;

/// The step fills the cached directory with a copy, or changes what was restored there. That is measured with the rest.
const PIPELINE: &str = "\
defaults: { environment: host, workspace: isolated }
jobs:
  build:
    cache: { key: \"k-${{ hash_files('round') }}\", restore: [k-], paths: [kept] }
    run: |
      if [ ! -e kept ]; then cp -a 'FILES' kept; exit; fi
      round=$(cat round)
      for directory in kept/*; do echo $round >> \"$directory/7\"; done
";

/// The measurement.
pub fn caches(bench: &Bench) -> Result<Vec<Row>, String> {
    let files = bench.folder.join("files");
    write_files(&files).map_err(|error| format!("{}: {error}", files.display()))?;
    let folder = bench.folder.join("repository");
    repository(&folder, &[(".ropewalk/pipeline.yaml", PIPELINE.replace("FILES", &files.display().to_string()))])?;
    let data = bench.folder.join("data");
    let build = |round: usize| {
        std::fs::write(folder.join("round"), round.to_string()).map_err(|error| error.to_string())?;
        let mut command = Command::new(&bench.ropewalk);
        command.args(["run", "--output", "quiet"]);
        command.current_dir(&folder).env("ROPEWALK_DATA", &data);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        time_ms(&mut command)
    };
    let (packed, unpacked) = (bench.folder.join("files.tar.zst"), bench.folder.join("unpacked"));
    let shell = |script: String| time_ms(Command::new("sh").args(["-c", &script]));
    let first_ms = build(0)?;
    let (mut changed, mut same, mut saved, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in (1..=bench.rounds.clamp(1, 3)).map(|round| 2 * round) {
        // What this one saves nobody has restored before the next one does.
        build(round - 1)?;
        changed.push(build(round)?);
        // The same key again: only restored.
        same.push(build(round)?);
        let _ = std::fs::remove_dir_all(&unpacked);
        std::fs::create_dir(&unpacked).map_err(|error| error.to_string())?;
        let pack = format!("tar cf - -C '{}' . | zstd -q -f -o '{}'", files.display(), packed.display());
        let unpack = format!("zstd -q -dc '{}' | tar xf - -C '{}'", packed.display(), unpacked.display());
        let save_ms = shell(pack)?;
        whole.push(save_ms + shell(unpack)?);
        saved.push(save_ms);
    }
    let (whole_ms, save_ms) = (median(&mut whole), median(&mut saved));
    let there_and_back = "`tar | zstd` of the whole, there and back";
    Ok(vec![
        Row::at_most(
            "a cache of 1 GiB, 100,000 files: restored, 1 % changed by a job, saved",
            there_and_back,
            median(&mut changed),
            whole_ms,
            "ms",
            0.2,
        ),
        Row::at_most("the same cache restored and unchanged", there_and_back, median(&mut same), whole_ms, "ms", 0.2),
        Row::compared(
            "the same cache copied into a workspace and saved for the first time",
            "`tar | zstd`",
            first_ms,
            save_ms,
            "ms",
        ),
    ])
}

/// Files such as compilers leave: half of their bytes compress.
fn write_files(root: &Path) -> std::io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = vec![0; FILE_BYTES];
    for number in 0..FILES {
        let directory = root.join((number / FILES_OF_A_DIRECTORY).to_string());
        if number % FILES_OF_A_DIRECTORY == 0 {
            std::fs::create_dir_all(&directory)?;
        }
        for (index, word) in content.chunks_mut(8).enumerate() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bytes = if index % 2 == 0 { state.to_le_bytes() } else { *b"ropewalk" };
            word.copy_from_slice(&bytes[..word.len()]);
        }
        std::fs::write(directory.join((number % FILES_OF_A_DIRECTORY).to_string()), &content)?;
    }
    Ok(())
}
