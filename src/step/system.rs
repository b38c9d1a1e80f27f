//! Users, their SSH keys and kernel parameters of a recipe, on a whole machine.
//!
//! Keys and parameters are files like any other of an image: they come, go back and go away with it. Users stay, because
//! files may be theirs.

use std::time::Duration;

use super::packages::Builder;
use crate::error::Trouble;
use crate::model::cron::CronJob;
use crate::model::posix::quoted;
use crate::model::stack::{Recipe, RecipeService, RecipeUser};

const LIMIT: Duration = Duration::from_secs(60);

/// sysctl.d(5).
const PARAMETERS: &str = "/etc/sysctl.d/60-hafog.conf";

/// sshd_config(5): of each keyword the first value counts, and the files of this folder are read first.
const SSHD: (&str, &str) = (
    "/etc/ssh/sshd_config.d/50-hafog.conf",
    "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 /etc/ssh/authorized_keys.d/%u\n",
);

/// `$1` is the name, `$2` the groups with commas; a third word is there if it has keys. One without is for services.
const USER: &str = r#"
export LC_ALL=C.UTF-8
if ! getent passwd "$1" >/dev/null; then
  group=--user-group
  ! getent group "$1" >/dev/null || group="--no-user-group --gid $1"
  case $# in
    3) useradd $group --create-home --shell /bin/bash -- "$1" ;;
    *) useradd $group --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin -- "$1" ;;
  esac
elif [ $# = 3 ]; then
  shell=$(getent passwd "$1" | cut -d: -f7)
  case $shell in
    */nologin | */false) echo "the user $1 is there already, and nobody can log in as it (its shell is $shell)" >&2; exit 1 ;;
  esac
fi
[ -z "$2" ] || usermod --append --groups "$2" -- "$1""#;

/// A server that runs already reads them now; a configuration that sshd does not take would shut everybody out. `$1` is
/// a user.
const READ_KEYS: &str = r#"
sshd=$(PATH="$PATH:/usr/sbin" command -v sshd)
"$sshd" -t
"$sshd" -T -C "user=$1,host=localhost,addr=127.0.0.1" | grep -q '^authorizedkeysfile .*/etc/ssh/authorized_keys.d/' || {
  echo 'sshd reads no keys from /etc/ssh/authorized_keys.d: its sshd_config must include /etc/ssh/sshd_config.d/*.conf first' >&2
  exit 1
}
! [ -d /run/systemd/system ] || systemctl try-reload-or-restart ssh.service"#;

/// What cannot be set is a fault, unless its line begins with `-`. systemd-sysctl(8) says so only since version 253, and
/// sysctl(8) does not heed all such lines.
const SET: &str = r#"
PATH="$PATH:/usr/sbin:/sbin"
command -v sysctl >/dev/null || { echo 'there is no program sysctl: it is in the package procps' >&2; exit 1; }
! grep -q '^[^-]' "$1" || grep '^[^-]' "$1" | sysctl -q -p -
! grep -q '^-' "$1" || /usr/lib/systemd/systemd-sysctl "$1""#;

/// Absolute path, what is in it, mode.
type ImageFile = (String, Vec<u8>, u32);

/// What the image has of them.
pub(super) fn files(recipe: &Recipe) -> Vec<ImageFile> {
    let file = |path: String, text: String| (path, text.into_bytes(), 0o644);
    let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect();
    let with_keys = recipe.users.iter().filter(|user| !user.keys.is_empty());
    let mut files: Vec<ImageFile> = with_keys
        .map(|user| file(keys_path(&user.name), lines(&user.keys)))
        .collect();
    if !files.is_empty() {
        files.push(file(SSHD.0.to_owned(), SSHD.1.to_owned()));
    }
    if !recipe.sysctl.is_empty() {
        files.push(file(PARAMETERS.to_owned(), lines(&recipe.sysctl)));
    }
    files
}

fn keys_path(user: &str) -> String {
    format!("/etc/ssh/authorized_keys.d/{user}")
}

impl Builder<'_> {
    /// Before anything of the recipe is put or run, which may be theirs.
    pub async fn make_users(&self) -> Result<(), Trouble> {
        for RecipeUser { name, groups, keys } in &self.recipe.users {
            let mut words = vec![name.clone(), groups.join(",")];
            words.extend((!keys.is_empty()).then(|| "keys".to_owned()));
            let what = format!("making the user {name}");
            self.script(USER, &words, LIMIT, &what).await?;
        }
        Ok(())
    }

    /// `files` are those of the image, which are there.
    pub async fn heed_files(&self, files: &[String]) -> Result<(), Trouble> {
        let is_there = |path: &str| files.iter().any(|file| file == path);
        let keys = keys_path("");
        let user = files.iter().find_map(|path| path.strip_prefix(&keys));
        if let Some(user) = user {
            let what = "reading the keys of users";
            let words = [user.to_owned()];
            self.script(READ_KEYS, &words, LIMIT, what).await?;
        }
        if is_there(PARAMETERS) {
            let what = "setting kernel parameters";
            let words = [PARAMETERS.to_owned()];
            self.script(SET, &words, LIMIT, what).await?;
        }
        Ok(())
    }
}

/// The program of a service. A cloud of folders has no users.
pub(super) fn launcher(service: &RecipeService, line: &str, is_machine: bool) -> String {
    let line = format!("exec {line}");
    match service.user.as_ref().filter(|_| is_machine) {
        Some(user) => format!("#!/bin/sh\n{}\n", as_user(user, &line)),
        None => format!("#!/bin/sh\n{line}\n"),
    }
}

/// The jobs, as they are done on a server.
pub(super) fn jobs(recipe: &Recipe, is_machine: bool) -> Vec<CronJob> {
    let jobs = recipe.cron.iter().cloned();
    let jobs = jobs.map(|mut job| {
        if let Some(user) = job.user.take().filter(|_| is_machine) {
            job.run = as_user(&user, &job.run);
        }
        job
    });
    jobs.collect()
}

/// A shell script in which `user` does what the line says.
fn as_user(user: &str, line: &str) -> String {
    let line = quoted(line);
    format!(
        "set -eu\nuser={user}\n\
         group=$(id -g \"$user\")\n\
         HOME=$(getent passwd \"$user\" | cut -d: -f6)\n\
         USER=$user LOGNAME=$user\n\
         export HOME USER LOGNAME\n\
         exec setpriv --reuid \"$user\" --regid \"$group\" --init-groups -- sh -c {line}"
    )
}
