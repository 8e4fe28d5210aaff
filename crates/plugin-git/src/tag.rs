//! New tags.

use ropewalk::context::Command;
use ropewalk::{Cx, Data, Failure, Job, With, Workspace};

use crate::describe::{asked, git, last_tag};
use crate::version::{Bump, Version};

/// By which the version reaches the function: it may be an expression.
const VERSION_VARIABLE: &str = "TAG_VERSION";
/// By which git gets the token that it sends to the remote.
const TOKEN_VARIABLE: &str = "TAG_TOKEN";
/// A helper that answers git's question for credentials; it stands in the environment, never on a command line.
const HELPER: &str =
    "!f() { test \"$1\" = get && printf 'username=x-access-token\\npassword=%s\\n' \"$TAG_TOKEN\"; }; f";

/// The tag that is to be made.
#[derive(Clone, Debug)]
pub struct Tag {
    version: Wanted,
    message: Option<String>,
    push: Option<String>,
    token: Option<String>,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// This version; may hold `${{ }}`.
    Version(String),
    /// The one after that of the last tag.
    After(Bump),
}

/// A tag that was made, or was there already.
#[derive(Clone, Debug, PartialEq, Eq, Data)]
pub struct Tagged {
    /// As Git has it.
    pub tag: String,
    /// The version in it.
    pub version: Version,
    /// The commit that it means.
    pub commit: String,
    /// The remote that it was pushed to; `None` if it was not.
    pub pushed_to: Option<String>,
}

impl Tag {
    /// The tag of this version. It may be an expression, such as [`ropewalk::Output::expression`] gives or `${{ params.version }}`.
    #[must_use]
    pub fn version(version: impl Into<String>) -> Self {
        Self { version: Wanted::Version(version.into()), message: None, push: None, token: None }
    }

    /// The tag of the version after the last one.
    #[must_use]
    pub fn next(bump: Bump) -> Self {
        Self { version: Wanted::After(bump), message: None, push: None, token: None }
    }

    /// As a config file says it: `version` or `bump` (`major`, `minor`, `patch`), `message`, `push`, `token`.
    #[must_use]
    pub fn of(with: &With) -> Self {
        let version = match (with.text("version"), with.text("bump").as_deref()) {
            (Some(version), bump) => {
                if bump.is_some() {
                    with.refuse("bump", "the version is given, so there is nothing to count on");
                }
                Wanted::Version(version)
            }
            (None, Some("major")) => Wanted::After(Bump::Major),
            (None, Some("minor")) => Wanted::After(Bump::Minor),
            (None, Some("patch") | None) => Wanted::After(Bump::Patch),
            (None, Some(other)) => {
                with.refuse("bump", format!("one of `major`, `minor`, `patch` was expected, `{other}` came"));
                Wanted::After(Bump::Patch)
            }
        };
        let (push, token) = (with.text("push"), with.text("token"));
        if push.is_none() && token.is_some() {
            with.refuse("token", "nothing is pushed: `push` names no remote");
        }
        Self { version, message: with.text("message"), push, token }
    }

    /// The tag's message. Without it: the tag's name.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Pushes the tag to this remote: a name such as `origin`, or a URL. Without this nothing leaves the machine.
    #[must_use]
    pub fn push(mut self, remote: impl Into<String>) -> Self {
        self.push = Some(remote.into());
        self
    }

    /// The name of the secret that the remote takes as a password.
    #[must_use]
    pub fn token(mut self, secret: impl Into<String>) -> Self {
        self.token = Some(secret.into());
        self
    }

    /// The job: in the user's own tree, since a tag in a copy would be lost.
    #[track_caller]
    pub(crate) fn job(&self, job: Job, prefix: String) -> Job<Tagged> {
        let tag = self.clone();
        let job = job.workspace(Workspace::InPlace);
        let job = match &self.version {
            Wanted::Version(version) => job.env(VERSION_VARIABLE, version.as_str()),
            Wanted::After(_) => job,
        };
        let job = match &self.token {
            Some(secret) => job.secrets(secret.as_str()),
            None => job,
        };
        job.run_fn(move |cx, ()| tag.make(cx, &prefix))
    }

    fn make(&self, cx: &mut Cx, prefix: &str) -> Result<Tagged, Failure> {
        let version = self.version_now(cx, prefix)?;
        let (tag, commit) = (format!("{prefix}{version}"), git(cx, &["rev-parse", "HEAD"])?);
        let name = format!("refs/tags/{tag}");
        match asked(cx, &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])? {
            Some(tagged) if tagged == commit => cx.log(format!("{tag} is there and means this commit")),
            Some(tagged) => return Err(Failure::new(format!("{tag} is there and means another commit, {tagged}"))),
            None => {
                let message = self.message.as_deref().unwrap_or(&tag).to_owned();
                create(cx, &tag, &commit, &message)?;
                cx.log(format!("{tag} is {commit}"));
            }
        }
        if let Some(remote) = &self.push {
            self.send(cx, remote, &name)?;
        }
        Ok(Tagged { tag, version, commit, pushed_to: self.push.clone() })
    }

    fn version_now(&self, cx: &mut Cx, prefix: &str) -> Result<Version, Failure> {
        match self.version {
            Wanted::Version(_) => {
                let text = cx.env(VERSION_VARIABLE).unwrap_or_default();
                Ok(text.strip_prefix(prefix).unwrap_or(&text).parse()?)
            }
            Wanted::After(bump) => {
                let last = last_tag(cx, prefix, "HEAD")?;
                // A commit that has its tag keeps it.
                if let Some((tag, version)) = &last
                    && git(cx, &["rev-list", "--count", &format!("{tag}..HEAD")])? == "0"
                {
                    return Ok(version.clone());
                }
                Ok(last.map(|(_, version)| version).unwrap_or_default().next(bump))
            }
        }
    }

    fn send(&self, cx: &mut Cx, remote: &str, name: &str) -> Result<(), Failure> {
        let refs = format!("{name}:{name}");
        let mut command = Command::new(["git", "push", "--", remote, refs.as_str()]).env("GIT_TERMINAL_PROMPT", "0");
        if let Some(secret) = &self.token {
            let token = cx.secret(secret)?;
            command = command
                .env(TOKEN_VARIABLE, token)
                .env("GIT_CONFIG_COUNT", "2")
                // An empty helper makes git forget those of the machine.
                .env("GIT_CONFIG_KEY_0", "credential.helper")
                .env("GIT_CONFIG_VALUE_0", "")
                .env("GIT_CONFIG_KEY_1", "credential.helper")
                .env("GIT_CONFIG_VALUE_1", HELPER);
        }
        cx.run(&command).map(drop)
    }
}

/// Makes the tag, in the name of whoever git knows, else of whoever caused the build.
fn create(cx: &mut Cx, tag: &str, commit: &str, message: &str) -> Result<(), Failure> {
    let is_known = asked(cx, &["var", "GIT_COMMITTER_IDENT"])?.is_some();
    let mut command = Command::new(["git", "tag", "--annotate", "--message", message, tag, commit]);
    if !is_known {
        let actor = Some(cx.event().actor()).filter(|actor| !actor.is_empty()).unwrap_or("ropewalk").to_owned();
        command = command.env("GIT_COMMITTER_NAME", actor).env("GIT_COMMITTER_EMAIL", "ropewalk@localhost");
    }
    cx.run(&command).map(drop)
}
