//! Tokens that are revoked while somebody works by them.

use std::fs;
use std::process::Stdio;

use crate::installation::Site;
use crate::process::{Process, Reader, appears};
use crate::waiting;

impl Site {
    /// Revokes a token on the server's machine.
    fn revoke(&self, token: &str) {
        let mut revoke = self.command(&["token", "revoke", "--data"]);
        revoke.arg(self.path("data")).arg("--token").arg(self.path(token));
        Self::told(revoke, 0);
    }

    /// Puts another token into the workers' file.
    fn renew_workers_token(&self) {
        let mut create = self.command(&["token", "create", "--worker", "--name", "w", "--data"]);
        create.arg(self.path("data"));
        let (token, _) = Self::told(create, 0);
        fs::write(self.path("worker.token"), token).expect("a file");
    }

    /// Makes a token for these pools alone, in a file of this name.
    fn token_of_pools(&self, name: &str, flags: &[&str], pools: &[&str]) {
        let mut create = self.command(&["token", "create", "--data"]);
        create.arg(self.path("data")).args(flags);
        for pool in pools {
            create.args(["--pool", pool]);
        }
        let (token, _) = Self::told(create, 0);
        fs::write(self.path(name), token).expect("a file");
    }
}

#[test]
fn who_names_no_pool_uses_that_of_the_token() {
    let site = Site::new("jobs:\n  hello:\n    run: echo hello\n");
    let _server = site.serve();
    site.token_of_pools("worker.token", &["--worker"], &["linux"]);
    site.token_of_pools("client.token", &["--submit", "--client", "ann"], &["linux"]);
    let mut other = site.command(&["work", "--pool", "gpu", "--server", &site.url(), "--token"]);
    other.arg(site.path("worker.token")).arg("--data").arg(site.path("w0"));
    let (_, err) = Site::told(other, 2);
    let expected = "the token grants none of the pools `gpu`; the token is for the pool `linux`: say `--pool linux`";
    assert!(err.contains(expected), "{err}");
    let _worker = site.work("w1", &[]);
    let told = site.submit(&[], 0);
    assert!(told.contains("hello"), "{told}");
    let refused = site.submit(&["--pool", "default"], 2);
    assert!(refused.contains("the token is for the pool `linux`: say `--pool linux`"), "{refused}");
    // Of several it is not known which is meant.
    site.token_of_pools("client.token", &["--submit", "--client", "bob"], &["gpu", "linux"]);
    let refused = site.submit(&[], 2);
    assert!(refused.contains("for the pools `gpu`, `linux`: name one of them, as by `--pool gpu`"), "{refused}");
}

#[test]
fn a_worker_whose_token_was_revoked_says_so_and_another_runs_what_it_ran() {
    let marks = tempfile::tempdir().expect("a folder");
    let site = Site::new(&waiting(marks.path()));
    let mut server = site.serve();
    let mut worker = site.work("w1", &[]);
    let (mut watching, shown) = site.watch(&[]);
    appears(&marks.path().join("begun"));
    site.revoke("worker.token");
    assert_eq!(worker.process.ended(), Some(2));
    let said = worker.said.rest().join("\n");
    let expected = "this token was revoked: ask whoever runs this server for a new one; name another by --token FILE";
    assert!(said.contains(expected), "{said}");
    fs::rename(site.path("worker.token"), site.path("old.token")).expect("a token");
    site.renew_workers_token();
    let _other = site.work("w2", &[]);
    fs::write(marks.path().join("go"), "").expect("a file");
    assert_eq!(watching.ended(), Some(0), "{}", shown.rest().join("\n"));
    // A server that is started anew does not believe it either.
    server.kill();
    let _server = site.serve();
    let mut again = site.command(&["work", "--server", &site.url(), "--token"]);
    again.arg(site.path("old.token")).arg("--data").arg(site.path("w1"));
    let (_, err) = Site::told(again, 2);
    assert!(err.contains(expected), "{err}");
}

#[test]
fn a_worker_whose_token_was_exchanged_before_it_was_revoked_goes_on() {
    let marks = tempfile::tempdir().expect("a folder");
    let site = Site::new(&waiting(marks.path()));
    let _server = site.serve();
    let mut worker = site.work("w1", &[]);
    let (mut watching, shown) = site.watch(&[]);
    appears(&marks.path().join("begun"));
    fs::copy(site.path("worker.token"), site.path("old.token")).expect("a file");
    site.renew_workers_token();
    site.revoke("old.token");
    worker.said.until("joined http://");
    fs::write(marks.path().join("go"), "").expect("a file");
    assert_eq!(watching.ended(), Some(0), "{}", shown.rest().join("\n"));
}

#[test]
fn what_a_worker_ran_whose_token_was_revoked_while_the_server_was_away_is_tried_elsewhere() {
    let marks = tempfile::tempdir().expect("a folder");
    let site = Site::new(&waiting(marks.path()));
    let mut server = site.serve();
    let mut worker = site.work("w1", &[]);
    let build = site.submit_only(&[]);
    appears(&marks.path().join("begun"));
    server.kill();
    site.revoke("worker.token");
    let mut serve = site.command(&["serve", "--listen", &site.address, "--local-worker", "off", "--data"]);
    serve.arg(site.path("data")).stderr(Stdio::piped());
    let mut server = Process(serve.spawn().expect("ropewalk starts"));
    let mut said = Reader::new(server.0.stderr.take().expect("a pipe"));
    said.until("worker w1 goes on only by another token; its token is not good any more: this token was revoked");
    assert_eq!(worker.process.ended(), Some(2));
    site.renew_workers_token();
    let _other = site.work("w2", &[]);
    fs::write(marks.path().join("go"), "").expect("a file");
    site.shows(&build, &format!("build {build} passed"));
    drop(server);
}
