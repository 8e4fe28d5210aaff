//! The files that pages load: embedded, named by their content, kept by browsers for ever.

/// One file.
pub struct Asset {
    /// Its name.
    pub name: &'static str,
    /// Its media type.
    pub media: &'static str,
    /// Its content.
    pub text: &'static str,
}

/// The style of all pages, one file to load: what all have, then what lists of projects, tests, workers and settings have.
const STYLE: &str = concat!(include_str!("../assets/style.css"), include_str!("../assets/overview.css"));

/// All files. `page.js` loads on every page and imports the others by their own names, beside it.
pub const ASSETS: [Asset; 9] = [
    Asset { name: "style.css", media: "text/css; charset=utf-8", text: STYLE },
    Asset { name: "build.css", media: "text/css; charset=utf-8", text: include_str!("../assets/build.css") },
    Asset { name: "build.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/build.js") },
    Asset { name: "page.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/page.js") },
    Asset { name: "live.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/live.js") },
    Asset { name: "session.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/session.js") },
    Asset { name: "log.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/log.js") },
    Asset { name: "terminal.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/terminal.js") },
    Asset { name: "icon.svg", media: "image/svg+xml", text: include_str!("../assets/icon.svg") },
];

/// What is not ours: the terminal emulation that `terminal.js` loads, from beside it (`assets/xterm/README.md`).
pub const VENDORED: [Asset; 3] = [
    Asset { name: "xterm.css", media: "text/css; charset=utf-8", text: include_str!("../assets/xterm/xterm.css") },
    Asset { name: "xterm.js", media: "text/javascript; charset=utf-8", text: include_str!("../assets/xterm/xterm.js") },
    Asset {
        name: "addon-fit.js",
        media: "text/javascript; charset=utf-8",
        text: include_str!("../assets/xterm/addon-fit.js"),
    },
];

/// What says in an edition which files of others it has: they are long, and change with their release alone. Its last number counts our own changes.
const VENDORED_EDITION: &str = "xterm 6.0.0, addon-fit 0.11.0, 1";

/// Names all files as they are now: another content is another folder, so modules that import each other always match.
const EDITION: u64 = edition();

/// FNV-1a over all contents of our own and the releases of others; it tells editions apart and guards nothing.
const fn edition() -> u64 {
    let mut hash = hashed(0xcbf2_9ce4_8422_2325, VENDORED_EDITION.as_bytes());
    let mut file = 0;
    while file < ASSETS.len() {
        hash = hashed(hash, ASSETS[file].text.as_bytes());
        file += 1;
    }
    hash
}

const fn hashed(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

/// Where a file is.
#[must_use]
pub fn path(name: &str) -> String {
    format!("/assets/{EDITION:016x}/{name}")
}

/// The file of a path's two last parts; `None` if it is of another edition, or there is none.
#[must_use]
pub fn find(edition: &str, name: &str) -> Option<&'static Asset> {
    let asset = ASSETS.iter().chain(&VENDORED).find(|asset| asset.name == name)?;
    (edition == format!("{EDITION:016x}")).then_some(asset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_where_pages_look() {
        for asset in ASSETS.iter().chain(&VENDORED) {
            let path = path(asset.name);
            let parts: Vec<&str> = path.split('/').collect();
            assert_eq!(find(parts[2], parts[3]).map(|found| found.name), Some(asset.name));
            assert!(find("0", asset.name).is_none());
        }
    }

    #[test]
    fn the_terminal_writes_no_style_that_the_policy_refuses() {
        for asset in &VENDORED {
            for refused in ["createElement(\"style\")", "setAttribute(\"style\"", "eval(", "new Function("] {
                assert!(!asset.text.contains(refused), "{} has `{refused}`", asset.name);
            }
        }
    }
}
