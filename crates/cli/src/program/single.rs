//! The package around a program that is a single file: made in the cache, so that the repository holds nothing but the file.
//!
//! The file is the path of the package's binary under the name that users know (`.ropewalk/pipeline.rs`), so that the
//! compiler's messages and the program's own places name it so.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::frontmatter;
use crate::commands::Stop;

/// The largest program that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Lays the package of `file`, which users know as `shown`, into `folder`.
///
/// # Errors
/// If the file cannot be read, its frontmatter is wrong, or the package cannot be written.
pub fn lay(file: &Path, shown: &str, folder: &Path, sdk: &Path) -> Result<(), Stop> {
    let refused = |error: io::Error| crate::pipeline::unread(shown, &error);
    if fs::metadata(file).map_err(refused)?.len() > FILE_BYTES_MAX {
        return Err(Stop::wrong(format!(
            "{shown} is larger than {FILE_BYTES_MAX} bytes, the most a pipeline may have"
        )));
    }
    let text = fs::read_to_string(file).map_err(refused)?;
    let parted =
        frontmatter::part(&text).map_err(|fault| Stop::wrong(format!("{shown}:{}: {}", fault.line, fault.message)))?;
    let inside = inside(shown);
    let manifest = match parted.manifest {
        // On the lines where it stands in the file, so that what cargo says of a line is true of the file.
        Some(frontmatter) => {
            let n_above = text.split(frontmatter).next().map_or(0, |above| above.matches('\n').count());
            manifest(&format!("{}{frontmatter}", "\n".repeat(n_above)), inside, sdk)
        }
        None => manifest("", inside, sdk),
    };
    write(file, parted.program.as_deref(), inside, &manifest, folder)
        .map_err(|error| Stop::infra(format!("could not write the pipeline's package {}: {error}", folder.display())))
}

/// What the program's file is called in its package. Names that lead out of the package are no names in it.
pub(super) fn inside(shown: &str) -> &str {
    if shown.starts_with('/') || shown.contains("..") { "pipeline.rs" } else { shown }
}

/// What stands in the package's folder and is not linked there.
pub(super) const LAID: [&str; 3] = ["Cargo.toml", "Cargo.lock", ".sdk"];

fn write(file: &Path, program: Option<&str>, inside: &str, manifest: &str, folder: &Path) -> io::Result<()> {
    let place = folder.join(inside);
    let beside = place.parent().unwrap_or(folder);
    let of_file = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    write_if_changed(&folder.join("Cargo.toml"), manifest.as_bytes())?;
    if fs::symlink_metadata(beside).is_ok_and(|metadata| metadata.is_symlink()) {
        fs::remove_file(beside)?;
    }
    fs::create_dir_all(beside)?;
    // What the program includes lies beside it.
    let names: Vec<_> = fs::read_dir(of_file)?.flatten().map(|entry| entry.file_name()).collect();
    for entry in fs::read_dir(beside)?.flatten() {
        if !names.contains(&entry.file_name()) && fs::symlink_metadata(entry.path())?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    let own = place.file_name().unwrap_or_default();
    for name in names.iter().filter(|name| *name != own && !LAID.iter().any(|laid| *name == laid)) {
        link(&of_file.join(name), &beside.join(name))?;
    }
    match program {
        None => link(file, &place),
        Some(program) => {
            if fs::read_link(&place).is_ok() {
                fs::remove_file(&place)?;
            }
            write_if_changed(&place, program.as_bytes())
        }
    }
}

fn link(target: &Path, link: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, link)
}

/// What has not changed keeps its time, by which cargo sees whether there is work.
pub(super) fn write_if_changed(path: &Path, text: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == text) { Ok(()) } else { fs::write(path, text) }
}

/// The manifest: what the frontmatter says, completed.
pub(super) fn manifest(frontmatter: &str, path: &str, sdk: &Path) -> String {
    // What lies beside the program may be another package's.
    let package = [
        "name = \"pipeline\"",
        "version = \"0.0.0\"",
        "edition = \"2024\"",
        "publish = false",
        "build = false",
        "autolib = false",
        "autobins = false",
        "autotests = false",
        "autoexamples = false",
        "autobenches = false",
    ];
    let mut text = section(frontmatter, "package", &package.map(str::to_owned));
    text = carry(&text, sdk);
    if !names_sdk(&text) {
        let path = sdk.join("ropewalk").display().to_string();
        // At the end: what stands above keeps its lines.
        text.push_str(&format!("\n[dependencies.ropewalk]\npath = {path:?}\n"));
    }
    if !text.lines().any(|line| line.trim_start().starts_with("[workspace")) {
        text.push_str("\n[workspace]\n");
    }
    let profile = ["debug = \"line-tables-only\"".to_owned(), "incremental = true".to_owned()];
    text = section(&text, "profile.dev", &profile);
    // Nobody steps through the SDK; measured, this is a third of the first build, and a fifth of each evaluation.
    let of_sdk = ["debug = false", "codegen-units = 16", "debug-assertions = false"].map(str::to_owned);
    text = section(&text, "profile.dev.package.ropewalk", &of_sdk);
    format!("{text}\n[[bin]]\nname = \"pipeline\"\npath = {path:?}\n")
}

/// The manifest with `ropewalk-… = "*"` as the crates that the binary carries; what else a table says of one, such as `features`, stays.
/// Each line stays on its line.
fn carry(manifest: &str, sdk: &Path) -> String {
    let mut text = String::new();
    let mut table = None;
    for line in manifest.lines() {
        if line.trim_start().starts_with('[') {
            table = super::sdk::crates().find(|name| line.trim() == format!("[dependencies.{name}]"));
        }
        text.push_str(&carried_line(line, table, sdk).unwrap_or_else(|| line.to_owned()));
        text.push('\n');
    }
    text
}

/// A line that asks for any version of a carried crate, by the path of that; `table` is the crate whose table it stands in.
fn carried_line(line: &str, table: Option<&str>, sdk: &Path) -> Option<String> {
    let path = |name: &str| format!("path = {:?}", sdk.join(name).display().to_string());
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), without_remark(value).trim());
    let is_any = |key: &str, value: &str| key == "version" && value == ANY_VERSION;
    if let Some(name) = table {
        return is_any(key, value).then(|| path(name));
    }
    if let Some(name) = super::sdk::crates().find(|name| key.strip_suffix(".version").map(str::trim_end) == Some(*name))
    {
        return (value == ANY_VERSION).then(|| format!("{name}.{}", path(name)));
    }
    let name = super::sdk::crates().find(|name| key == *name)?;
    if value == ANY_VERSION {
        return Some(format!("{name} = {{ {} }}", path(name)));
    }
    let fields = value.strip_prefix('{')?.strip_suffix('}')?;
    let (mut parts, mut was_any) = (Vec::new(), false);
    for part in fields_of(fields) {
        let is_it = part.split_once('=').is_some_and(|(key, value)| is_any(key.trim(), value.trim()));
        parts.push(if is_it { path(name) } else { part.trim().to_owned() });
        was_any |= is_it;
    }
    was_any.then(|| format!("{name} = {{ {} }}", parts.join(", ")))
}

/// Any version, as a manifest has it.
const ANY_VERSION: &str = "\"*\"";

/// A value without the remark behind it. No value of ours holds `#`.
fn without_remark(value: &str) -> &str {
    value.split_once('#').map_or(value, |(value, _)| value)
}

/// The fields of an inline table: parted at commas that stand in no list or table.
fn fields_of(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = text.split(move |letter| {
        depth = match letter {
            '[' | '{' => depth + 1,
            ']' | '}' => depth.saturating_sub(1),
            _ => depth,
        };
        letter == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty())
}

/// Whether a manifest has the SDK among its dependencies.
fn names_sdk(manifest: &str) -> bool {
    let mut table = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            table = line;
        }
        let key = line.split(['=', '.']).next().unwrap_or_default().trim();
        table == "[dependencies.ropewalk]" || (table == "[dependencies]" && key == "ropewalk")
    })
}

/// The manifest with these lines in a section; those whose key is there already stay as the user wrote them.
fn section(manifest: &str, name: &str, lines: &[String]) -> String {
    let header = format!("[{name}]");
    let mut own: Vec<&str> = Vec::new();
    let mut is_here = false;
    for line in manifest.lines() {
        if line.trim_start().starts_with('[') {
            is_here = line.trim() == header;
        } else if is_here {
            own.push(line);
        }
    }
    let key = |line: &str| line.split(['=', '.']).next().unwrap_or_default().trim().to_owned();
    let missing: Vec<&String> = lines.iter().filter(|line| !own.iter().any(|own| key(own) == key(line))).collect();
    let mut text = String::new();
    let mut was_found = false;
    for line in manifest.lines() {
        text.push_str(line);
        text.push('\n');
        if line.trim() == header && !was_found {
            was_found = true;
            for line in &missing {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    if !was_found {
        text.push_str(&format!("\n{header}\n"));
        for line in missing {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::manifest;

    #[test]
    fn the_manifest_is_completed() {
        let text = manifest(
            "[dependencies]\nlog = \"0.4\"\n[package]\nedition = \"2021\"\n",
            ".ropewalk/pipeline.rs",
            Path::new("/sdk"),
        );
        for line in [
            "edition = \"2021\"",
            "log = \"0.4\"",
            "[dependencies.ropewalk]",
            "path = \"/sdk/ropewalk\"",
            "[workspace]",
            "path = \".ropewalk/pipeline.rs\"",
        ] {
            assert_eq!(text.lines().filter(|there| *there == line).count(), 1, "`{line}` in\n{text}");
        }
        assert!(!text.contains("edition = \"2024\""), "the user's edition stays:\n{text}");
    }

    #[test]
    fn any_version_of_a_carried_crate_is_the_carried_one() {
        let carried = "path = \"/sdk/ropewalk\"";
        for (asked, expected) in [
            ("ropewalk = \"*\"", format!("ropewalk = {{ {carried} }}")),
            ("  ropewalk=\"*\" # any", format!("ropewalk = {{ {carried} }}")),
            (
                "ropewalk = { version = \"*\", features = [\"serde\"] }",
                format!("ropewalk = {{ {carried}, features = [\"serde\"] }}"),
            ),
            (
                "ropewalk = {features=[\"a\", \"serde\"],version=\"*\",} # all",
                format!("ropewalk = {{ features=[\"a\", \"serde\"], {carried} }}"),
            ),
            ("ropewalk.version = \"*\"\nropewalk.features = [\"serde\"]", format!("ropewalk.{carried}")),
            ("ropewalk = { version = \"0.1\" }", "ropewalk = { version = \"0.1\" }".to_owned()),
        ] {
            let text = manifest(&format!("[dependencies]\n{asked}\n"), "p.rs", Path::new("/sdk"));
            let ours = text.lines().filter(|line| line.trim().starts_with("ropewalk")).collect::<Vec<_>>();
            assert_eq!(ours[0], expected, "for `{asked}`:\n{text}");
            assert_eq!(ours.len(), asked.lines().count(), "for `{asked}`:\n{text}");
        }
        let text =
            manifest("[dependencies.ropewalk]\nversion = \"*\"\nfeatures = [\"serde\"]\n", "p.rs", Path::new("/sdk"));
        assert!(text.contains(&format!("[dependencies.ropewalk]\n{carried}\nfeatures")), "{text}");
    }

    #[test]
    fn a_crate_named_otherwise_stays_so() {
        let own = "[dependencies]\nropewalk = { path = \"../mine\" }\n";
        assert!(!manifest(own, "p.rs", Path::new("/sdk")).contains("/sdk/ropewalk\""));
    }
}
