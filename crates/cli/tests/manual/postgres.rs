//! An image of a real PostgreSQL for the page about all environments, since no registry is at hand: the programs that Debian's package has
//! put on this machine with the libraries they need, busybox, and an entry point that does what that of the official image does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian has PostgreSQL, a folder for each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Where Debian has what the programs read.
const SHARED: &str = "/usr/share/postgresql";

/// The user of the database's files.
const USER: u64 = 999;

/// The first process: makes the database's files, if there are none.
const ENTRY_POINT: &str = r#"#!/bin/sh
set -e
if [ "$1" = postgres ] && ! [ -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata "$PGDATA" --username postgres --pwfile /tmp/password --encoding UTF8 --locale C \
        --auth-local trust --auth-host scram-sha-256 --no-sync > /dev/null
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
fi
exec "$@"
"#;

/// How the image differs from its files.
pub const CHANGES: [&str; 5] = [
    "USER postgres",
    "ENV PGDATA=/var/lib/postgresql/data",
    "ENV PATH=/usr/local/bin:/usr/lib/postgresql/bin:/bin",
    r#"ENTRYPOINT ["docker-entrypoint.sh"]"#,
    r#"CMD ["postgres"]"#,
];

type Archive = tar::Builder<Vec<u8>>;

/// The image's files; `None`, and a word, if there is no PostgreSQL.
pub fn archive(busybox: &Path) -> Option<Vec<u8>> {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten().map(|entry| entry.path());
    let Some(folder) = versions.filter(|folder| folder.join("bin/initdb").is_file()).max() else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no PostgreSQL in {PROGRAMS}");
        eprintln!("skipped: the page about all environments, since there is no PostgreSQL in {PROGRAMS}");
        return None;
    };
    let version = folder.file_name().expect("it is below another");
    let programs =
        ["bin/postgres", "bin/initdb", "bin/psql", "bin/pg_isready", "lib/plpgsql.so", "lib/dict_snowball.so"];
    let programs: Vec<PathBuf> = programs.iter().map(|name| folder.join(name)).collect();
    let mut archive = tar::Builder::new(Vec::new());
    for file in libraries(&programs).iter().chain(&programs) {
        add(&mut archive, file);
    }
    add_shared(&mut archive, &Path::new(SHARED).join(version));
    link(&mut archive, "usr/lib/postgresql/bin", &folder.join("bin").display().to_string());
    archive.append_path_with_name(busybox, "bin/busybox").expect("busybox is read");
    for applet in ["cat", "diff", "grep", "ls", "rm", "sed", "sh"] {
        link(&mut archive, &format!("bin/{applet}"), "busybox");
    }
    let users = format!("root:x:0:0::/root:/bin/sh\npostgres:x:{USER}:{USER}::/var/lib/postgresql:/bin/sh\n");
    write(&mut archive, "etc/passwd", 0o644, &users);
    write(&mut archive, "usr/local/bin/docker-entrypoint.sh", 0o755, ENTRY_POINT);
    write(&mut archive, "bin/locale", 0o755, "#!/bin/sh\necho C\n");
    for (path, user, mode) in [
        ("tmp", 0, 0o1777),
        ("usr/share/zoneinfo", 0, 0o755),
        ("var/lib/postgresql/data", USER, 0o700),
        ("var/run/postgresql", USER, 0o755),
    ] {
        let mut header = header(tar::EntryType::Directory, mode);
        header.set_uid(user);
        header.set_gid(user);
        archive.append_data(&mut header, path, std::io::empty()).expect("memory");
    }
    Some(archive.into_inner().expect("memory"))
}

/// What the dynamic linker loads for these, itself included.
fn libraries(programs: &[PathBuf]) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").args(programs).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The programs' own names have a colon behind them.
    let words = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    words.map(PathBuf::from).collect()
}

/// What the server reads when it makes a database; of extensions the one that every database has.
fn add_shared(archive: &mut Archive, folder: &Path) {
    for entry in fs::read_dir(folder).expect("PostgreSQL has its files") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_extension = folder.ends_with("extension") && !name.starts_with("plpgsql");
        match path.is_dir() {
            true if name != "man" => add_shared(archive, &path),
            false if !is_extension => add(archive, &path),
            _ => {}
        }
    }
}

/// A file at its own path; of a link that to which it leads.
fn add(archive: &mut Archive, file: &Path) {
    let text = fs::read(file).expect("a readable file");
    let mut header = header(tar::EntryType::Regular, 0o755);
    header.set_size(text.len() as u64);
    archive.append_data(&mut header, file.strip_prefix("/").expect("it is absolute"), text.as_slice()).expect("memory");
}

fn write(archive: &mut Archive, path: &str, mode: u32, text: &str) {
    let mut header = header(tar::EntryType::Regular, mode);
    header.set_size(text.len() as u64);
    archive.append_data(&mut header, path, text.as_bytes()).expect("memory");
}

fn link(archive: &mut Archive, path: &str, to: &str) {
    archive.append_link(&mut header(tar::EntryType::Symlink, 0o777), path, to).expect("memory");
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}
