//! Packages of a recipe, on a builder that is a whole machine with apt.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;

use super::Context;
use super::image::ended_badly;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::lock::{Lock, Locked};
use crate::image::shelf::Shelf;
use crate::image::{recipe, sbom};
use crate::model::id::ImageName;
use crate::model::stack::{Builtin, Recipe};
use crate::shell::{Command, File, Host, Ran, Shell};

const INSTALL_LIMIT: Duration = Duration::from_secs(1800);

const ASK_LIMIT: Duration = Duration::from_secs(300);

/// What an installation that was cut left half done is completed first.
const UPDATE: &str = r#"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
dpkg --configure -a --force-confdef --force-confold >&2
apt-get update -q >&2"#;

/// Prints which of them are there, in the words of apt-get, and what would be installed.
const SIMULATE: &str = r#"
export LC_ALL=C.UTF-8
dpkg-query -W -f 'Inst ${Package} (${Version} installed)\n' -- "$@" 2>/dev/null || true
apt-get install --simulate -q --no-install-recommends -- "$@""#;

/// Nothing is started while it is installed: an image is made, not a server. PostgreSQL's package would make a cluster
/// of its own; hafog makes them.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
keep='-o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold'
apt-get install -y -q --no-install-recommends --allow-downgrades $keep -- "$@" >&2
apt-get clean
rm -rf /var/lib/apt/lists/*"#;

/// Versions are asked for once: whoever is second takes those of the first.
static ASKING: Mutex<()> = Mutex::const_new(());

/// Services that come with a package and that hafog runs itself, with a configuration of its own.
fn own_services(recipe: &Recipe) -> &'static [&'static str] {
    match recipe.builtin {
        Some(Builtin::Haproxy) => &["haproxy.service"],
        Some(Builtin::Varnish) => &["varnish.service", "varnishncsa.service", "haproxy.service"],
        Some(Builtin::Postgres { .. }) => &["postgresql.service"],
        None => &[],
    }
}

/// A machine that becomes an image.
pub(super) struct Builder<'a> {
    pub context: &'a Context<'a>,
    pub shell: &'a dyn Shell,
    pub host: &'a Host,
    pub recipe: &'a Recipe,
    /// How often the versions of packages were asked for anew.
    pub upgrades: u32,
    pub shelf: &'a Shelf,
}

impl Builder<'_> {
    /// Runs it and keeps what it said. `what` is for the fault of one that fails.
    pub async fn run(&self, command: &Command, what: &str) -> Result<Ran, Trouble> {
        let ran = self.shell.run(self.host, command).await?;
        let Ran {
            code,
            stdout,
            stderr,
        } = &ran;
        let said = format!("==== {what}\n{stdout}{stderr}==== code {code}\n");
        self.shelf.say(said).await.partial()?;
        if *code != 0 {
            let log = self.shelf.log().display();
            let hint = format!("less {log}");
            return Err(ended_badly(&ran, what).map(|fault| fault.hint(hint)));
        }
        Ok(ran)
    }

    pub async fn script(
        &self,
        text: &str,
        words: &[String],
        limit: Duration,
        what: &str,
    ) -> Result<Ran, Trouble> {
        let head = ["sh", "-euc", text, "sh"].map(str::to_owned);
        let command = Command::new(head.into_iter().chain(words.iter().cloned())).limit(limit);
        self.run(&command, what).await
    }

    /// Installs what the recipe names and what a builtin one needs, in the versions of `hafog.lock`. Installed already
    /// is success.
    pub async fn install(&self) -> Result<(), Trouble> {
        let packages = recipe::packages(self.recipe);
        if packages.is_empty() {
            return Ok(());
        }
        let words = packages.join(" ");
        let progress = format!("installing {words}");
        self.context.progress(progress).await;
        self.script(UPDATE, &[], INSTALL_LIMIT, "apt-get update")
            .await?;
        let versions = self.versions(&packages).await?;
        let pinned = versions
            .iter()
            .map(|(name, version)| format!("{name}={version}"));
        // A virtual package has no version.
        let named = packages.iter().filter(|name| !versions.contains_key(*name));
        let pinned: Vec<String> = pinned.chain(named.cloned()).collect();
        let what = format!("installing {words}");
        let installed = self.script(INSTALL, &pinned, INSTALL_LIMIT, &what).await;
        installed.map_err(|trouble| {
            let gone = trouble
                .fault()
                .causes()
                .iter()
                .any(|line| line.contains("Version '") && line.contains("was not found"));
            trouble.map(|fault| match gone {
                true => fault.hint("hafog build --upgrade, for the versions that there are now"),
                false => fault,
            })
        })?;
        for service in own_services(self.recipe) {
            systemctl(self.shell, self.host, "disable", service).await?;
        }
        Ok(())
    }

    /// Those of the lock, or, where it has none for this, those that there are now, which are in it then.
    async fn versions(&self, packages: &[String]) -> Result<BTreeMap<String, String>, Trouble> {
        let world = self.context.world;
        let (stack, base) = (&world.stack.name, world.base.clone());
        let _asking = ASKING.lock().await;
        let lock = Lock::read(&base).nothing_changed()?;
        let locked = lock.find(stack, &self.recipe.name);
        let locked = locked.filter(|locked| locked.upgrades == self.upgrades);
        if let Some(versions) = locked.and_then(|locked| locked.versions(self.recipe, packages)) {
            return Ok(versions.clone());
        }
        let what = "asking for versions";
        let ran = self.script(SIMULATE, packages, ASK_LIMIT, what).await?;
        let versions = simulated(&ran.stdout);
        let locked = Locked::new(self.upgrades, self.recipe, packages, versions.clone());
        Lock::put(&base, &world.home, stack, &self.recipe.name, locked).partial()?;
        Ok(versions)
    }

    /// What is in it, in the image and here.
    pub async fn describe(&self, image: &ImageName) -> Result<(), Trouble> {
        let ran = self
            .script(sbom::ASK, &[], ASK_LIMIT, "listing packages")
            .await?;
        let Some((system, packages)) = sbom::read(&ran.stdout) else {
            let message = format!("`{}` does not say what is installed on it", self.host.name);
            return Err(Trouble::Partial(Fault::new(message)));
        };
        let bytes = sbom::cyclonedx(image, &system, &packages);
        let file = File {
            path: format!("{}{SBOM}", self.host.dirs.image),
            bytes: bytes.clone(),
            mode: 0o644,
            for_service_user: false,
        };
        self.shell.put(self.host, &file).await?;
        self.shelf.put_sbom(bytes).await.partial()
    }
}

/// Inside the image.
pub(super) const SBOM: &str = "/usr/share/hafog/sbom.cdx.json";

/// Lines such as `Inst curl [7.1] (7.2 Debian:12/stable [amd64])`, apt-get(8).
fn simulated(text: &str) -> BTreeMap<String, String> {
    let installed = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        let (_, version) = rest.split_once('(')?;
        let version = version.split([' ', ')']).next()?;
        // Of a virtual package, dpkg knows the name.
        if version.is_empty() {
            return None;
        }
        Some((name.to_owned(), version.to_owned()))
    });
    installed.collect()
}

/// Services that come with packages start at boot.
pub(super) async fn enable(
    shell: &dyn Shell,
    host: &Host,
    units: &[String],
) -> Result<(), Trouble> {
    for unit in units {
        systemctl(shell, host, "enable", unit).await?;
    }
    Ok(())
}

/// Services that come with packages.
pub(super) fn units(recipe: &Recipe) -> Vec<String> {
    let theirs = recipe.services.iter().filter(|one| one.run.is_none());
    theirs.map(|one| one.name.clone()).collect()
}

/// What makes a package's own unit give its service the server's environment, systemd.unit(5) and systemd.exec(5): where
/// it is in the image, and what is in it. An image boots before its server is configured, so that no file has to be
/// there. `None` for a unit of another kind, which runs nothing itself.
pub(super) fn drop_in(unit: &str, environment: &[String]) -> Option<(String, String)> {
    const OTHERS: [&str; 5] = [".socket", ".timer", ".path", ".target", ".mount"];
    if OTHERS.iter().any(|kind| unit.ends_with(kind)) {
        return None;
    }
    let name = unit.strip_suffix(".service").unwrap_or(unit);
    let files = environment.iter();
    let files = files.map(|path| format!("EnvironmentFile=-{path}\n"));
    Some((
        format!("/etc/systemd/system/{name}.service.d/50-hafog.conf"),
        format!("[Service]\n{}", files.collect::<String>()),
    ))
}

/// A server that runs already does not boot for what changed on it: it is read now.
pub(super) async fn restart(
    shell: &dyn Shell,
    host: &Host,
    units: &[String],
) -> Result<(), Trouble> {
    if units.is_empty() {
        return Ok(());
    }
    run(shell, host, &["systemctl", "daemon-reload"]).await?;
    for unit in units {
        systemctl(shell, host, "restart", unit).await?;
    }
    Ok(())
}

async fn systemctl(
    shell: &dyn Shell,
    host: &Host,
    verb: &str,
    service: &str,
) -> Result<(), Trouble> {
    run(shell, host, &["systemctl", verb, service]).await
}

async fn run(shell: &dyn Shell, host: &Host, words: &[&str]) -> Result<(), Trouble> {
    let ran = shell
        .run(host, &Command::new(words.iter().copied()))
        .await?;
    match ran.code {
        0 => Ok(()),
        _ => {
            let words = words.join(" ");
            let message = format!("`{words}` failed on `{}`", host.name);
            Err(Trouble::Partial(
                Fault::new(message).because(ran.stderr.trim()),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_install_is_read_with_its_versions() {
        let said = "Inst libc6 (2.36-9 installed)\nInst awk ( installed)\nReading package lists...\n\
            Inst libbrotli1 (1.0.9-2+b6 Debian:12.8/stable [amd64])\n\
            Inst libc6 [2.36-9] (2.36-9+deb12u9 Debian:12.8/stable [amd64]) []\n\
            Inst curl (7.88.1-10+deb12u12 Debian:12.8/stable, Debian-Security:12/stable-security [amd64])\n\
            Conf libbrotli1 (1.0.9-2+b6 Debian:12.8/stable [amd64])\n";
        let versions: Vec<(String, String)> = simulated(said).into_iter().collect();
        let want = [
            ("curl", "7.88.1-10+deb12u12"),
            ("libbrotli1", "1.0.9-2+b6"),
            ("libc6", "2.36-9+deb12u9"),
        ];
        assert_eq!(versions, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
