//! Functions of every kind, as jobs: what they take and return, how they fail, and jobs that grow from what they return.

use ropewalk::{Ci, Cx, Data, Dir, Failure, File};

/// What the job `build` hands on.
#[derive(Data)]
struct Built {
    version: String,
    notes: String,
    app: File,
    docs: Option<Dir>,
    size: u32,
}

fn build(cx: &mut Cx) -> Result<Built, Failure> {
    cx.heading("build");
    cx.sh("mkdir -p out/docs/sub; echo binary > out/app; echo page > out/docs/sub/page; ln -s sub/page out/docs/link")?;
    let version = cx.capture("echo 1.2; echo")?;
    let docs = Some(cx.dir("out/docs")?);
    Ok(Built { version, notes: "first\nEND_OF_VALUE\nlast".to_owned(), app: cx.file("out/app")?, docs, size: 7 })
}

fn pipeline(ci: &Ci) {
    let built = ci.job("build").run_fn(|cx, ()| build(cx));
    ci.job("look").inputs(&built).run_fn(|cx, built| {
        let text = std::fs::read_to_string(cx.workspace().join(built.app.path()))?;
        cx.log(format!("{} {} {}", built.version, built.size, text.trim()));
        cx.pending("a lock", |cx| cx.sh("echo \"$GREETING\""))?;
        cx.warning("beware");
        Ok(built.docs.is_some())
    });
    ci.job("hand-on").run_fn(|cx, ()| Ok(File::new(cx.env("PATH_TO_HAND_ON").unwrap_or_default())));
    ci.job("hand-on-dir").run_fn(|cx, ()| Ok(Dir::new(cx.env("PATH_TO_HAND_ON").unwrap_or_default())));
    ci.job("deaf").run_fn(|_, ()| Ok(()));
    let branch = ci.event().branch().unwrap_or_default().to_owned();
    ci.job("hears").run_fn(move |cx, ()| Ok(branch == cx.event().branch().unwrap_or_default()));
    ci.job("listens").run_fn(|cx, ()| {
        cx.sh("echo \"$ROPEWALK_TAG\"")?;
        // All of it is read, whatever the first of them is.
        let read =
            (cx.env("ROPEWALK_COMMIT").is_none(), cx.event().message().is_empty(), cx.event().branch().is_none());
        Ok(read == (true, true, true))
    });
    ci.job("large").run_fn(|_, ()| Ok("x".repeat(1 << 20)));
    ci.job("fail").run_fn(|cx, ()| cx.sh("exit 7"));
    ci.job("no-command").run_fn(|cx, ()| cx.command(["/no/such/program"]));
    ci.job("panic").run_fn(|_, ()| if true { panic!("this is wrong") } else { Ok(()) });
    ci.job("wait").run_fn(|cx, ()| cx.sh("echo started; sleep 600 & wait"));
    ci.job("captured-wait").run_fn(|cx, ()| cx.capture("echo started >&2; sleep 600").map(drop));

    let names = ci.job("names").run_fn(|_, ()| Ok(vec!["a".to_owned(), "b".to_owned()]));
    let lengths = ci.for_each("each", &names, |ci, name: String| {
        ci.job(&name).run_fn(move |cx, ()| {
            cx.log(&name);
            Ok(name.len() as u32)
        })
    });
    ci.job("sum").inputs(&lengths).run_fn(|_, lengths: Vec<u32>| Ok(lengths.iter().sum::<u32>()));
}

fn main() {
    Ci::main(pipeline)
}
