//! The package around a program that is a single file: made in the cache, so that the repository holds nothing but the file.
//!
//! The file is the path of the package's binary under the name that users know (`.ropewalk/pipeline.rs`), so that the
//! compiler's messages and the program's own places name it so.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;

use dialects::tree::{Entry, Node, Notation, Rules, Sources, Span};

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

/// The manifest: what the frontmatter says, completed. One that is no TOML stays as it is: cargo says what is wrong with it.
pub(super) fn manifest(frontmatter: &str, path: &str, sdk: &Path) -> String {
    let (tree, _) = Sources::new().read("Cargo.toml", frontmatter.as_bytes(), Notation::Toml, &Rules::NATIVE);
    let Some(tree) = tree else { return frontmatter.to_owned() };
    let mut writing = Writing { frontmatter, tree: &tree, edits: Vec::new(), end: String::new() };
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
    writing.complete(&["package"], &package);
    writing.carry(sdk);
    if tree.get("workspace").is_none() {
        writing.end.push_str("\n[workspace]\n");
    }
    writing.complete(&["profile", "dev"], &["debug = \"line-tables-only\"", "incremental = true"]);
    // Nobody steps through the SDK; measured, this is a third of the first build, and a fifth of each evaluation.
    let of_sdk = ["debug = false", "codegen-units = 16", "debug-assertions = false"];
    writing.complete(&["profile", "dev", "package", "ropewalk"], &of_sdk);
    let (text, end) = (writing.edited(), writing.end);
    format!("{text}{end}\n[[bin]]\nname = \"pipeline\"\npath = {path:?}\n")
}

/// A manifest that is being completed.
struct Writing<'a> {
    frontmatter: &'a str,
    tree: &'a Node,
    /// What comes in the place of these bytes.
    edits: Vec<(Range<usize>, String)>,
    /// What comes behind it all, so that what stands above keeps its lines.
    end: String,
}

impl Writing<'_> {
    /// These lines in a table; those whose key is there already stay as the user wrote them.
    fn complete(&mut self, table: &[&str], lines: &[&str]) {
        let found = table.iter().try_fold(self.tree, |node, name| node.get(name));
        let is_there = |line: &&&str| {
            let key = line.split(' ').next().unwrap_or_default();
            found.is_some_and(|found| found.get(key).is_some())
        };
        let missing: Vec<&str> = lines.iter().filter(|line| !is_there(line)).copied().collect();
        if missing.is_empty() {
            return;
        }
        let header = format!("\n[{}]\n{}\n", table.join("."), missing.join("\n"));
        let Some(found) = found else { return self.end.push_str(&header) };
        let (start, end) = (found.span.start as usize, found.span.end as usize);
        let first = found.entries().and_then(<[Entry]>::first).map(|entry| entry.key.span.start as usize);
        let is_in_header = self.frontmatter[self.line_start(start)..].trim_start().starts_with('[');
        match (self.frontmatter[start..].chars().next(), first) {
            (Some('{'), first) => {
                let comma = if first.is_some() { ", " } else { "" };
                self.edits.push((start + 1..start + 1, format!(" {}{comma}", missing.join(", "))));
            }
            (Some('['), _) => {
                let line = self.line_end(end);
                self.edits.push((line..line, format!("\n{}", missing.join("\n"))));
            }
            // Only a table in it has a header: it may still have its own.
            _ if is_in_header => self.end.push_str(&header),
            (_, None) => self.end.push_str(&header),
            // By keys with dots: those before the first of its own stand before the others too.
            (_, Some(first)) => {
                let line = self.line_start(first);
                let before = &self.frontmatter[line..first];
                let lines: String = missing.iter().map(|missing| format!("{before}{missing}\n")).collect();
                self.edits.push((line..line, lines));
            }
        }
    }

    /// Any version of a carried crate is the one that is carried; what else is said of one, such as `features`, stays. The SDK is
    /// among the dependencies, named or not.
    fn carry(&mut self, sdk: &Path) {
        let path = |name: &str| format!("path = {:?}", sdk.join(name).display().to_string());
        let dependencies = self.tree.get("dependencies");
        for name in super::sdk::crates() {
            let Some(named) = dependencies.and_then(|dependencies| dependencies.get(name)) else { continue };
            if named.as_str() == Some(ANY_VERSION) {
                self.edits.push((bytes(named.span), format!("{{ {} }}", path(name))));
            } else if let Some(version) = named.get_entry("version").filter(|it| it.value.as_str() == Some(ANY_VERSION))
            {
                self.edits.push((bytes(version.key.span.to(version.value.span)), path(name)));
            }
        }
        let is_sdk = |entry: &Entry| {
            let package = entry.value.get("package").and_then(Node::as_str).or(entry.name());
            package == Some("ropewalk")
        };
        let entries = dependencies.and_then(Node::entries).unwrap_or_default();
        if !entries.iter().any(is_sdk) {
            let line = path("ropewalk");
            self.complete(&["dependencies", "ropewalk"], &[&line]);
        }
    }

    /// Where the line begins that holds this place.
    fn line_start(&self, place: usize) -> usize {
        self.frontmatter[..place].rfind('\n').map_or(0, |end| end + 1)
    }

    /// Where the line ends that holds this place.
    fn line_end(&self, place: usize) -> usize {
        self.frontmatter[place..].find('\n').map_or(self.frontmatter.len(), |length| place + length)
    }

    /// The frontmatter with all edits, ended by a line's end.
    fn edited(&mut self) -> String {
        self.edits.sort_by_key(|(place, _)| (place.start, place.end));
        let (mut text, mut done) = (String::new(), 0);
        for (place, with) in &self.edits {
            text.push_str(&self.frontmatter[done..place.start]);
            text.push_str(with);
            done = place.end;
        }
        text.push_str(&self.frontmatter[done..]);
        text.push('\n');
        text
    }
}

/// Any version, as a manifest asks for it.
const ANY_VERSION: &str = "*";

fn bytes(span: Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dialects::tree::{Node, Notation, Rules, Sources};

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
            ("  ropewalk=\"*\" # any", format!("ropewalk={{ {carried} }} # any")),
            ("\"ropewalk\" = '*'", format!("\"ropewalk\" = {{ {carried} }}")),
            (
                "ropewalk = { version = \"*\", features = [\"serde\"] }",
                format!("ropewalk = {{ {carried}, features = [\"serde\"] }}"),
            ),
            (
                "ropewalk = {features=[\"a\", \"serde\"],version=\"*\",} # all",
                format!("ropewalk = {{features=[\"a\", \"serde\"],{carried},}} # all"),
            ),
            ("ropewalk.version = \"*\"\nropewalk.features = [\"serde\"]", format!("ropewalk.{carried}")),
            ("ropewalk = { version = \"0.1\" }", "ropewalk = { version = \"0.1\" }".to_owned()),
        ] {
            let text = manifest(&format!("[dependencies]\n{asked}\n"), "p.rs", Path::new("/sdk"));
            let ours = text.lines().map(str::trim).filter(|line| line.starts_with(['r', '"'])).collect::<Vec<_>>();
            assert_eq!(ours[0], expected, "for `{asked}`:\n{text}");
            assert_eq!(ours.len(), asked.lines().count(), "for `{asked}`:\n{text}");
        }
        let text =
            manifest("[dependencies.ropewalk]\nversion = \"*\"\nfeatures = [\"serde\"]\n", "p.rs", Path::new("/sdk"));
        assert!(text.contains(&format!("[dependencies.ropewalk]\n{carried}\nfeatures")), "{text}");
    }

    #[test]
    fn however_toml_is_written_each_key_stands_once() {
        for own in [
            "[package] # mine\nedition = \"2021\"\n[dependencies] # mine\nropewalk = '*'\n",
            "[ \"package\" ]\n'edition' = '2021'\n[dependencies]\n",
            "package.edition = \"2021\"\ndependencies.log = \"0.4\"\n",
            "package = { edition = \"2021\" }\n",
            "[package.metadata.x]\ny = 1\n[profile]\ndev.debug = 0\n",
            "[dependencies]\nropewalk = { version = \"*\", features = [\n  \"serde\", # needed\n] }\n",
            "[profile.dev.package]\nropewalk.debug = true\n",
            "[dependencies]\nsdk = { package = \"ropewalk\", version = \"1\" }\n",
        ] {
            let text = manifest(own, "p.rs", Path::new("/sdk"));
            let (tree, faults) = Sources::new().read("Cargo.toml", text.as_bytes(), Notation::Toml, &Rules::NATIVE);
            assert!(faults.is_empty(), "{faults:?} for\n{own}\nin\n{text}");
            let tree = tree.expect("it is TOML");
            let get =
                |path: &str| path.split('.').try_fold(&tree, |node, name| node.get(name)).and_then(Node::scalar_text);
            assert_eq!(get("package.name"), Some("pipeline"), "{text}");
            let edition = if own.contains("2021") { "2021" } else { "2024" };
            assert_eq!(get("package.edition"), Some(edition), "{text}");
            let sdk = if own.contains("sdk =") { None } else { Some("/sdk/ropewalk") };
            assert_eq!(get("dependencies.ropewalk.path"), sdk, "{text}");
            assert_eq!(get("profile.dev.package.ropewalk.codegen-units"), Some("16"), "{text}");
        }
        // Cargo says where.
        assert_eq!(
            manifest("[dependencies]\nropewalk = \"*\n", "p.rs", Path::new("/sdk")),
            "[dependencies]\nropewalk = \"*\n"
        );
    }

    #[test]
    fn a_crate_named_otherwise_stays_so() {
        let own = "[dependencies]\nropewalk = { path = \"../mine\" }\n";
        assert!(!manifest(own, "p.rs", Path::new("/sdk")).contains("/sdk/ropewalk\""));
    }
}
