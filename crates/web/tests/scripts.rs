//! The scripts of pages name their types in comments; TypeScript finds nothing wrong with them.
//!
//! `cargo xtask test` installs it into `target/npm`.

use std::path::Path;
use std::process::Command;

#[test]
fn scripts_keep_to_their_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = root.join("../../target/npm/node_modules/typescript/bin/tsc");
    if !compiler.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs {}", compiler.display());
        eprintln!("skipped: `cargo xtask test` installs TypeScript");
        return;
    }
    let mut command = Command::new("node");
    command.arg(compiler).args(["--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2023"]);
    command.args(["--lib", "es2023,dom,dom.iterable", "--module", "esnext"]);
    let scripts = web::assets::ASSETS.iter().map(|asset| asset.name).filter(|name| name.ends_with(".js"));
    command.args(scripts.map(|name| root.join("assets").join(name)));
    // The types of what is not ours.
    command.arg(root.join("assets/xterm/xterm.d.ts"));
    let output = command.output().expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
