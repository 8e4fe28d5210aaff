//! The source of the SDK and of the plugins, which the binary carries: laid into the user's cache by version and digest.
//!
//! It is laid in two forms. Cargo takes what lies below the folder of a workspace for a member of it, also behind the link
//! `.sdk`, and locks what members only might depend on: a package that has nothing to do with serde would need a registry
//! for it. So where a package says nothing of serde, the SDK's manifest knows nothing of it either.
//!
//! A folder that is there is complete, since it is made under another name and renamed; nobody writes in it again.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Path below the folder, and text.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Characters of the digest in the folder's name.
const DIGEST_CHARACTERS: usize = 12;

/// What stands in the place of the feature `serde` in [`Form::Plain`].
const NO_SERDE: &str = "compile_error!(\n    \"this SDK was laid without serde, since .ropewalk/Cargo.toml does not ask for it; write there: \\\n     \
    ropewalk = { path = \\\".sdk/ropewalk\\\", features = [\\\"serde\\\"] }\"\n);\npub struct Serde<T>(pub T);\n";

/// What the SDK that is laid can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// It may have no dependency, whatever features are asked for.
    Plain,
    /// All features.
    Whole,
}

impl Form {
    /// The form that a package needs, by the manifests of its workspace.
    pub fn of(manifests: &[String]) -> Self {
        if manifests.iter().any(|manifest| manifest.contains("serde")) { Self::Whole } else { Self::Plain }
    }

    /// The text of a carried file in this form.
    fn text(self, name: &str, text: &'static [u8]) -> Cow<'static, [u8]> {
        match (self, name) {
            (Self::Plain, "ropewalk/Cargo.toml") => {
                let text = String::from_utf8_lossy(text);
                let lines = text.lines().filter(|line| !line.starts_with("serde = {"));
                let lines = lines.map(|line| if line.starts_with("serde = [") { "serde = []" } else { line });
                Cow::Owned(lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes())
            }
            (Self::Plain, "ropewalk/src/with_serde.rs") => Cow::Borrowed(NO_SERDE.as_bytes()),
            _ => Cow::Borrowed(text),
        }
    }
}

/// The folder's name: `VERSION-DIGEST`, with what the form has.
pub fn name(form: Form) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, text) in FILES {
        for part in [name.as_bytes(), text] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let digest = hasher.finalize().to_hex();
    let name = format!("{}-{}", env!("CARGO_PKG_VERSION"), &digest[..DIGEST_CHARACTERS]);
    match form {
        Form::Plain => name,
        Form::Whole => name + "-serde",
    }
}

/// The names of the crates that are carried: `ropewalk`, `ropewalk-cargo`, ….
pub fn crates() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(|(name, _)| name.strip_suffix("/Cargo.toml")).filter(|name| *name != "ropewalk-derive")
}

/// The folder that holds one folder for each crate; laid if it is not there.
///
/// # Errors
/// If it cannot be written.
pub fn lay(cache: &Path, form: Form) -> io::Result<PathBuf> {
    let parent = cache.join("sdk");
    let folder = parent.join(name(form));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&parent)?;
    let fresh = tempfile::Builder::new().prefix(".laying-").tempdir_in(&parent)?;
    for (name, text) in FILES {
        let path = fresh.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, form.text(name, text))?;
        // Editors that follow a definition into it shall not change it for every project.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    }
    match fs::rename(fresh.path(), &folder) {
        Ok(()) => drop(fresh.keep()),
        // Another process was quicker and laid the same.
        Err(_) if folder.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(folder)
}

/// Makes the link `.sdk` in a package's folder lead to `sdk`.
///
/// # Errors
/// If something that is no link is in its place, or the folder cannot be written.
pub fn link(package: &Path, sdk: &Path) -> io::Result<()> {
    let link = package.join(".sdk");
    if fs::read_link(&link).is_ok_and(|target| target == sdk) {
        return Ok(());
    }
    // Replaced by renaming, so that a command that runs at the same time never finds it missing.
    let fresh = tempfile::Builder::new().prefix(".sdk-").tempdir_in(package)?;
    let made = fresh.path().join("link");
    std::os::unix::fs::symlink(sdk, &made)?;
    fs::rename(&made, &link)
}

#[cfg(test)]
mod tests {
    /// The SDK and the native format name the nearest of these where a plugin is mistyped.
    #[test]
    fn the_plugins_that_are_carried_are_those_that_hints_know() {
        let mut carried: Vec<&str> = super::crates().filter_map(|name| name.strip_prefix("ropewalk-")).collect();
        carried.sort_unstable();
        assert_eq!(carried, dialects::native::BROUGHT_PLUGINS);
        let of_sdk = format!("const BROUGHT: [&str; {}] = {carried:?};", carried.len());
        let (_, text) = super::FILES.iter().find(|(name, _)| *name == "ropewalk/src/plugin.rs").expect("it is carried");
        assert!(String::from_utf8_lossy(text).contains(&of_sdk), "{of_sdk}");
    }
}
