//! What was applied to a server that has no image: kept on it, so that it can go back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Fault, Trouble};
use crate::model::id::ImageName;
use crate::shell::{Command, File, Host, Shell};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Release {
    /// Absolute paths of what hafog put there.
    pub files: Vec<String>,
    /// The recipe's commands.
    pub run: Vec<String>,
    /// Services that come with a package.
    pub units: Vec<String>,
}

const LIMIT: Duration = Duration::from_secs(120);

/// `$1` is the folder, `$2` the image.
const KEEP: &str = r#"cd "$1"; tar -czPf "$2.new" --no-unquote --ignore-failed-read -T "$2.files" 2>/dev/null; sync "$2.new"; mv -T "$2.new" "$2.tgz""#;

const RESTORE: &str = r#"cd "$1"; tar -xzPf "$2.tgz""#;

/// Files of other releases, also of one that was never whole, that this one has not; and of these releases all but `$3`.
const CLEAR: &str = r#"
cd "$1"; new=$2 old=$3
for one in *.files; do
  one=${one%.files}
  [ "$one" != "$new" ] || continue
  grep -vxF -f "$new.files" "$one.files" | while IFS= read -r file; do rm -f -- "$file"; done
  [ "$one" = "$old" ] || rm -f -- "$one.files" "$one.units" "$one.tgz" "$one.json"
done"#;

/// Services of packages that other releases have and this one has not.
const RETIRE: &str = r#"
cd "$1"
cat -- *.units | sort -u | grep -vxF -f "$2.units" | while IFS= read -r unit; do
  ! systemctl cat "$unit" >/dev/null 2>&1 || systemctl disable --now "$unit"
done"#;

fn folder(host: &Host) -> String {
    format!("{}/releases", host.dirs.etc)
}

async fn script(
    shell: &dyn Shell,
    host: &Host,
    text: &str,
    words: &[&str],
    what: &str,
) -> Result<(), Trouble> {
    let folder = folder(host);
    let head = ["sh", "-euc", text, "sh", &folder];
    let command = Command::new(head.into_iter().chain(words.iter().copied())).limit(LIMIT);
    let ran = shell.run(host, &command).await?;
    match ran.code {
        0 => Ok(()),
        _ => {
            let fault = Fault::new(format!("cannot {what} on `{}`", host.name));
            let said = ran.stderr.trim().replace('\n', "; ");
            Err(Trouble::Partial(fault.because(said)))
        }
    }
}

async fn put(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
    end: &str,
    bytes: Vec<u8>,
) -> Result<(), Trouble> {
    let file = File {
        path: format!("{}/{image}.{end}", folder(host)),
        bytes,
        mode: 0o600,
        for_service_user: false,
    };
    shell.put(host, &file).await
}

/// Before the first of its files is put: whoever goes back knows what may be there.
pub(super) async fn begin(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
    release: &Release,
) -> Result<(), Trouble> {
    let list: String = release
        .files
        .iter()
        .map(|path| format!("{path}\n"))
        .collect();
    put(shell, host, image, "files", list.into_bytes()).await?;
    let units: String = release
        .units
        .iter()
        .map(|unit| format!("{unit}\n"))
        .collect();
    put(shell, host, image, "units", units.into_bytes()).await
}

/// The files as the recipe has them, before its commands change any.
pub(super) async fn keep(shell: &dyn Shell, host: &Host, image: &ImageName) -> Result<(), Trouble> {
    let what = format!("keep what {image} is");
    script(shell, host, KEEP, &[image.as_str()], &what).await
}

/// When all of it is there: a release without this was never whole.
pub(super) async fn end(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
    release: &Release,
) -> Result<(), Trouble> {
    let bytes = serde_json::to_vec(release).expect("a release is JSON");
    put(shell, host, image, "json", bytes).await
}

/// What was kept of it, if anything.
pub(super) async fn find(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
) -> Result<Option<Release>, Fault> {
    let path = format!("{}/{image}.json", folder(host));
    let Some(bytes) = shell.get(host, &path).await? else {
        return Ok(None);
    };
    let release = serde_json::from_slice(&bytes).map_err(|error| {
        Fault::new(format!("cannot understand `{path}` on `{}`", host.name)).because(error)
    })?;
    Ok(Some(release))
}

pub(super) async fn restore(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
) -> Result<(), Trouble> {
    let what = format!("put back what {image} is");
    script(shell, host, RESTORE, &[image.as_str()], &what).await
}

/// Ends the services of packages that this release has no longer, now and at the next boot. Before [`clear`].
pub(super) async fn retire(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
) -> Result<(), Trouble> {
    let what = format!("end the services that {image} has not");
    script(shell, host, RETIRE, &[image.as_str()], &what).await
}

/// Leaves this release, and what is kept of the one before.
pub(super) async fn clear(
    shell: &dyn Shell,
    host: &Host,
    image: &ImageName,
    before: Option<&ImageName>,
) -> Result<(), Trouble> {
    let before = before.map_or("", ImageName::as_str);
    let words = [image.as_str(), before];
    script(shell, host, CLEAR, &words, "remove what is old").await
}
