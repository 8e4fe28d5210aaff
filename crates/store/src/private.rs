//! Folders that other accounts of the machine cannot look into.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a folder that only its owner can enter (mode 700), and so those above it that are missing. One that is there stays as it is: who
/// opened it to others meant it.
///
/// # Errors
/// As the system refuses.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
