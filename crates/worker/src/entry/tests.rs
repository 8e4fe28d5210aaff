//! Who is let in, without mounts: what they find then is the binary's test.

use std::borrow::Cow;
use std::sync::Arc;

use super::*;
use crate::depot::{Mask, Secrets};
use crate::workspace::{Files, Snapshot};

const BUILD: BuildId = BuildId(1);
const NUMBER: AttemptNumber = AttemptNumber(1);

/// A secret that is nowhere.
struct Nowhere;

impl Mask for Nowhere {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(bytes)
    }
}

/// A copy in which nothing was noted of a job's steps, in the folder of all.
fn copy(data: &Path, environment: &Environment) -> PathBuf {
    let tree = data.join("tree");
    fs::create_dir(&tree).unwrap();
    let snapshot = crate::place::snapshot_directory(data, BUILD);
    let snapshot = Snapshot::of_immutable(&tree, Path::new(""), &tree, &snapshot).unwrap();
    let directory = workspace_directory(data, BUILD, NUMBER);
    let mut workspace = Workspace::create(&snapshot, &directory, Files::All, environment).unwrap();
    drop(workspace.open_as_copy(&snapshot).unwrap());
    directory
}

#[test]
fn what_noted_nothing_is_opened_where_its_steps_were_to_run_or_not_at_all() {
    let open = |environment: &Environment, is_noted: bool| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().canonicalize().unwrap();
        let about = copy(&data, environment).join("workspace.json");
        if !is_noted {
            let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&about).unwrap()).unwrap();
            manifest.as_object_mut().unwrap().remove("environment").unwrap();
            fs::write(&about, manifest.to_string()).unwrap();
        }
        let opened = Entry::open(&data, BUILD, NUMBER, &Moment::End, BTreeMap::new());
        opened.map(|entry| entry.environment.clone()).map_err(|error| error.to_string())
    };
    let sandbox = Environment::Sandbox { network: graph::Network::Off };
    assert_eq!(open(&sandbox, true), Ok(sandbox.clone()));
    assert_eq!(open(&Environment::Host, true), Ok(Environment::Host));
    let refusal = open(&sandbox, false).unwrap_err();
    assert!(refusal.contains("did not note where steps run"), "{refusal}");
    let image = Environment::Image { image: "nothere".into(), container: Box::default() };
    let refusal = open(&image, true).unwrap_err();
    assert!(refusal.contains("nothing is noted of its container"), "{refusal}");
}

#[test]
fn a_wrong_value_does_not_shut_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().canonicalize().unwrap();
    let directory = copy(&data, &Environment::Host);
    let secrets = Secrets { values: [("A".to_owned(), "s3cret".to_owned())].into(), mask: Some(Arc::new(Nowhere)) };
    withheld::begin(&directory, &secrets).unwrap();
    withheld::find(&directory, &secrets).unwrap();
    let open = |value: Option<&str>| {
        let given = value.map(|value| ("A".to_owned(), value.to_owned()));
        Entry::open(&data, BUILD, NUMBER, &Moment::End, given.into_iter().collect())
    };
    let refusal = open(Some("guess")).unwrap_err().to_string();
    assert!(refusal.contains("the job had another value of A than the one that was given"), "{refusal}");
    assert!(open(None).unwrap().is_lasting(), "as before");
    assert!(open(Some("s3cret")).unwrap().is_lasting());
    let refusal = open(None).unwrap_err().to_string();
    assert!(refusal.contains("a shell that had its secrets worked in them; --secret A gives them anew"), "{refusal}");
}
