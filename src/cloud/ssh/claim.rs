//! Which server a machine is: written down on the machine itself, so that whoever looks sees the same.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_ok};
use serde::{Deserialize, Serialize};

use super::way::Way;
use crate::error::{Fault, Trouble};
use crate::model::id::{ImageName, ServerName, SiteName, StackName};
use crate::shell::Host;
use crate::shell::systemd::{Output, Wire, script};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub stack: StackName,
    pub site: SiteName,
    pub server: ServerName,
    /// The [`crate::cloud::OnceKey`] under which it was taken.
    pub key: String,
    /// Set when its folders are there.
    pub made: bool,
    pub tags: BTreeMap<String, String>,
}

/// What a machine says of itself.
pub(super) struct Seen {
    /// The host as the spec has it.
    pub id: String,
    pub place: Host,
    pub claim: Option<Claim>,
    /// What was applied to it last, whole.
    pub image: Option<ImageName>,
}

/// One that does not answer must not hide the others from whoever looks at all of them (`observe`, 6 s).
const LOOK_LIMIT: Duration = Duration::from_secs(4);
/// How long a host that did not answer is not asked again, by one command. It stays unknown.
const STAYS_SILENT: Duration = Duration::from_secs(5);
const WRITE_LIMIT: Duration = Duration::from_secs(30);

const CLAIM: &str = "/var/lib/hafog/claim.json";
/// What applying a recipe writes last.
const MARK: &str = "/hafog-recipe.json";
const BETWEEN: &str = "--hafog--";

/// What is not there is not there; what cannot be read is no answer.
const LOOK: &str = r#"
show() { [ ! -e "$1" ] || cat "$1" || exit 1; }
[ ! -e "${1%/*}" ] || ls "${1%/*}" >/dev/null || exit 1
show "$1"; printf '\n%s\n' "$2"; show "$3"; exit 0"#;

/// A claim that is there already is nobody's to replace: code 17. A folder with anything in it is somebody's: code 18.
const TAKE: &str = r#"
set -e; folder=$(dirname "$1"); mkdir -p "$folder"
[ ! -e "$1" ] || exit 17
[ -z "$(ls -A "$folder" | grep -v '^\.claim-')" ] || exit 18
new=$(mktemp "$folder/.claim-XXXXXX"); trap 'rm -f "$new"' EXIT
cat >"$new"; sync "$new"; ln "$new" "$1" || { [ -e "$1" ] && exit 17; exit 1; }
sync "$folder""#;

/// Only a claim of the same server: code 17.
const CHANGE: &str = r#"
set -e; folder=$(dirname "$1")
grep -qxF -- "  \"server\": \"$2\"," "$1" && grep -qxF -- "  \"stack\": \"$3\"," "$1" || exit 17
new=$(mktemp "$folder/.claim-XXXXXX"); trap 'rm -f "$new"' EXIT
cat >"$new"; sync "$new"; mv -T "$new" "$1"; sync "$folder""#;

/// What hafog needs of a machine.
const FIT: &str = r#"
[ -d /run/systemd/system ] || { echo 'it does not run systemd' >&2; exit 1; }
command -v apt-get >/dev/null || { echo 'it has no apt-get' >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo 'hafog is not root there' >&2; exit 1; }
. /etc/os-release
[ "$ID-$VERSION_ID" = "$1" ] || { echo "it is $ID-$VERSION_ID, and its recipe is for $1" >&2; exit 1; }"#;

#[derive(Deserialize)]
struct Mark {
    image: ImageName,
}

/// What [`LOOK`] printed. A claim that cannot be read is somebody's.
fn read(id: String, place: Host, text: &str) -> Result<Seen, Fault> {
    let (claim, mark) = text.split_once(BETWEEN).unwrap_or((text, ""));
    let claim = match claim.trim() {
        "" => None,
        claim => Some(serde_json::from_str(claim).map_err(|error| {
            let message = format!("cannot understand `{CLAIM}` on `{}`", place.name);
            Fault::new(message).because(error)
        })?),
    };
    let mark: Option<Mark> = serde_json::from_str(mark.trim()).ok();
    Ok(Seen {
        id,
        place,
        claim,
        image: mark.map(|mark| mark.image),
    })
}

impl Way {
    /// Who did not answer a moment ago is not waited for again.
    async fn look(&self, index: usize) -> Result<Seen, Fault> {
        let before = self.silent().get(&index).cloned();
        if let Some((at, fault)) = before.filter(|(at, _)| at.elapsed() < STAYS_SILENT) {
            let age = at.elapsed().as_secs();
            return Err(fault.because(format!("asked {age} s ago")));
        }
        let looked = tokio::time::timeout(LOOK_LIMIT, self.look_now(index)).await;
        let looked = looked.unwrap_or_else(|_| {
            let limit = LOOK_LIMIT.as_secs();
            let message = format!("`{}` does not answer within {limit} s", self.hosts()[index]);
            Err(Fault::unavailable(message))
        });
        match &looked {
            Ok(_) => drop(self.silent().remove(&index)),
            Err(fault) => drop(self.silent().insert(index, (Instant::now(), fault.clone()))),
        }
        looked
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<usize, (Instant, Fault)>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_now(&self, index: usize) -> Result<Seen, Fault> {
        let place = self.place(index).await?;
        let argv = script(LOOK, &[CLAIM, BETWEEN, MARK]);
        let looked = self.exec(&place, &argv, Vec::new(), LOOK_LIMIT).await;
        let looked = looked.map_err(|trouble| trouble.fault().clone())?;
        if looked.code != 0 {
            let message = format!("`{}` cannot be looked at", place.name);
            return Err(Fault::unavailable(message).because(looked.said()));
        }
        let id = self.hosts()[index].to_string();
        read(id, place, &String::from_utf8_lossy(&looked.stdout))
    }

    /// Every host of the site, in the order of the spec.
    pub(super) async fn look_at_all(&self) -> Vec<Result<Seen, Fault>> {
        join_all((0..self.hosts().len()).map(|index| self.look(index))).await
    }

    /// Of a site whose hosts are all gone there is nobody left to ask.
    pub(super) async fn any_answers(&self) -> Result<(), Fault> {
        if self.hosts().is_empty() {
            return Ok(());
        }
        let looks = (0..self.hosts().len()).map(|index| Box::pin(self.look(index)));
        match select_ok(looks).await {
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.while_doing("no host answers")),
        }
    }

    /// Refuses a machine on which hafog cannot do its work.
    pub(super) async fn is_fit(&self, place: &Host, base: &str) -> Result<(), Trouble> {
        let argv = script(FIT, &[base]);
        let fit = self.exec(place, &argv, Vec::new(), WRITE_LIMIT).await?;
        match fit.code {
            0 => Ok(()),
            _ => {
                let message = format!("`{}` cannot be a server of this stack", place.name);
                let fault = Fault::new(message).because(fit.said());
                Err(Trouble::NothingChanged(fault.hint(
                    "it needs the system of the recipe (`base`) with systemd and apt-get, and root, or a user whom sudo asks for no password",
                )))
            }
        }
    }

    /// Whether it is the claimant's now. `false`: somebody was faster.
    pub(super) async fn take(&self, place: &Host, claim: &Claim) -> Result<bool, Trouble> {
        let taken = self.write(place, claim, TAKE).await?;
        match taken.code {
            0 => Ok(true),
            17 => Ok(false),
            18 => {
                let message = format!("`{}` has files of somebody in /var/lib/hafog", place.name);
                let fault = Fault::new(message).because("and no claim that says whose they are");
                Err(Trouble::NothingChanged(fault.hint(
                    "look what they are, and remove them there when nobody needs them",
                )))
            }
            _ => Err(unwritten(place, &taken)),
        }
    }

    pub(super) async fn change(&self, place: &Host, claim: &Claim) -> Result<(), Trouble> {
        let changed = self.write(place, claim, CHANGE).await?;
        match changed.code {
            0 => Ok(()),
            17 => {
                let message = format!("`{}` is no longer {}", place.name, claim.server);
                Err(Trouble::NothingChanged(Fault::new(message)))
            }
            _ => Err(unwritten(place, &changed)),
        }
    }

    async fn write(&self, place: &Host, claim: &Claim, how: &str) -> Result<Output, Trouble> {
        let bytes = serde_json::to_vec_pretty(claim).expect("a claim is JSON");
        let words = [CLAIM, claim.server.as_str(), claim.stack.as_str()];
        let argv = script(how, &words);
        self.exec(place, &argv, bytes, WRITE_LIMIT).await
    }
}

fn unwritten(place: &Host, output: &Output) -> Trouble {
    let message = format!("cannot write `{CLAIM}` on `{}`", place.name);
    Trouble::Partial(Fault::new(message).because(output.said()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Dirs;

    const ID: &str = "root@203.0.113.7";

    fn place() -> Host {
        Host {
            name: ID.into(),
            site: "west".into(),
            address: [203, 0, 113, 7].into(),
            dirs: Dirs {
                image: String::new(),
                etc: String::new(),
                data: String::new(),
                log: String::new(),
            },
        }
    }

    #[test]
    fn a_machine_is_nobodys_ours_or_unreadable() {
        let seen = read(ID.to_owned(), place(), "\n--hafog--\n").expect("it says nothing");
        assert!(seen.claim.is_none() && seen.image.is_none());
        let claim = r#"{"stack":"shop","site":"west","server":"shop-west-db-1","key":"k","made":true,"tags":{}}"#;
        let text = format!("{claim}\n--hafog--\n{{\"image\":\"postgres-0123\"}}\n");
        let seen = read(ID.to_owned(), place(), &text).expect("it says both");
        assert_eq!(
            seen.claim.expect("a claim").server.as_str(),
            "shop-west-db-1"
        );
        assert_eq!(seen.image.expect("an image").as_str(), "postgres-0123");
        assert!(read(ID.to_owned(), place(), "{\n--hafog--\n").is_err());
    }

    /// Runs a script here, with a folder of the test's instead of the server's.
    fn here(text: &str, words: &[&str], input: &[u8]) -> (i32, String) {
        use std::io::Write as _;
        let argv = script(text, words);
        let mut child = std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh is there");
        let mut stdin = child.stdin.take().expect("it reads");
        // Who does not want it does not read it.
        let _ = stdin.write_all(input);
        drop(stdin);
        let ended = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        (ended.status.code().unwrap_or(-1), said)
    }

    #[test]
    fn a_claim_is_taken_once_and_changed_by_its_own_server_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hafog/claim.json");
        let mark = folder.path().join("mark").display().to_string();
        let path = path.display().to_string();
        let look = || {
            let (code, said) = here(LOOK, &[&path, BETWEEN, &mark], b"");
            assert_eq!(code, 0);
            read(ID.to_owned(), place(), &said)
                .expect("it says what it is")
                .claim
        };
        assert_eq!(look(), None);
        let claim = |server: &str| Claim {
            stack: "shop".into(),
            site: "west".into(),
            server: server.into(),
            key: "a key".to_owned(),
            made: false,
            tags: BTreeMap::new(),
        };
        let write = |text: &str, claim: &Claim| {
            let bytes = serde_json::to_vec_pretty(claim).expect("JSON");
            here(
                text,
                &[&path, claim.server.as_str(), claim.stack.as_str()],
                &bytes,
            )
            .0
        };
        let (one, other) = (claim("shop-west-db-1"), claim("shop-west-db-2"));
        assert_eq!(write(CHANGE, &one), 17, "nobody took it yet");
        assert_eq!(write(TAKE, &one), 0);
        assert_eq!(write(TAKE, &other), 17);
        assert_eq!(write(TAKE, &one), 17);
        assert_eq!(write(CHANGE, &other), 17);
        assert_eq!(look(), Some(one.clone()));
        let made = Claim { made: true, ..one };
        assert_eq!(write(CHANGE, &made), 0);
        assert_eq!(look(), Some(made));
        let left = std::fs::read_dir(folder.path().join("hafog")).expect("a folder");
        assert_eq!(left.count(), 1, "nothing lies beside it");
    }

    #[test]
    fn a_folder_of_somebody_is_not_taken_and_what_cannot_be_read_is_no_answer() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("theirs"), "x").expect("written");
        let path = folder.path().join("claim.json").display().to_string();
        assert_eq!(here(TAKE, &[&path, "s", "t"], b"{}").0, 18);
        std::fs::create_dir(&path).expect("made");
        assert_ne!(here(LOOK, &[&path, BETWEEN, "/none"], b"").0, 0);
    }
}
