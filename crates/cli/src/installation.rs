//! A server's installation on this machine: its data folder, its settings, its records. What `serve` and the commands that
//! look after a server open alike.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dialects::report;
use server::access::{Keys, KeysError, NewKeys, SEALING_KEY_FILE, is_unfinished_key};
use server::settings::{Loaded, SettingsFile, load};

use crate::args::{Colour, Installation};
use crate::commands::Stop;
use crate::local::clock::now;
use crate::output;

/// The file of settings in the data folder.
pub const SETTINGS_FILE: &str = "settings.toml";
/// The file in the data folder whose lock a server holds while it runs.
pub const SERVE_LOCK: &str = "serve.lock";
/// What a disk that holds nothing has.
const LOST_FOUND: &str = "lost+found";
/// What lies in a data folder before and after the first start of a server, keys apart: they make it an installation.
const OWN: [&str; 9] = [
    SETTINGS_FILE,
    SERVE_LOCK,
    SEALING_KEY_FILE,
    server::doctor::ADDRESS,
    "records",
    "blobs",
    "logs",
    "worker",
    "scratch",
];
/// How many of other things are named.
const FOREIGN_SHOWN_MAX: usize = 3;
/// The most bytes of that file that are read.
const LOCK_BYTES_MAX: u64 = 100;
/// The largest file of settings.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// What to do where no server has its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfNone {
    /// Refuse.
    Refuse,
    /// Begin one, if the folder was named and is empty or not there yet.
    BeginInEmpty,
}

/// Who holds the lock of a data folder, in words.
pub struct Holder(pub String);

/// Takes the lock of a data folder for this command, and writes down who has it; or gives who else holds it.
///
/// # Errors
/// What the file system says.
pub fn lock(folder: &Path, command: &str) -> io::Result<Result<File, Holder>> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(SERVE_LOCK))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "`ropewalk {command}`, process {}", std::process::id())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => Ok(Err(read_holder(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who holds the lock of a data folder; `None` if nobody does.
///
/// # Errors
/// What the file system says.
pub fn holder(folder: &Path) -> io::Result<Option<Holder>> {
    let mut file = match File::open(folder.join(SERVE_LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    // One of an earlier release writes nothing.
    let _ = file.take(LOCK_BYTES_MAX).read_to_string(&mut text);
    let text = crate::words::harmless(text.trim()).to_string();
    Holder(if text.is_empty() { "a process that has not said which".to_owned() } else { text })
}

/// The keys of a data folder, which are those of its records.
///
/// # Errors
/// If they are not, or cannot be used.
pub fn keys(folder: &Path, store: &Arc<dyn store::Store>, new: NewKeys) -> Result<Keys, Stop> {
    Keys::open(folder, store, new, now()).map_err(|error| match error {
        KeysError::Missing { .. } | KeysError::Foreign { .. } | KeysError::NoRecords { .. } => {
            Stop::wrong(error.to_string())
        }
        error => Stop::of(&error),
    })
}

/// The data folder of a server that was given none.
fn default_data() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").unwrap_or_default().join(".local/share");
    set("XDG_DATA_HOME").filter(|path| path.is_absolute()).unwrap_or_else(home).join("ropewalk/server")
}

/// Why there are no settings.
pub enum NoSettings {
    /// Their file cannot be read.
    Unread(Stop),
    /// What stands there is wrong: each fault at its line, for people.
    Wrong(String),
}

impl Installation {
    /// The data folder, absolute.
    pub fn folder(&self) -> PathBuf {
        let folder = self.data.clone().unwrap_or_else(default_data);
        std::env::current_dir().unwrap_or_default().join(folder)
    }

    /// The data folder, which holds an installation.
    ///
    /// # Errors
    /// If it does not.
    pub fn existing_folder(&self) -> Result<PathBuf, Stop> {
        let folder = self.folder();
        if server::parts::is_installation(&folder) {
            return Ok(folder);
        }
        Err(Stop::wrong(format!("no server has its data in {}: give its folder by --data DIR", folder.display())))
    }

    /// Where the file of settings is, if one was named or is in the data folder.
    pub fn settings_path(&self) -> Option<PathBuf> {
        let own = || Some(self.folder().join(SETTINGS_FILE)).filter(|path| path.exists());
        self.config.clone().or_else(own)
    }

    /// The file of settings, if there is one.
    ///
    /// # Errors
    /// If one was named that cannot be read, or it is too large.
    fn file(&self) -> Result<Option<SettingsFile>, Stop> {
        let Some(path) = self.settings_path() else { return Ok(None) };
        let refused = |error: std::io::Error| {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => "; `ropewalk config --output toml` prints some to begin with",
                _ => "",
            };
            Stop::wrong(format!("cannot read the settings {}: {error}{help}", path.display()))
        };
        if std::fs::metadata(&path).map_err(refused)?.len() > SETTINGS_BYTES_MAX {
            return Err(Stop::wrong(format!("{} is larger than {SETTINGS_BYTES_MAX} bytes", path.display())));
        }
        let text = std::fs::read(&path).map_err(refused)?;
        Ok(Some(SettingsFile { name: path.display().to_string(), text }))
    }

    /// The settings, with those that `flags` give. What is wrong with them is printed, each at its line.
    ///
    /// # Errors
    /// If anything is.
    pub fn settings(&self, flags: &[(&str, String)], colour: Colour) -> Result<Loaded, Stop> {
        let color =
            if output::coloured(colour, &std::io::stderr()) { report::Color::Always } else { report::Color::Never };
        self.read_settings(flags, color).map_err(|error| match error {
            NoSettings::Unread(stop) => stop,
            NoSettings::Wrong(text) => {
                let _ = std::io::stderr().write_all(text.as_bytes());
                Stop::wrong("")
            }
        })
    }

    /// As [`Installation::settings`]; nothing is printed.
    ///
    /// # Errors
    /// [`NoSettings`].
    pub fn read_settings(&self, flags: &[(&str, String)], color: report::Color) -> Result<Loaded, NoSettings> {
        let file = self.file().map_err(NoSettings::Unread)?;
        let environment =
            std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
        load(flags, file.as_ref(), &environment)
            .map_err(|fault| NoSettings::Wrong(report::text(&fault.diagnostics, &fault.sources, color)))
    }

    /// What makes and checks the tokens of an installation, and its records.
    ///
    /// # Errors
    /// If there is none in the folder and none may begin there, or it cannot be opened.
    pub fn access(
        &self,
        if_none: IfNone,
        colour: Colour,
    ) -> Result<(server::access::Access, Arc<dyn store::Store>), Stop> {
        let folder = self.folder();
        self.require(&folder, if_none)?;
        std::fs::create_dir_all(&folder)
            .map_err(|error| Stop::wrong(format!("cannot make {}: {error}", folder.display())))?;
        let store = server::parts::open_store(&self.settings(&[], colour)?.settings, &folder)?;
        let root = keys(&folder, &store, NewKeys::Refused)?.root;
        let ledger = server::access::StoreLedger(Arc::clone(&store));
        Ok((server::access::Access::new(root, Arc::new(ledger)), store))
    }

    /// A wrong folder must not become an installation by a slip of the pen; an empty one that was named may, so that tokens
    /// can be made before the first start.
    fn require(&self, folder: &Path, if_none: IfNone) -> Result<(), Stop> {
        if server::parts::is_installation(folder) {
            return Ok(());
        }
        if if_none == IfNone::BeginInEmpty && self.data.is_some() && contents(folder).is_empty() {
            let folder = folder.display();
            let _ = writeln!(io::stderr(), "note: no server has its data in {folder} yet: a new one begins there");
            return Ok(());
        }
        Err(Stop::wrong(format!(
            "no server has its data in {}: give its folder by --data DIR, or start one with `ropewalk serve`",
            folder.display()
        )))
    }

    /// Refuses to begin an installation among other things, such as in a checkout.
    ///
    /// # Errors
    /// If the folder holds what is no server's, and no server.
    pub fn refuse_foreign(&self) -> Result<(), Stop> {
        let folder = self.folder();
        if server::parts::is_installation(&folder) {
            return Ok(());
        }
        let is_config = |name: &OsStr| self.config.as_deref().is_some_and(|path| path.file_name() == Some(name));
        let is_own = |name: &OsStr| {
            is_config(name) || name.to_str().is_some_and(|name| OWN.contains(&name) || is_unfinished_key(name))
        };
        let mut foreign = contents(&folder);
        foreign.retain(|name| !is_own(name));
        let shown: Vec<String> =
            foreign.iter().take(FOREIGN_SHOWN_MAX).map(|name| format!("`{}`", name.display())).collect();
        let more = match foreign.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match shown.is_empty() {
            true => Ok(()),
            false => Err(Stop::wrong(format!(
                "{} holds no server's data, but {}{more}: a server needs a folder of its own; give one by --data DIR that is \
                 empty, or not there yet",
                folder.display(),
                shown.join(", "),
            ))),
        }
    }
}

/// The names of what lies in a folder, sorted; nothing if it is not there. A disk's own `lost+found` is nothing.
fn contents(folder: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).filter(|name| name != LOST_FOUND).collect();
    names.sort();
    names
}
