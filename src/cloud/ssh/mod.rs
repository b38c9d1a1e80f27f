//! `ssh`: servers that exist already, and of which hafog has nothing but a shell.
//!
//! Nothing is made and nothing is sealed: a host of the spec becomes a server by a claim that is written down on it,
//! recipes are applied in place, and a server that is removed leaves a machine without hafog's files. Nobody can switch
//! it off from here.

mod claim;
mod note;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::claim::{Claim, Seen};
use self::note::Note;
use self::way::{Way, place_name};
use super::firewall::GROUP_TAG;
use super::{
    Can, Cloud, CloudAbout, Firewall, Image, OnceKey, Power, Server, ServerState, ServerWant,
    SiteSettings,
};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName, SiteName, StackName};
use crate::model::stack::Registered;
use crate::shell::ssh::{SERVER_DIRS, Ssh};
use crate::shell::systemd::{Systemd, Wire, script};
use crate::shell::{Host, Shell};

pub const ABOUT: CloudAbout = CloudAbout {
    name: "ssh",
    about: "servers that exist already: `hosts` lists them as `ssh` reaches them",
    can: Can {
        seal: false,
        low_ports: true,
        power: false,
        isolate: false,
        disks: false,
        copies: false,
        entry: false,
        firewall: false,
        machines: true,
    },
    open: |settings| Ok(Arc::new(Site::open(settings))),
};

const REMOVE_LIMIT: Duration = Duration::from_secs(300);

/// Everything of hafog that runs, everything that a recipe put there, and the claim at last: whoever is cut finds it
/// again. Packages stay. `$2` and `$3` are whose it must be: code 17 where it is not, 75 where another removal is at
/// work, and nothing is touched. `$4` is nothing, and a folder in tests.
const REMOVE: &str = r#"
[ -e "$1/claim.json" ] || exit 0
cd "$1" || exit 1
exec 9<. && flock -n 9 || exit 75
grep -qxF -- "  \"server\": \"$2\"," claim.json && grep -qxF -- "  \"stack\": \"$3\"," claim.json || exit 17
for unit in etc/units/hafog-*.service; do
  [ -e "$unit" ] || continue
  name=$(basename "$unit")
  systemctl disable --quiet "$name" 2>/dev/null; systemctl stop "$name"; rm -f "$unit"
done
systemctl disable --quiet --now logs-of-hafog.timer 2>/dev/null
systemctl disable --quiet logs-of-hafog.service 2>/dev/null
systemctl stop 'hafog-run-*' 2>/dev/null
for list in etc/releases/*.units; do
  [ -e "$list" ] || continue
  while IFS= read -r unit; do systemctl disable --quiet --now "$unit" 2>/dev/null; done <"$list"
done
systemctl daemon-reload; systemctl reset-failed 'hafog-*' 2>/dev/null
for list in etc/releases/*.files; do
  [ -e "$list" ] || continue
  while IFS= read -r file; do rm -f -- "$file"; done <"$list"
done
rm -f "$4/hafog-recipe.json"; rmdir "$4/hafog-services" "$4/usr/share/hafog" 2>/dev/null
find "$1" -mindepth 1 -maxdepth 1 ! -name claim.json -exec rm -rf {} + || exit 1
rm -f "$1/claim.json" && cd / && rmdir "$1""#;

pub struct Site {
    stack: StackName,
    site: SiteName,
    way: Arc<Way>,
    note: Note,
    /// Hosts that will never come back, by a person's word.
    gone: Vec<String>,
    /// Held from the choice of a host until it is taken.
    choosing: tokio::sync::Mutex<()>,
}

impl Site {
    fn open(settings: &SiteSettings) -> Site {
        let ssh = Ssh::open(&settings.home);
        let hosts = settings.hosts.iter().cloned();
        let (gone, hosts): (Vec<Registered>, Vec<_>) = hosts.partition(|host| host.gone);
        Site {
            stack: settings.stack.clone(),
            site: settings.site.clone(),
            way: Arc::new(Way::new(ssh, settings.site.clone(), hosts)),
            note: Note::at(&settings.home, &settings.site),
            gone: gone.iter().map(ToString::to_string).collect(),
            choosing: tokio::sync::Mutex::new(()),
        }
    }

    fn machine(&self) -> Systemd<Way> {
        Systemd::new(self.way.clone())
    }

    fn is_ours(&self, claim: &Claim) -> bool {
        claim.stack == self.stack && claim.site == self.site
    }

    fn describe(&self, seen: &Seen, claim: &Claim) -> Server {
        Server {
            name: claim.server.clone(),
            id: seen.id.clone(),
            state: match claim.made {
                true => ServerState::Running,
                false => ServerState::Pending,
            },
            image: seen.image.clone(),
            tags: claim.tags.clone(),
            host: Some(Host {
                name: claim.server.clone(),
                ..seen.place.clone()
            }),
        }
    }

    /// A host that does not answer is what it was when it did, and so is one that is on the list no longer. One of which
    /// nobody knows that makes the list unknown.
    async fn all(&self) -> Result<Vec<Server>, Fault> {
        let looked = self.way.look_at_all().await;
        let before = self.note.read().await?;
        let mut noted = before.clone();
        noted.retain(|host, _| !self.gone.contains(host));
        let mut servers = Vec::new();
        let mut now = BTreeMap::new();
        for (host, seen) in self.way.hosts().iter().zip(looked) {
            let id = host.to_string();
            match seen {
                Ok(seen) => {
                    let claim = seen.claim.as_ref().filter(|claim| self.is_ours(claim));
                    let server = claim.map(|claim| self.describe(&seen, claim));
                    now.insert(id, server.clone());
                    servers.extend(server);
                }
                Err(fault) => {
                    let Some(before) = noted.get(&id) else {
                        return Err(fault);
                    };
                    now.insert(id, before.clone());
                    servers.extend(before.clone().map(|server| Server {
                        state: ServerState::Failed(fault.to_string()),
                        ..server
                    }));
                }
            }
        }
        for (id, before) in &noted {
            if let (Some(server), false) = (before, now.contains_key(id))
                && !servers.iter().any(|one| one.name == server.name)
            {
                servers.push(Server {
                    state: ServerState::Failed(format!(
                        "{id} is no longer in `hosts`: put it back, with `gone: true` if it never comes back"
                    )),
                    ..server.clone()
                });
                now.insert(id.clone(), before.clone());
            }
        }
        for (index, server) in servers.iter().enumerate() {
            if let Some(other) = servers[..index].iter().find(|one| one.name == server.name) {
                return Err(two_are(&other.id, &server.id, &server.name));
            }
        }
        self.note.write(&before, now).await?;
        Ok(servers)
    }

    async fn find(&self, name: &ServerName) -> Result<Option<(Seen, Claim)>, Fault> {
        let mut silent = None;
        let mut found: Option<(Seen, Claim)> = None;
        for seen in self.way.look_at_all().await {
            match seen {
                Ok(mut seen) => {
                    let claim = seen.claim.take();
                    let ours = |claim: &Claim| self.is_ours(claim) && claim.server == *name;
                    let Some(claim) = claim.filter(ours) else {
                        continue;
                    };
                    if let Some((other, _)) = &found {
                        return Err(two_are(&other.id, &seen.id, name));
                    }
                    found = Some((seen, claim));
                }
                Err(fault) => silent = Some(fault),
            }
        }
        match silent.filter(|_| found.is_none()) {
            // It may be that one.
            Some(fault) => Err(fault.while_doing(format!("nobody knows where `{name}` is"))),
            None => Ok(found),
        }
    }

    async fn known(&self, name: &ServerName) -> Result<(Seen, Claim), Fault> {
        let none = || Fault::new(format!("site `{}` has no server `{name}`", self.site));
        self.find(name).await?.ok_or_else(none)
    }

    async fn create(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        let _choosing = self.choosing.lock().await;
        let (seen, mut claim) = match self.find(&want.name).await.nothing_changed()? {
            Some((_, claim)) if claim.key != key.0 => {
                let message = format!("site `{}` has a server `{}` already", self.site, want.name);
                return Err(Trouble::NothingChanged(Fault::new(message)));
            }
            Some((seen, claim)) if claim.made => return Ok(self.describe(&seen, &claim)),
            Some(begun) => begun,
            None => self.take_one(want, key).await?,
        };
        self.machine().prepare(&seen.place).await?;
        claim.made = true;
        self.way.change(&seen.place, &claim).await?;
        Ok(self.describe(&seen, &claim))
    }

    /// The first host that is free: those for its group before those for any.
    async fn take_one(&self, want: &ServerWant, key: &OnceKey) -> Result<(Seen, Claim), Trouble> {
        let claim = Claim {
            stack: self.stack.clone(),
            site: self.site.clone(),
            server: want.name.clone(),
            key: key.0.clone(),
            made: false,
            tags: want.tags.clone(),
        };
        let group = want.tags.get(GROUP_TAG).map(String::as_str);
        let looked = self.way.look_at_all().await;
        let looked = looked.into_iter().collect::<Result<Vec<Seen>, Fault>>();
        let looked = self.way.hosts().iter().zip(looked.nothing_changed()?);
        let (own, rest): (Vec<_>, Vec<_>) = looked
            .filter(|(host, _)| {
                host.only
                    .as_ref()
                    .is_none_or(|only| Some(only.as_str()) == group)
            })
            .partition(|(host, _)| host.only.is_some());
        let mut taken = Vec::new();
        for (host, seen) in own.into_iter().chain(rest) {
            if let Some(other) = &seen.claim {
                taken.push(format!("{host} is {} of {}", other.server, other.stack));
                continue;
            }
            self.way.is_fit(&seen.place, &want.base).await?;
            if self.way.take(&seen.place, &claim).await? {
                return Ok((seen, claim));
            }
            taken.push(format!("{host} was taken a moment ago"));
        }
        let message = format!("site `{}` has no free host for `{}`", self.site, want.name);
        let fault = Fault::new(message).hint("add one to `hosts`");
        Err(Trouble::NothingChanged(
            taken.into_iter().fold(fault, Fault::because),
        ))
    }

    /// One whose host was taken from the list is not gone.
    async fn is_known_nowhere(&self, name: &ServerName) -> Result<(), Fault> {
        let noted = self.note.read().await?;
        let is_it = |one: &Option<Server>| one.as_ref().is_some_and(|one| one.name == *name);
        let Some((host, _)) = noted.iter().find(|(_, one)| is_it(one)) else {
            return Ok(());
        };
        let mut listed = self.way.hosts().iter().map(ToString::to_string);
        if self.gone.contains(host) || listed.any(|listed| listed == *host) {
            return Ok(());
        }
        let message = format!("`{name}` is on {host}, which is no longer in `hosts`");
        Err(Fault::new(message).hint(format!(
            "put {host} back into `hosts` until it is removed, with `gone: true` if it never comes back"
        )))
    }

    async fn delete(&self, name: &ServerName) -> Result<(), Trouble> {
        let Some((seen, _)) = self.find(name).await.nothing_changed()? else {
            return self.is_known_nowhere(name).await.nothing_changed();
        };
        let (name, stack) = (name.as_str(), self.stack.as_str());
        let words = script(REMOVE, &[SERVER_DIRS, name, stack, ""]);
        let removed = self.way.exec(&seen.place, &words, Vec::new(), REMOVE_LIMIT);
        let removed = removed.await?;
        let place = &seen.place.name;
        let untouched = |message| Err(Trouble::NothingChanged(Fault::unavailable(message)));
        match removed.code {
            0 => Ok(()),
            17 => untouched(format!("`{place}` is no longer {name}")),
            75 => untouched(format!("another command is removing {name} from `{place}`")),
            _ => {
                let fault = Fault::new(format!("`{name}` is removed only in part from `{place}`"));
                Err(Trouble::Partial(fault.because(removed.said())))
            }
        }
    }
}

/// A copy of a machine, or one that came back after another took its place. Nobody can say which of them is meant.
fn two_are(one: &str, other: &str, name: &ServerName) -> Fault {
    let message = format!("`{one}` and `{other}` both say that they are {name}");
    Fault::new(message).hint("take the wrong one out of `hosts`, after you stopped what runs on it")
}

/// hafog has a shell there and nothing else.
fn cannot_switch(name: &ServerName) -> Trouble {
    let message = format!("server `{name}` cannot be switched from here");
    let why = "it exists already: whoever made it has its switch";
    Trouble::NothingChanged(Fault::new(message).because(why))
}

#[async_trait]
impl Cloud for Site {
    /// The machines are all there is: one that answers is an answer.
    async fn ping(&self) -> Result<(), Fault> {
        self.way.any_answers().await
    }

    async fn servers(&self) -> Result<Vec<Server>, Fault> {
        self.all().await
    }

    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        self.create(want, key).await
    }

    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        let found = self.known(name).await;
        match (to, found) {
            (Power::On, Ok((_, claim))) if claim.made => Ok(()),
            _ => Err(cannot_switch(name)),
        }
    }

    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble> {
        self.delete(name).await
    }

    async fn seal(
        &self,
        builder: &ServerName,
        _: &ImageName,
        _: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        let message = format!("`{builder}` cannot be sealed: `ssh` has no images");
        Err(Trouble::NothingChanged(Fault::new(message)))
    }

    async fn images(&self) -> Result<Vec<Image>, Fault> {
        Ok(Vec::new())
    }

    async fn delete_image(&self, _: &ImageName) -> Result<(), Trouble> {
        Ok(())
    }

    async fn tag_image(
        &self,
        name: &ImageName,
        _: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let message = format!("site `{}` has no images, so no `{name}`", self.site);
        Err(Trouble::NothingChanged(Fault::new(message)))
    }

    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let (seen, mut claim) = self.known(name).await.nothing_changed()?;
        claim.tags.extend(tags.clone());
        self.way.change(&seen.place, &claim).await
    }

    async fn change_image(&self, name: &ServerName, _: &ImageName) -> Result<(), Trouble> {
        let message = format!("`{name}` has no image: recipes are applied to it");
        Err(Trouble::NothingChanged(Fault::new(message)))
    }

    async fn firewall(&self) -> Result<Option<Firewall>, Fault> {
        Ok(None)
    }

    async fn allow(&self, _: &Firewall) -> Result<(), Trouble> {
        let message = "`ssh` keeps nobody out";
        Err(Trouble::NothingChanged(Fault::new(message)))
    }

    async fn remove_site(&self) -> Result<(), Trouble> {
        // Each of them must say so itself.
        for seen in self.way.look_at_all().await {
            seen.nothing_changed()?;
        }
        let left = self.all().await.nothing_changed()?;
        if !left.is_empty() {
            let names: Vec<String> = left.iter().map(|one| one.name.to_string()).collect();
            let message = format!(
                "site `{}` still has servers: {}",
                self.site,
                names.join(", ")
            );
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        for host in self.way.hosts() {
            self.way.ssh.forget(&place_name(host)).await.partial()?;
        }
        self.way.ssh.leave().await.partial()
    }

    fn shell(&self) -> Arc<dyn Shell> {
        Arc::new(self.machine())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Runs it here, with a folder of the test's and a `systemctl` that does nothing.
    fn remove(folder: &Path, server: &str, bin: &Path) -> Option<i32> {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let ran = std::process::Command::new("/bin/sh")
            .args(["-c", REMOVE, "sh"])
            .arg(folder)
            .args([server, "shop"])
            .arg(bin)
            .env("PATH", path)
            // Where it would be if it did not look where it goes.
            .current_dir(bin)
            .status();
        ran.expect("sh is there").code()
    }

    #[test]
    fn only_the_server_that_is_meant_is_removed_and_its_claim_goes_last() {
        let home = tempfile::tempdir().expect("a folder");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("made");
        std::os::unix::fs::symlink("/bin/true", bin.join("systemctl")).expect("linked");
        let folder = home.path().join("hafog");
        assert_eq!(
            remove(&folder, "shop-west-db-1", &bin),
            Some(0),
            "gone already"
        );
        std::fs::create_dir_all(folder.join("etc/releases")).expect("made");
        let theirs = home.path().join("put");
        std::fs::write(&theirs, "x").expect("written");
        let list = format!("{}\n", theirs.display());
        std::fs::write(folder.join("etc/releases/web-1.files"), list).expect("written");
        let claim = Claim {
            stack: "shop".into(),
            site: "west".into(),
            server: "shop-west-db-1".into(),
            key: "k".to_owned(),
            made: true,
            tags: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec_pretty(&claim).expect("JSON");
        std::fs::write(folder.join("claim.json"), bytes).expect("written");
        assert_eq!(remove(&folder, "shop-west-db-2", &bin), Some(17));
        assert!(folder.join("etc").exists() && theirs.exists());
        assert_eq!(remove(&folder, "shop-west-db-1", &bin), Some(0));
        assert!(!folder.exists() && !theirs.exists());
        assert!(bin.join("systemctl").is_symlink(), "it went somewhere else");
    }
}
