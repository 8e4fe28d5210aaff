//! What is proposed, written as a Rust program with a test instead of a config file.

use std::fmt::Write;

use super::{Found, Kept, Proposal};

/// The most characters of name and script that rustfmt leaves on one line.
const CHAIN_CHARACTERS_MAX: usize = 36;

/// The program's `main.rs`: the same jobs as the config file has.
pub(super) fn write(found: &Found) -> String {
    let hello = Proposal {
        id: "hello",
        comment: "This builds and tests nothing: put the commands here that do.",
        run: vec!["echo \"nothing to build yet\"".to_owned()],
        cache: None,
    };
    let jobs: Vec<&Proposal> = if found.jobs.is_empty() { vec![&hello] } else { found.jobs.iter().collect() };
    let names = if jobs.iter().any(|job| job.cache.is_some()) { "{Cache, Ci}" } else { "Ci" };
    let mut text = format!(
        "//! What Ropewalk runs for this repository: `ropewalk run` here, `ropewalk plan` to look at the jobs, `ropewalk test`\n\
         //! to run the tests at the end of this file.\n\nuse ropewalk::{names};\n\nfn main() {{\n    Ci::main(ci)\n}}\n\n\
         /// Each job works on its own copy of the files, those that git tracks and untracked ones that are not ignored, so jobs\n\
         /// cannot disturb one another.\n"
    );
    for remark in &found.remarks {
        let _ = writeln!(text, "// {}", remark.replace(['\n', '\r'], " "));
    }
    text.push_str("fn ci(ci: &Ci) {\n");
    for (index, job) in jobs.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        write_job(&mut text, job);
    }
    text.push_str("}\n");
    let ids: Vec<String> = jobs.iter().map(|job| format!("{:?}", job.id)).collect();
    let _ = write!(
        text,
        "\n#[cfg(test)]\nmod tests {{\n    use super::ci;\n    use ropewalk::testing::*;\n\n    #[test]\n    fn a_push_runs_every_job() {{\n        \
         let build = evaluate(ci, push(\"main\"));\n        build.assert_runs([{}]);\n    }}\n}}\n",
        ids.join(", ")
    );
    text
}

fn write_job(text: &mut String, proposal: &Proposal) {
    let _ = write!(text, "    // {}\n    ci.job({:?})", proposal.comment, proposal.id);
    if let ([script], None) = (proposal.run.as_slice(), &proposal.cache)
        && !script.contains('\n')
        && script.len() + proposal.id.len() <= CHAIN_CHARACTERS_MAX
    {
        let _ = writeln!(text, ".run({});", literal(script));
        return;
    }
    if let Some(Kept { key, path, restore }) = &proposal.cache {
        let paths: Vec<String> = path.split(", ").map(|path| format!("{path:?}")).collect();
        let restore = restore.map(|prefix| format!(".restore({prefix:?})")).unwrap_or_default();
        text.push_str("\n        // Kept from build to build while the key stays the same.");
        let _ = write!(text, "\n        .cache(Cache::new({key:?}, [{}]){restore})", paths.join(", "));
    }
    for script in &proposal.run {
        let _ = write!(text, "\n        .run({})", literal(script));
    }
    text.push_str(";\n");
}

/// A script as a Rust literal; one of several lines stays readable.
fn literal(script: &str) -> String {
    let is_plain = |character: char| !character.is_control() || character == '\n';
    if script.contains('\n') && script.chars().all(is_plain) && !script.contains("\"#") {
        format!("r#\"{script}\"#")
    } else {
        format!("{script:?}")
    }
}
