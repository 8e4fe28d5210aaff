//! The commands that look after a server, as programs: backup, restore, doctor, and records that move to PostgreSQL and back.

#[path = "../../store/tests/database/mod.rs"]
#[allow(dead_code, reason = "this file takes what it needs")]
mod database;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use database::Database;

/// A data folder that knows three clients, as text beside the folder.
struct Place {
    scratch: tempfile::TempDir,
}

/// What a command said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let place = Self { scratch: tempfile::tempdir().unwrap() };
        for client in ["ann", "bob", "cy"] {
            let made = place.run(&["token", "create", "--data", "data", "--submit", "--client", client]);
            assert_eq!(made.code, Some(0), "{made:?}");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Self::said(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command
            .args(arguments)
            .current_dir(self.scratch.path())
            .env("NO_COLOR", "1")
            .env("ROPEWALK_WORKER_LOCAL", "off")
            .env("ROPEWALK_SERVER_LISTEN", "127.0.0.1:0");
        command
    }

    fn said(mut command: Command) -> Said {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32, out: &str, err: &str) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.out.contains(out) && said.err.contains(err), "{said:?}");
        said
    }

    /// The id of the token of a client.
    fn id_of(&self, client: &str) -> String {
        let said = self.check(&["token", "list", "--data", "data"], 0, "", "");
        let row = said.out.lines().find(|line| line.contains(&format!("client {client} "))).unwrap().to_owned();
        row.split_whitespace().next().unwrap().to_owned()
    }

    /// The clients that a data folder knows, with these settings.
    fn clients(&self, data: &str) -> String {
        let said = self.check(&["token", "list", "--data", data, "--output", "json"], 0, "", "");
        let rows: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        rows.to_string()
    }
}

#[test]
fn a_backup_is_made_verified_and_put_back() {
    let place = Place::new();
    let made = place.check(&["backup", "--data", "data", "copy"], 0, "0 builds (0 facts)", "");
    assert!(made.out.contains("it holds the server's keys"), "{made:?}");
    place.check(&["backup", "--data", "data", "copy"], 2, "", "copy is not empty");
    place.check(&["restore", "--verify", "copy"], 0, "whole: 0 builds", "");
    place.check(&["restore", "copy", "--data", "back"], 0, "next: ropewalk doctor --data", "");
    assert_eq!(place.clients("back"), place.clients("data"));
    place.check(&["restore", "copy", "--data", "back"], 2, "", "back is not empty");
    let mode =
        |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777;
    assert_eq!([mode(&place.path("copy/keys/root.key")), mode(&place.path("back/root.key"))], [0o600, 0o600]);
    let database = place.path("copy/records/ropewalk.db");
    let mut bytes = fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&database, bytes).unwrap();
    place.check(&["restore", "--verify", "copy"], 1, "damaged: the database is not what it was", "");
    place.check(&["restore", "copy", "--data", "other"], 1, "restore what there is of it by --damaged", "");
    assert!(!place.path("other").exists());
    place.check(&["restore", "--verify", "data"], 2, "", "holds no whole backup");
}

#[test]
fn a_backup_and_its_return_say_where_the_blobs_are() {
    let place = Place::new();
    let settings = format!("blobs.url = \"directory:{}\"\n", place.path("apart").display());
    fs::write(place.path("data/settings.toml"), settings).unwrap();
    place.check(&["backup", "--data", "data", "copy"], 0, "0 builds (0 facts), 0 blobs and 0 logs are in copy", "");
    let back = format!("its blobs are in {}\n", place.path("apart").display());
    place.check(&["restore", "copy", "--data", "back"], 0, &back, "");
    fs::write(place.path("apart/letters"), "dear").unwrap();
    let beside = "where the server had them, holds something else; set `blobs.url` to `directory`, or move them";
    place.check(&["restore", "copy", "--data", "beside"], 0, beside, "");
}

#[test]
fn what_there_is_of_a_damaged_backup_is_put_back_and_what_is_missing_is_told() {
    let place = Place::new();
    place.check(&["backup", "--data", "data", "copy"], 0, "0 builds (0 facts)", "");
    fs::remove_file(place.path("copy/keys/secrets.key")).unwrap();
    place.check(&["restore", "copy", "--data", "back"], 1, "damaged: the key `secrets.key` cannot be read", "");
    assert!(!place.path("back").exists());
    let said = place.check(&["restore", "copy", "--damaged", "--data", "back"], 0, "\nmissing: secrets.key\n", "");
    assert!(
        said.out.starts_with("damaged: the key `secrets.key`") && said.out.contains("\nrestored 0 builds into "),
        "{said:?}"
    );
    assert!(place.path("back/root.key").exists() && !place.path("back/secrets.key").exists());
    // Without its database nothing can be put back, and nothing stays of it.
    fs::write(place.path("copy/records/ropewalk.db"), "no database, however long it may be ".repeat(99)).unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    for folder in ["other", "empty", "empty"] {
        let said = place.check(&["restore", "copy", "--damaged", "--data", folder], 3, "", "the database is damaged: ");
        assert_eq!(said.err.matches("file is not a database").count(), 1, "{said:?}");
    }
    assert!(!place.path("other").exists() && place.path("empty").exists());
}

#[test]
fn a_doctor_says_what_to_do() {
    let place = Place::new();
    place.check(&["doctor", "--data", "nowhere"], 1, "wrong  folder", "");
    let first = place.check(&["doctor", "--data", "data", "--output", "json"], 1, "", "");
    let report: serde_json::Value = serde_json::from_str(&first.out).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let findings: Vec<String> = checks
        .iter()
        .filter(|check| check["name"] != "room")
        .flat_map(|check| check["findings"].as_array().unwrap())
        .map(|finding| format!("{}: {}", finding["check"].as_str().unwrap(), finding["what"].as_str().unwrap()))
        .collect();
    // The server was never started: no worker came.
    assert_eq!(findings, ["workers: no worker has ever joined"]);
    let holds = |what: &str| format!("good   lock: {what}\n");
    place.check(&["doctor", "--data", "data"], 1, &holds("no server runs with this folder"), "");
    fs::write(place.path("data/serve.lock"), "`ropewalk serve`, process 77\n").unwrap();
    let lock = fs::File::open(place.path("data/serve.lock")).unwrap();
    lock.lock().unwrap();
    place.check(&["doctor", "--data", "data"], 1, &holds("`ropewalk serve`, process 77 holds the folder"), "");
    place.check(&["serve", "--data", "data"], 2, "", "`ropewalk serve`, process 77 holds the folder");
    drop(lock);
    fs::write(place.path("data/settings.toml"), "[store]\nurk = 1\n").unwrap();
    place.check(&["doctor", "--data", "data"], 1, "wrong  settings: the settings are wrong", "urk");
}

#[test]
fn no_server_starts_with_other_keys_than_its_records() {
    let place = Place::new();
    let token = |code, err| place.check(&["token", "create", "--data", "data", "--admin"], code, "", err);
    fs::remove_file(place.path("data/secrets.key")).unwrap();
    let lost =
        "secrets.key is missing, and without it no secret that was put can be opened: put the key back from a backup";
    token(2, lost);
    place.check(&["serve", "--data", "data"], 2, "", lost);
    place.check(&["doctor", "--data", "data"], 1, "secrets.key is missing", "");
    place.check(&["token", "create", "--data", "other", "--admin"], 0, "", "");
    fs::copy(place.path("other/secrets.key"), place.path("data/secrets.key")).unwrap();
    let foreign = "secrets.key is not the key with which these records were made, and with this one no secret that was put can be opened";
    token(2, foreign);
    place.check(&["serve", "--data", "data"], 2, "", "`ropewalk serve --new-keys` goes on with new ones");
    place.check(&["doctor", "--data", "data"], 1, "secrets.key is not the key with which the records were made", "");
}

#[test]
fn no_server_starts_where_one_ran_and_its_records_are_gone() {
    let place = Place::new();
    // As a server leaves it.
    fs::write(place.path("data/address"), "http://127.0.0.1:7070\n").unwrap();
    fs::rename(place.path("data/records"), place.path("records")).unwrap();
    let refused = "data, and there are no records of it: its builds, members and tokens are in another database";
    place.check(&["serve", "--data", "data"], 2, "", refused);
    place.check(&["token", "create", "--data", "data", "--submit", "--client", "dan"], 2, "", refused);
    fs::remove_dir_all(place.path("data/records")).unwrap();
    fs::rename(place.path("records"), place.path("data/records")).unwrap();
    assert_eq!(place.clients("data").matches("\"ann\"").count(), 1);
}

#[test]
fn a_folder_where_a_first_start_was_killed_is_a_servers() {
    let place = Place::new();
    for folder in ["records", "logs", "blobs"] {
        fs::create_dir_all(place.path("killed").join(folder)).unwrap();
    }
    for file in ["serve.lock", "root.18288.new", "secrets.7.new"] {
        fs::write(place.path("killed").join(file), "").unwrap();
    }
    // It comes to its settings.
    place.check(&["serve", "--data", "killed", "--listen", "nowhere"], 2, "", "nowhere");
    fs::write(place.path("killed/root.letter.new"), "").unwrap();
    place.check(&["serve", "--data", "killed", "--listen", "nowhere"], 2, "", "but `root.letter.new`");
}

#[test]
fn who_may_submit_is_told_to_be_able_to_do_everything_where_jobs_can() {
    let place = Place::new();
    let create = ["token", "create", "--data", "data", "--submit", "--client", "dan"];
    // As the worker beside a server does.
    fs::create_dir(place.path("data/worker")).unwrap();
    let said =
        Command::new(env!("CARGO_BIN_EXE_ropewalk")).args(create).current_dir(place.scratch.path()).output().unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(
        said.status.success() && err.contains("note: jobs that run on the host do so as the server's user"),
        "{err}"
    );
    place.check(&["token", "revoke", "--data", "data", &place.id_of("dan")], 0, "", "");
    let said = place.check(&create, 0, "", "");
    assert_eq!(said.err, "");
}

#[test]
fn a_token_without_a_name_is_known_by_its_id() {
    let place = Place::new();
    let made = place.check(&["token", "create", "--data", "data", "--admin"], 0, "", "");
    fs::write(place.path("admin.token"), made.out).unwrap();
    let said = place.check(&["token", "inspect", "admin.token"], 0, "", "");
    let value = |name: &str| said.out.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(value("holder"), format!("person token {}", &value("id")[..8]));
}

#[test]
fn an_end_is_to_come_and_a_token_that_is_over_is_no_second_one() {
    let place = Place::new();
    let past = ["token", "create", "--data", "data", "--admin", "--until", "2001-01-01T00:00:00Z"];
    place.check(&past, 2, "", "`2001-01-01T00:00:00Z` is over: the token would be refused at once");
    let create = ["token", "create", "--data", "data", "--submit", "--client", "dan"];
    place.check(&[&create[..], &["--until", "1s"]].concat(), 0, "", "");
    let began = std::time::Instant::now();
    while place.run(&create).code != Some(0) {
        assert!(began.elapsed() < std::time::Duration::from_secs(120), "the first one is over");
    }
}

#[test]
fn list_and_inspect_say_alike_what_a_token_grants() {
    let place = Place::new();
    let made = place.check(&["token", "create", "--data", "data", "--admin", "--name", "root"], 0, "", "");
    fs::write(place.path("root.token"), made.out).unwrap();
    place.check(&["token", "inspect", "root.token"], 0, "\nverbs     every one (admin)\n", "");
    place.check(&["token", "list", "--data", "data"], 0, "  person root  every one (admin) ", "");
}

#[test]
fn no_server_begins_by_a_slip_of_the_pen() {
    let place = Place::new();
    let none = "no server has its data in ";
    place.check(&["token", "list", "--data", "slip"], 2, "", none);
    place.check(&["token", "revoke", "--data", "slip", "1"], 2, "", none);
    assert!(!place.path("slip").exists());
    // The disk of a folder has a folder of its own.
    fs::create_dir_all(place.path("fresh/lost+found")).unwrap();
    let create = |data| ["token", "create", "--data", data, "--worker"];
    let begins = "fresh yet: a new one begins there\n";
    let said = place.check(&create("fresh"), 0, "", begins);
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    assert_eq!(place.check(&create("fresh"), 0, "", "").err, "");
    // Another folder, such as a checkout, is no server's.
    fs::create_dir_all(place.path("sails/src")).unwrap();
    fs::write(place.path("sails/Cargo.toml"), "").unwrap();
    place.check(&create("sails"), 2, "", none);
    let holds = "sails holds no server's data, but `Cargo.toml`, `src`: a server needs a folder of its own; ";
    place.check(&["serve", "--data", "sails"], 2, "", holds);
    assert_eq!(fs::read_dir(place.path("sails")).unwrap().count(), 2);
}

#[test]
fn records_move_to_postgresql_and_back() {
    let place = Place::new();
    let Some(database) = Database::start() else { return };
    let url = database.create();
    let clients = place.clients("data");
    // A server that runs holds this lock.
    let lock = fs::File::create(place.path("data/serve.lock")).unwrap();
    lock.lock().unwrap();
    place.check(&["migrate-store", "--data", "data", "--to", &url], 2, "", "a server runs with these records");
    drop(lock);
    place.check(&["migrate-store", "--data", "data", "--to", "sqlite"], 2, "", "are there already");
    place.check(
        &["migrate-store", "--data", "data", "--to", "mysql://x"],
        2,
        "",
        "--to is `mysql://x`: expected `sqlite`, or a PostgreSQL",
    );
    place.check(&["migrate-store", "--data", "data", "--to", &url], 0, "compared row by row", "");
    place.check(&["migrate-store", "--data", "data", "--to", &url], 2, "", "give an empty one");
    fs::write(place.path("data/settings.toml"), format!("[store]\nurl = \"{url}\"\n")).unwrap();
    place.check(&["migrate-store", "--data", "data", "--to", "sqlite"], 2, "", "move that folder away first");
    fs::rename(place.path("data/records"), place.path("earlier")).unwrap();
    assert_eq!(place.clients("data"), clients);
    // A backup of PostgreSQL is a file as well.
    place.check(&["backup", "--data", "data", "copy"], 0, "0 builds", "");
    place.check(&["restore", "copy", "--data", "back"], 0, "set `store.url` to `sqlite`", "");
    place.check(&["migrate-store", "--data", "data", "--to", "sqlite"], 0, "compared row by row", "");
    for data in ["data", "back"] {
        fs::remove_file(place.path(data).join("settings.toml")).unwrap();
        assert_eq!(place.clients(data), clients, "{data}");
    }
}

#[test]
fn what_is_done_to_tokens_on_the_servers_machine_is_audited() {
    let place = Place::new();
    let made = place.check(&["token", "create", "--data", "data", "--submit", "--client", "dee"], 0, "", "");
    std::fs::write(place.path("dee.token"), &made.out).unwrap();
    let narrowed = place.check(&["token", "attenuate", "dee.token", "--verb", "read"], 0, "", "");
    std::fs::write(place.path("weaker.token"), &narrowed.out).unwrap();
    place.check(&["token", "revoke", "--data", "data", "--token", "weaker.token"], 0, "", "revoked this narrowing of");
    place.check(
        &["token", "revoke", "--data", "data", "--token", "dee.token"],
        0,
        "",
        "with all that was narrowed from it",
    );
    place.check(&["token", "revoke", "--data", "data", "nobody"], 2, "", "there is no token nobody");
    // What is refused was not done, and is not told as done.
    place.check(&["token", "create", "--data", "data", "--submit", "--client", "ann"], 2, "", "has a token already");
    let store = server::parts::open_store(&server::settings::Settings::default(), &place.path("data")).unwrap();
    let entries = store.audit(&store::audit::AuditFilter::default(), None, 10).unwrap();
    let told: Vec<_> = entries.iter().map(|row| (row.entry.verb.as_str(), row.entry.detail.as_str())).collect();
    let narrowing = entries[1].entry.detail.as_str();
    assert!(narrowing.starts_with("its narrowing "), "{entries:?}");
    let expected = [
        ("token_revoke", ""),
        ("token_revoke", narrowing),
        ("token_create", "for client dee"),
        ("token_create", "for client cy"),
        ("token_create", "for client bob"),
        ("token_create", "for client ann"),
    ];
    assert_eq!(told, expected);
    let of_dee = entries[2].entry.clone();
    assert!(of_dee.target.starts_with("token ") && of_dee.from == "the server's machine", "{of_dee:?}");
    assert!(
        entries[..3].iter().all(|row| row.entry.target == of_dee.target && row.entry.who == of_dee.who),
        "{entries:?}"
    );
}

#[test]
fn a_file_that_holds_no_token_is_named() {
    let place = Place::new();
    std::fs::write(place.path("empty.token"), "\n").unwrap();
    std::fs::write(place.path("other"), "hello").unwrap();
    place.check(&["token", "inspect", "other"], 2, "", "other: this is no token of Ropewalk");
    place.check(&["token", "attenuate", "other", "--verb", "read"], 2, "", "other: this is no token of Ropewalk");
    place.check(
        &["token", "attenuate", "other", "--verb", "raed"],
        2,
        "",
        "there is no verb `raed`; did you mean `read`?",
    );
    std::fs::write(place.path("large.token"), "a".repeat(100_000)).unwrap();
    let (empty, large) = ("empty.token is empty: it has to hold a token", "large.token is too large for a token");
    for (file, expected) in
        [("empty.token", empty), ("large.token", large), ("none.token", "cannot read the token none.token")]
    {
        place.check(&["builds", "--server", "http://127.0.0.1:1", "--token", file], 2, "", expected);
        place.check(&["token", "inspect", file], 2, "", expected);
        place.check(&["work", "--server", "http://127.0.0.1:1", "--data", "worker", "--token", file], 2, "", expected);
    }
}

#[test]
fn a_token_in_the_place_of_its_file_is_not_printed() {
    let place = Place::new();
    let made = place.check(&["token", "create", "--data", "data", "--admin"], 0, "", "");
    let token = made.out.trim();
    let server = ["--server", "http://127.0.0.1:1"];
    let check = |said: Said| {
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(
            said.err.contains("and this is a token itself: write it to a file that only you can read, and "),
            "{said:?}"
        );
        assert!(!said.err.contains(&token[..20]) && !said.out.contains(&token[..20]), "{said:?}");
    };
    for arguments in [&["builds", "--token"][..], &["submit", "--token"], &["work", "--data", "worker", "--token"]] {
        let named = [&arguments[..1], &server, &arguments[1..], &[token]].concat();
        check(place.run(&named));
        // Not copied whole, and with what stands before it in a header.
        check(place.run(&[&named[..named.len() - 1], &[&format!("Bearer {}", &token[..token.len() - 9])]].concat()));
    }
    check(place.run(&["token", "inspect", token]));
    check(place.run(&["token", "attenuate", token, "--verb", "read"]));
    check(place.run(&["token", "revoke", "--data", "data", "--token", token]));
    check(place.run(&["token", "revoke", "--data", "data", token]));
    let mut by_variable = place.command(&["builds", "--server", "http://127.0.0.1:1"]);
    by_variable.env("ROPEWALK_TOKEN_FILE", token);
    check(Place::said(by_variable));
}

#[test]
fn a_worker_has_no_token_for_projects() {
    let place = Place::new();
    let arguments = ["token", "create", "--data", "data", "--worker", "--project", "sails"];
    place.check(&arguments, 2, "", "a worker takes jobs of every project: leave --project out");
}

#[test]
fn settings_that_are_not_there_are_told_with_how_to_begin() {
    let place = Place::new();
    let help = "; `ropewalk config --output toml` prints some to begin with";
    for command in ["config", "serve"] {
        let said = place.check(&[command, "--config", "none.toml"], 2, "", help);
        assert!(said.err.contains("cannot read the settings none.toml: "), "{said:?}");
    }
    place.check(&["config", "--output", "toml"], 0, "listen", "");
    for (text, expected) in [
        ("[store]\nurl = \"mysql://x\"\n", "expected `sqlite`, or a PostgreSQL database"),
        ("[blobs]\nurl = \"ftp://x\"\n", "expected `directory`, `directory:/PATH` or `s3://BUCKET/PREFIX`"),
    ] {
        fs::write(place.path("bad.toml"), text).unwrap();
        place.check(&["config", "--config", "bad.toml"], 2, "", expected);
    }
}
