//! What makes one tree another: a layer of an overlay that is laid over the one shows the other.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::index::{Entry, Index, Kind};

/// What is to be laid over `old` to show `new`: entries that `old` has not, or has otherwise, and whiteouts of what is gone. Times of
/// directories are passed over. `None` if one of both is itself a layer, of which other layers may be hidden.
#[must_use]
pub fn difference<'n>(new: &'n Index, old: &Index) -> Option<Vec<Cow<'n, Entry>>> {
    let is_mark = |entry: &Entry| matches!(entry.kind, Kind::Whiteout | Kind::Opaque);
    if new.entries.iter().chain(&old.entries).any(is_mark) {
        return None;
    }
    let mut entries: Vec<Cow<'n, Entry>> = Vec::new();
    let mut gone: Vec<PathBuf> = Vec::new();
    let mut olds = old.entries.iter().peekable();
    for entry in &new.entries {
        while let Some(before) = olds.next_if(|before| order(before, entry).is_lt()) {
            gone.extend(hidden(new, &before.path));
        }
        let before = olds.next_if(|before| order(before, entry).is_eq());
        if !before.is_some_and(|before| is_same(new, entry, old, before)) {
            entries.push(Cow::Borrowed(entry));
        }
    }
    gone.extend(olds.filter_map(|before| hidden(new, &before.path)));
    // Of a directory that is gone each entry gives the same name.
    gone.sort_unstable();
    gone.dedup();
    let whiteout = |path| Entry { path, mode: 0, modified_ns: 0, kind: Kind::Whiteout };
    entries.extend(gone.into_iter().map(|path| Cow::Owned(whiteout(path))));
    Some(entries)
}

fn order(one: &Entry, two: &Entry) -> Ordering {
    plain(&one.path).cmp(plain(&two.path))
}

/// A name's bytes. What is cached itself was named with a slash at its end.
fn plain(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_suffix(b"/").unwrap_or(bytes)
}

fn is_same(new: &Index, entry: &Entry, old: &Index, before: &Entry) -> bool {
    match (&entry.kind, &before.kind) {
        (Kind::File { uses, .. }, Kind::File { uses: others, .. }) => {
            entry.mode == before.mode
                && entry.modified_ns == before.modified_ns
                && new.is_same_content(uses, old, others)
        }
        (Kind::Directory, Kind::Directory) => entry.mode == before.mode,
        (one, two) => one == two,
    }
}

/// The topmost name that must be hidden for a name to be gone; `None` if something that is in the way hides it, or it is not gone.
fn hidden(new: &Index, path: &Path) -> Option<PathBuf> {
    let mut so_far = PathBuf::new();
    for component in path.components() {
        so_far.push(component);
        match at(new, &so_far) {
            At::Nothing => return Some(so_far),
            At::Directory => {}
            At::Other => return None,
        }
    }
    None
}

/// What a tree has at a name.
enum At {
    Nothing,
    Directory,
    Other,
}

fn at(index: &Index, path: &Path) -> At {
    let name = path.as_os_str().as_bytes();
    let mut inside = name.to_vec();
    inside.push(b'/');
    let from = |least: &[u8]| {
        let place = index.entries.partition_point(|entry| entry.path.as_os_str().as_bytes() < least);
        index.entries.get(place)
    };
    match from(name) {
        Some(entry) if plain(&entry.path) == name && !entry.kind.is_directory() => return At::Other,
        Some(entry) if plain(&entry.path) == name => return At::Directory,
        _ => {}
    }
    match from(&inside) {
        Some(entry) if entry.path.as_os_str().as_bytes().starts_with(&inside) => At::Directory,
        _ => At::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use graph::Digest;

    use super::super::{Chunk, Pack};
    use super::*;

    /// A tree of files with a byte each as content; `d/` is a directory, `l@x` a link, and a name is all that a file holds.
    fn tree(names: &[&str]) -> Index {
        let mut index = Index { packs: vec![Pack { digest: Digest([0; 32]), bytes: 1 << 20 }], ..Index::default() };
        for name in names {
            let (path, kind) = match name.split_once(['@', '=']) {
                Some((path, target)) if name.contains('@') => (path, Kind::Link { target: target.into() }),
                Some((path, content)) => (path, file(&mut index, content)),
                None if name.ends_with('/') => (&name[..name.len() - 1], Kind::Directory),
                None => (*name, file(&mut index, name)),
            };
            index.entries.push(Entry { path: path.into(), mode: 0o644, modified_ns: 0, kind });
        }
        index.entries.sort_by(|one, two| graph::patterns::by_bytes(&one.path, &two.path));
        index
    }

    fn file(index: &mut Index, content: &str) -> Kind {
        let place = u32::try_from(index.uses.len()).unwrap();
        let digest = Digest(*blake3::hash(content.as_bytes()).as_bytes());
        index.chunks.push(Chunk { digest, pack: 0, offset: place, length: 1 });
        index.uses.push(place);
        Kind::File { bytes: 1, uses: place..place + 1 }
    }

    #[track_caller]
    fn check(old: &[&str], new: &[&str], expected: &[&str]) {
        let (old, new) = (tree(old), tree(new));
        let entries = difference(&new, &old).unwrap();
        let text = |entry: &Cow<'_, Entry>| {
            let mark = if entry.kind == Kind::Whiteout { "-" } else { "" };
            format!("{mark}{}", entry.path.display())
        };
        assert_eq!(entries.iter().map(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_the_same_is_not_laid() {
        check(&["a/", "a/b", "l@x"], &["a/", "a/b", "l@x"], &[]);
        check(&[], &["a/", "a/b"], &["a", "a/b"]);
    }

    #[test]
    fn what_changed_is_laid() {
        check(&["a/", "a/b=1", "l@x"], &["a/", "a/b=2", "l@y"], &["a/b", "l"]);
        check(&["b"], &["b@c"], &["b"]);
    }

    #[test]
    fn a_directory_of_another_mode_is_laid() {
        let (mut new, old) = (tree(&["a/", "a/b"]), tree(&["a/", "a/b"]));
        new.entries[0].mode = 0o700;
        assert_eq!(difference(&new, &old), Some(vec![Cow::Borrowed(&new.entries[0])]));
    }

    #[test]
    fn what_is_gone_is_hidden_once() {
        check(&["a/", "a/b", "a/c/", "a/c/d", "a/c/e", "f"], &["a/", "a/b"], &["-a/c", "-f"]);
        check(&["a/", "a/b", "a-b"], &["a-b"], &["-a"]);
        // Directories that no entry names.
        check(&["a/c/d", "a/c/e", "a/f"], &["a/f"], &["-a/c"]);
        check(&["a/c/d", "a/c/e"], &["a/c/e"], &["-a/c/d"]);
    }

    #[test]
    fn what_is_in_the_way_hides() {
        check(&["a/", "a/b", "a/c/", "a/c/d"], &["a"], &["a"]);
        check(&["a"], &["a/", "a/b"], &["a", "a/b"]);
    }

    #[test]
    fn the_root_is_there_whatever_ends_its_name() {
        let slash = |index: &mut Index| {
            let entry = Entry { path: "0/".into(), mode: 0o644, modified_ns: 0, kind: Kind::Directory };
            index.entries.insert(1, entry);
        };
        let (mut both, plain) = (tree(&["0/", "0/a"]), tree(&["0/", "0/a"]));
        slash(&mut both);
        assert_eq!(difference(&plain, &both), Some(Vec::new()));
        assert_eq!(difference(&both, &plain).unwrap().len(), 1);
        both.entries.remove(0);
        assert_eq!(difference(&plain, &both), Some(Vec::new()));
        assert_eq!(difference(&both, &plain), Some(Vec::new()));
    }

    #[test]
    fn a_layer_differs_in_ways_that_cannot_be_laid() {
        let (mut layer, plain) = (tree(&["a"]), tree(&["a"]));
        layer.entries[0].kind = Kind::Whiteout;
        assert_eq!(difference(&layer, &plain), None);
        assert_eq!(difference(&plain, &layer), None);
    }
}
