//! Nix, called and not imitated: where it is, a flake's development shell, builds and what is told of them.
//!
//! Nothing here starts a process: it makes the scripts that a step's process runs, and reads what they leave.
//! Reading order: here the shell; [`report`] what is told of a build; [`log`] how Nix's log is read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub mod log;
pub mod report;

/// The most bytes of variables, and of functions, that a shell may bring: what a step may be given at all.
pub const SHELL_BYTES_MAX: u64 = crate::keeper::COMMAND_BYTES_MAX as u64;

/// Where Nix is on machines on which it is not in everybody's `PATH`.
const DEFAULT_PROFILE: &str = "/nix/var/nix/profiles/default/bin";

/// Variables of a shell that are not the job's: what bash sets for itself, and places that end with the evaluation.
const LEFT_OUT: [&str; 9] = ["_", "PWD", "OLDPWD", "SHLVL", "NIX_BUILD_TOP", "TMP", "TMPDIR", "TEMP", "TEMPDIR"];

/// There is no Nix on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no program `nix` was found: install Nix (Debian's package `nix-bin`, or nixos.org/download)")]
pub struct NoNix;

/// Where the program `nix` is.
///
/// # Errors
/// [`NoNix`].
pub fn find() -> Result<PathBuf, NoNix> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(&path)
}

fn find_in(path: &OsStr) -> Result<PathBuf, NoNix> {
    let mut directories = std::env::split_paths(path).chain([PathBuf::from(DEFAULT_PROFILE)]);
    let is_program =
        |file: &Path| file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    directories.find_map(|directory| Some(directory.join("nix")).filter(|file| is_program(file))).ok_or(NoNix)
}

/// Evaluates a development shell in a bash of its own, once for a job, and writes what came of it into a directory:
/// `variables` (`name=value`, each ended by NUL) and `functions` (bash's own form). Arguments: `nix`, the reference, the
/// directory. The profile there keeps the shell from the collector of garbage.
///
/// Nix's form for bash is taken rather than `--json`: it knows which variables are not to be taken over, extends `PATH`, and
/// runs `shellHook`. Its exit code is that of `nix` where the shell could not be had.
pub const SHELL_SCRIPT: &str = r#"
__ropewalk_directory=$3
__ropewalk_env=$(command -v env)
__ropewalk_form=$("$1" --extra-experimental-features 'nix-command flakes' print-dev-env --profile "$3/profile" "$2") || exit
export TMPDIR=$3/tmp
eval "$__ropewalk_form" || exit
{
    declare -f
    while IFS= read -r __ropewalk_line; do
        if [[ $__ropewalk_line =~ ^declare\ -([a-zA-Z]*)\ ([A-Za-z_][A-Za-z0-9_]*)= ]]; then
            case ${BASH_REMATCH[1]} in *r*) continue ;; *[aA]*) ;; *) continue ;; esac
            case ${BASH_REMATCH[2]} in BASH_* | FUNCNAME | PIPESTATUS | DIRSTACK | GROUPS | __ropewalk_*) continue ;; esac
            declare -p "${BASH_REMATCH[2]}" 2> /dev/null
        fi
    done < <(declare -p)
} > "$__ropewalk_directory/functions"
"$__ropewalk_env" -0 > "$__ropewalk_directory/variables"
"#;

/// Starts a command with the variables of a shell that was evaluated before. Arguments: `nix`, or nothing; the flake's reference, or nothing; the
/// project's folder; the command. If the store has not what `PATH` names, as on another machine or after a collection
/// of garbage, the shell is evaluated again for its paths, which are the same, and nothing else of it is taken.
pub const ENTRY_SCRIPT: &str = r#"
nix=$1 reference=$2 root=$3
shift 3
missing() (
    set -f
    IFS=:
    for folder in $PATH; do
        case $folder in "${NIX_STORE_DIR:-/nix/store}"/*) test -e "$folder" || return 0 ;; esac
    done
    return 1
)
if missing; then
    echo "fetching what the development shell names and the store of this machine has not" >&2
    if test -n "$nix" && test -n "$reference"; then
        (cd "$root" && "$nix" --extra-experimental-features 'nix-command flakes' print-dev-env "$reference" > /dev/null)
    fi
    if missing; then echo "not all could be had: programs of the development shell are missing here" >&2; fi
fi
exec "$@"
"#;

/// Builds installables and says which came to what. Arguments: `nix`, a directory for links, then the installables. Nix's log
/// goes to stderr, JSON to stdout: first that of all together, then, if there are several, of each alone, since Nix tells
/// them in an order of its own. If the build failed, what is still to be built, instead.
pub const BUILD_SCRIPT: &str = r#"
nix=$1 links=$2
shift 2
build() { "$nix" --extra-experimental-features 'nix-command flakes' build --log-format internal-json -v --json "$@"; }
code=0
build --keep-going --out-link "$links/result" -- "$@" || code=$?
if test $code -ne 0; then
    echo '@ropewalk plan' >&2
    build --dry-run -- "$@" || :
    exit $code
fi
if test $# -gt 1; then
    echo '@ropewalk outputs' >&2
    for one; do build --no-link -- "$one"; done
fi
"#;

/// What a development shell brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shell {
    /// Exported variables that differ from those it was begun with, by name.
    pub variables: BTreeMap<OsString, OsString>,
    /// The file of functions and arrays, for bash; `None` if there are none.
    pub functions: Option<PathBuf>,
}

impl Shell {
    /// Reads what [`SHELL_SCRIPT`] left. `before` is what the script was begun with.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or has more than [`SHELL_BYTES_MAX`] bytes.
    pub fn read(directory: &Path, before: &crate::Variables) -> io::Result<Self> {
        let bounded = |name: &str| {
            let path = directory.join(name);
            match path.metadata()?.len() {
                ..=SHELL_BYTES_MAX => std::fs::read(&path).map(|content| (path, content)),
                bytes => Err(io::Error::other(format!("its {name} have {bytes} bytes; the most is {SHELL_BYTES_MAX}"))),
            }
        };
        let (_, text) = bounded("variables")?;
        let (functions, content) = bounded("functions")?;
        let variables = text
            .split(|byte| *byte == 0)
            .filter_map(|pair| {
                let equals = memchr::memchr(b'=', pair)?;
                Some((OsStr::from_bytes(&pair[..equals]), OsStr::from_bytes(&pair[equals + 1..])))
            })
            .filter(|(name, value)| is_taken(name) && before.get(name) != Some(value))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Self { variables, functions: Some(functions).filter(|_| !content.is_empty()) })
    }
}

/// Whether a variable of a shell becomes one of the job. Exported functions, which bash writes as variables, do not.
fn is_taken(name: &OsStr) -> bool {
    let is_ours = |name: &str| LEFT_OUT.contains(&name) || crate::file_commands::is_reserved(name);
    name.to_str().is_some_and(|name| !name.is_empty() && !name.starts_with("BASH_FUNC_") && !is_ours(name))
}

/// The name of a store path or derivation without its digest: `hello` of `/nix/store/…-hello.drv`.
#[must_use]
pub fn name_of(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split_once('-').map_or(file, |(_, name)| name);
    name.strip_suffix(".drv").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{DEFAULT_PROFILE, NoNix, Shell, find_in, name_of};
    use crate::Variables;

    #[test]
    fn nix_is_a_program_in_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nix");
        fs::create_dir(&file).unwrap();
        let is_installed = std::path::Path::new(DEFAULT_PROFILE).join("nix").is_file();
        if !is_installed {
            assert_eq!(find_in(folder.path().as_os_str()), Err(NoNix), "a directory of that name");
        }
        fs::remove_dir(&file).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_in(folder.path().as_os_str()), Ok(file));
    }

    #[test]
    fn a_shell_brings_what_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let variables =
            "A=1\0B=2\nx\0PWD=/x\0TMPDIR=/y\0ROPEWALK_JOB=evil\0BASH_FUNC_f%%=() { :; }\0PATH=/n:/bin\0=x\0none\0";
        fs::write(folder.path().join("variables"), variables).unwrap();
        fs::write(folder.path().join("functions"), "").unwrap();
        let before: Variables = [("A", "1"), ("PATH", "/bin")].into_iter().collect();
        let shell = Shell::read(folder.path(), &before).unwrap();
        let expected = [("B", "2\nx"), ("PATH", "/n:/bin")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(shell, Shell { variables: expected.into(), functions: None });
        fs::write(folder.path().join("functions"), "f () \n{\n :\n}\n").unwrap();
        let shell = Shell::read(folder.path(), &before).unwrap();
        assert_eq!(shell.functions, Some(folder.path().join("functions")));
    }

    #[test]
    fn names_of_paths() {
        for (path, name) in [("/nix/store/0abc-hello-2.1.drv", "hello-2.1"), ("/nix/store/0abc-x", "x"), ("odd", "odd")]
        {
            assert_eq!(name_of(path), name);
        }
    }
}
