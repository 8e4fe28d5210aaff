//! What `check` says of files that jobs name and that are not there.

use crate::Repository;

#[test]
fn named_files_that_are_not_there_are_told_where_they_are_named() {
    let repository = Repository::new(
        "\
jobs:
  build:
    inputs: ['scr/**', file.txt, '!docs/**', '*.ig', x.ig]
    environment: { dockerfile: ci/Dockerfile, context: ci }
    run: 'true'
  live:
    workspace: in_place
    inputs: [x.ig, gone]
    run: 'true'
  behind:
    workspace: in_place
    needs: [live]
    inputs: [made/by/live]
    run: 'true'
  child:
    run: [{ build: { file: .ropewalk/other.yaml } }]
",
    );
    repository.write(".gitignore", "*.ig\n");
    repository.write("x.ig", "x\n");
    let said = repository.check(&["check"], 0);
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning[no-such-file]")).collect();
    let expected = [
        "warning[no-such-file]: `inputs` of job `build`: `scr/**` matches no file",
        "warning[no-such-file]: `inputs` of job `build`: `*.ig` matches no file",
        "warning[no-such-file]: `inputs` of job `build`: `x.ig` is ignored by git: the job does not see it",
        "warning[no-such-file]: `environment` of job `build`: there is no file `ci/Dockerfile`",
        "warning[no-such-file]: `inputs` of job `live`: `gone` matches no file",
        "warning[no-such-file]: `build` of job `child`: there is no file `.ropewalk/other.yaml`",
    ];
    assert_eq!(warnings, expected, "{said}");
    assert!(said.contains(".ropewalk/pipeline.yaml:3:14\n"), "{said}");

    let report = repository.check(&["check", "--format", "json"], 0);
    assert_eq!(report.matches("no-such-file").count(), expected.len(), "{report}");

    for (file, text) in [("scr/a", ""), ("ci/Dockerfile", ""), ("gone", ""), (".ropewalk/other.yaml", "")] {
        repository.write(file, text);
    }
    let said = repository.check(&["check"], 0);
    assert_eq!(said.matches("no-such-file").count(), 2, "{said}");
}
