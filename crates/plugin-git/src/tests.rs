//! The functions of the jobs, with a recorded shell.

use ropewalk::Ci;
use ropewalk::testing::*;

use crate::{Bump, Changelog, Described, Git, Tag, Tagged, Version};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

/// A repository whose last tag is this, so many commits ago.
fn repository(tag: Option<&str>, distance: u64) -> Recorded {
    let shell = Recorded::new()
        .on("git rev-parse --is-shallow-repository", 0, "false")
        .on("git rev-parse HEAD", 0, COMMIT)
        .on("git var *", 0, "t <t@localhost> 0 +0000")
        .on("git rev-list --count *", 0, &distance.to_string());
    match tag {
        Some(tag) => shell.on("git describe *HEAD", 0, tag),
        None => shell.on("git describe *HEAD", 128, ""),
    }
}

#[track_caller]
fn check_described(tag: Option<&str>, distance: u64, version: &str, text: &str) {
    let shell = repository(tag, distance);
    let described: Described =
        run_fn(|ci: &Ci| drop(crate::describe(ci)), push("main"), "describe", &shell).expect("the function passes");
    let seen = (described.version.to_string(), described.text, described.tag, described.distance);
    assert_eq!(seen, (version.to_owned(), text.to_owned(), tag.map(str::to_owned), distance));
    assert_eq!(described.commit, COMMIT);
}

#[test]
fn commits_are_described_by_the_last_tag() {
    check_described(Some("v1.2.3"), 0, "1.2.3", "1.2.3");
    check_described(Some("v1.2.3-rc.1"), 4, "1.2.3-rc.1", "1.2.3-rc.1-4-g0123456789ab");
    check_described(None, 7, "0.0.0", "0.0.0-7-g0123456789ab");
}

#[test]
fn a_tag_that_is_no_version_is_told() {
    let shell = repository(Some("v1.2.x"), 0);
    let told = run_fn::<Described>(|ci: &Ci| drop(crate::describe(ci)), push("main"), "describe", &shell);
    let told = told.expect_err("the tag is wrong");
    assert_eq!(told.message(), "the last tag `v1.2.x` names no version: `1.2.x` is no version such as `1.2.3`");
}

#[test]
fn letters_of_patterns_in_a_prefix_mean_themselves() {
    let shell = repository(Some("[a]*1.0.0"), 0);
    let pipeline = |ci: &Ci| drop(Git::new().prefix("[a]*").describe(ci.job("describe")));
    run_fn::<Described>(pipeline, push("main"), "describe", &shell).expect("the function passes");
    let asked = r"git describe --tags --abbrev=0 --match=\[a]\*[0-9]*.*.* HEAD";
    assert!(shell.commands().iter().any(|command| command.replace(['"', '\''], "") == asked), "{:?}", shell.commands());
}

#[test]
fn changes_are_listed_by_kind() {
    let log = "a1 feat(ui): folds\nb2 fix: no crash\nc3 tidy [x]\nd4 feat!: other format\ne5 Merge: no kind";
    let shell = repository(Some("v1.0.0"), 5).on("git log *", 0, log).on("printf *", 0, "").file("changes.md");
    let changes: Changelog =
        run_fn(|ci: &Ci| drop(crate::changelog(ci)), push("main"), "changelog", &shell).expect("the function passes");
    assert_eq!((changes.since.as_deref(), changes.count), (Some("v1.0.0"), 5));
    assert_eq!(
        crate::changelog::markdown(Some("v1.0.0"), log, 9),
        "# Changes since v1.0.0\n\n## Breaking\n\n- feat!: other format (d4)\n\n## New\n\n- feat(ui): folds (a1)\n\n\
         ## Mended\n\n- fix: no crash (b2)\n\n## Other\n\n- tidy \\[x\\] (c3)\n- Merge: no kind (e5)\n\n4 older changes are not listed.\n"
    );
}

#[test]
fn changes_without_kinds_are_one_list() {
    assert_eq!(crate::changelog::markdown(None, "a1 one\nb2 two", 2), "# Changes\n\n- one (a1)\n- two (b2)\n");
    assert_eq!(crate::changelog::markdown(Some("v1"), "", 0), "# Changes since v1\n\nNothing has changed.\n");
}

fn tagged(tag: &Tag, shell: &Recorded) -> std::result::Result<Tagged, ropewalk::Failure> {
    let tag = tag.clone();
    run_fn(move |ci: &Ci| drop(crate::tag(ci, &tag)), push("main"), "tag", shell)
}

#[test]
fn the_next_tag_is_made_and_stays_here() {
    let shell = repository(Some("v1.2.3"), 2).on("git rev-parse --verify *", 1, "").on("git tag *", 0, "");
    let tagged = tagged(&Tag::next(Bump::Minor), &shell).expect("the function passes");
    assert_eq!((tagged.tag.as_str(), &tagged.version, tagged.pushed_to), ("v1.3.0", &version("1.3.0"), None));
    assert!(!shell.commands().iter().any(|command| command.starts_with("git push")), "{:?}", shell.commands());
}

#[test]
fn a_tag_that_is_there_is_kept_or_refused() {
    let there = |commit: &str| {
        repository(Some("v1.0.0"), 2).variable("TAG_VERSION", "v2.0.0").on("git rev-parse --verify *", 0, commit)
    };
    let kept = tagged(&Tag::version("2.0.0"), &there(COMMIT)).expect("the function passes");
    assert_eq!(kept.tag, "v2.0.0");
    let refused = tagged(&Tag::version("2.0.0"), &there("fedc")).expect_err("another commit");
    assert_eq!(refused.message(), "v2.0.0 is there and means another commit, fedc");
}

#[test]
fn a_tag_is_pushed_where_that_is_said() {
    let shell = repository(Some("v1.2.3"), 2)
        .variable("TOKEN", "secret")
        .on("git rev-parse --verify *", 1, "")
        .on("git tag *", 0, "")
        .on("git push -- origin refs/tags/v1.2.4:refs/tags/v1.2.4", 0, "");
    let tagged = tagged(&Tag::next(Bump::Patch).push("origin").token("TOKEN"), &shell).expect("the function passes");
    assert_eq!(tagged.pushed_to.as_deref(), Some("origin"));
    assert!(shell.commands().iter().all(|command| !command.contains("secret")), "{:?}", shell.commands());
}

#[test]
fn a_token_that_is_not_there_is_told() {
    let shell = repository(Some("v1.2.3"), 2).on("git rev-parse --verify *", 1, "").on("git tag *", 0, "");
    let told = tagged(&Tag::next(Bump::Patch).push("origin").token("TOKEN"), &shell).expect_err("no token");
    assert_eq!(told.message(), "the secret `TOKEN` is not here: a job names the secrets it gets");
}
