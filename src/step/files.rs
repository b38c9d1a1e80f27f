//! Files in step: who knows whom, who has them, and copies that somebody waits for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{Act, Context, Standing, program, role};
use crate::cloud::ServerState;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::files::*;
use crate::model::id::*;
use crate::model::stack::{Files, Job, Server};
use crate::plan::action::*;
use crate::plan::facts::FilesFact;
use crate::shell::{Command, File, Host, Service};
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);
/// How often a copy is asked whether it is there.
const POLL: Duration = Duration::from_millis(100);
/// So long a server may say nothing before nobody waits for it any more.
const SILENT_LIMIT: Duration = Duration::from_secs(60);

/// Where a server keeps what it knows of its files.
fn folder(host: &Host) -> String {
    format!("{}/files", host.dirs.etc)
}

/// Where the files themselves are, and the link to them: what survives a change of image is not where images put things.
fn places(world: &World, host: &Host, files: &Files) -> (String, Option<String>) {
    let own = format!("{}/files/{}", host.dirs.data, files.name);
    match (
        world.has_machines(&host.site),
        world.stack.seals(&host.site),
    ) {
        (true, true) => (own, Some(files.path.clone())),
        (true, false) => (files.path.clone(), None),
        (false, _) => (own, None),
    }
}

/// The variables with which applications find their files: `HAFOG_FILES_UPLOADS`.
pub(super) fn variables(world: &World, server: &Server, host: &Host) -> BTreeMap<String, String> {
    let files = world.stack.files_of(server).map(|files| {
        let name = files.name.as_str().to_uppercase().replace('-', "_");
        let (folder, link) = places(world, host, files);
        (format!("HAFOG_FILES_{name}"), link.unwrap_or(folder))
    });
    files.collect()
}

pub(super) fn service(
    world: &World,
    server: &Server,
    host: &Host,
) -> Result<Option<Service>, Fault> {
    if world.stack.files_of(server).next().is_none() {
        return Ok(None);
    }
    let argv = vec![
        program::path(world, host)?,
        "files".to_owned(),
        "keep".to_owned(),
        folder(host),
    ];
    Ok(Some(Service::new(
        FILES_SERVICE,
        argv,
        Duration::from_secs(10),
    )))
}

fn config(world: &World, server: &Server, host: &Host, peers: Vec<Peer>) -> Result<Config, Fault> {
    let kept = world.stack.files_of(server).map(|files| {
        let (folder, link) = places(world, host, files);
        Kept {
            name: files.name.clone(),
            folder: PathBuf::from(folder),
            link: link.map(PathBuf::from),
            user: files.user.clone(),
            every: files.every,
            bandwidth: files.bandwidth,
            most_deleted: files.most_deleted,
        }
    });
    Ok(Config {
        server: server.name.clone(),
        site: server.site.clone(),
        first: is_first(world, server),
        role_file: PathBuf::from(role::path(host)),
        program: program::path(world, host)?,
        machine: world.has_machines(&server.site),
        files: kept.collect(),
        peers,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn is_first(world: &World, server: &Server) -> bool {
    let mut group = world.stack.group_at(&server.site, &server.group);
    group.next().is_some_and(|first| first.name == server.name)
}

fn config_file(host: &Host, config: &Config) -> File {
    File {
        path: format!("{}/{CONFIG}", folder(host)),
        bytes: serde_json::to_vec_pretty(config).expect("a configuration serialises"),
        mode: 0o644,
        for_service_user: false,
    }
}

async fn known(world: &World, host: &Host) -> Result<Option<Config>, Fault> {
    let path = format!("{}/{CONFIG}", folder(host));
    let bytes = world.shell(&host.site)?.get(host, &path).await?;
    // Of another version: as good as none.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Folders and links, before the applications start that need them. Whom a server knows, it goes on knowing.
pub(super) async fn bring(world: &World, server: &Server, host: &Host) -> Result<(), Trouble> {
    if server.job != Job::App || world.stack.files_of(server).next().is_none() {
        return Ok(());
    }
    let shell = world.shell(&host.site).nothing_changed()?;
    let was = known(world, host).await.nothing_changed()?;
    let peers = was
        .as_ref()
        .map(|was| was.peers.clone())
        .unwrap_or_default();
    let now = config(world, server, host, peers).nothing_changed()?;
    if was.as_ref() != Some(&now) {
        shell.put(host, &config_file(host, &now)).await?;
    }
    let folder = folder(host);
    let prepare = Command::new([now.program.as_str(), "files", "prepare", &folder]).limit(LIMIT);
    let ran = shell.run(host, &prepare).await?;
    match ran.code {
        0 => Ok(()),
        _ => {
            let message = format!("cannot make the folders for files on `{}`", host.name);
            Err(Trouble::Partial(
                Fault::new(message).because(ran.stderr.trim()),
            ))
        }
    }
}

/// A server of the group that answers, with what the others must know of it.
struct Met<'a> {
    server: &'a Server,
    host: Host,
    /// `None`: it has no key yet.
    peer: Option<Peer>,
}

/// Those of the group that run and answer.
async fn meet<'a>(
    world: &'a World,
    group: &'a GroupName,
    make: bool,
) -> Result<Vec<Met<'a>>, Trouble> {
    let mut running = Vec::new();
    for site in &world.stack.sites {
        if world.assumed_down.contains(&site.name) {
            continue;
        }
        let Ok(cloud) = world.cloud(&site.name) else {
            continue;
        };
        let Ok(found) = cloud.servers().await else {
            continue;
        };
        for server in world.stack.group_at(&site.name, group) {
            let seen = found.iter().find(|found| found.name == server.name);
            let seen = seen.filter(|seen| seen.state == ServerState::Running);
            if let Some(host) = seen.and_then(|seen| seen.host.clone()) {
                running.push((server, host));
            }
        }
    }
    let met = running.into_iter().map(|(server, host)| async move {
        let peer = introduce(world, server, &host, make).await;
        peer.map(|peer| Met { server, host, peer })
    });
    let (mut all, mut silent) = (Vec::new(), None);
    for met in join_all(met).await {
        match met {
            Ok(met) => all.push(met),
            Err(trouble) => silent = Some(trouble),
        }
    }
    match (all.is_empty(), silent) {
        (true, Some(trouble)) => Err(trouble),
        _ => Ok(all),
    }
}

/// Its own key, which is made there and never leaves, its SSH server's key and that one's port: each on a line.
const INTRODUCE: &str = r#"
key=$1 make=$3
if [ "$make" = make ] && [ ! -s "$key.pub" ]; then
  mkdir -p "$(dirname "$key")"; rm -f "$key"
  ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$key"
fi
[ -s "$key.pub" ] || exit 0
cat "$key.pub"
PATH="$PATH:/usr/sbin"
sshd=$(sshd -T -C user=root,host=localhost,addr=127.0.0.1)
keys=$(echo "$sshd" | sed -n 's/^hostkey //p')
host=$(echo "$keys" | grep -m 1 ed25519 || echo "$keys" | head -n 1)
ssh-keygen -y -f "$host"
echo "$sshd" | sed -n 's/^port //p' | head -n 1"#;

async fn introduce(
    world: &World,
    server: &Server,
    host: &Host,
    make: bool,
) -> Result<Option<Peer>, Trouble> {
    let peer = |port: u16, host_key: &str, key: &str| Peer {
        server: server.name.clone(),
        site: server.site.clone(),
        first: is_first(world, server),
        address: host.address,
        port,
        host_key: host_key.to_owned(),
        key: key.to_owned(),
        folder: None,
    };
    if !world.has_machines(&server.site) {
        let folder = Some(PathBuf::from(folder(host)));
        return Ok(Some(Peer {
            folder,
            ..peer(0, "", "")
        }));
    }
    let path = format!("{}/{KEY}", folder(host));
    let make = if make { "make" } else { "look" };
    let words = [
        "sh",
        "-euc",
        INTRODUCE,
        "sh",
        &path,
        server.name.as_str(),
        make,
    ];
    let shell = world.shell(&host.site).nothing_changed()?;
    let ran = shell.run(host, &Command::new(words).limit(LIMIT)).await?;
    let lines: Vec<&str> = ran.stdout.lines().map(str::trim).collect();
    let first_two = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        words.join(" ")
    };
    match (ran.code, lines.as_slice()) {
        (0, []) => Ok(None),
        (0, [key, host_key, port]) if port.parse::<u16>().is_ok() => {
            let port = port.parse().unwrap_or_default();
            Ok(Some(peer(port, &first_two(host_key), &first_two(key))))
        }
        _ => {
            let message = format!("`{}` does not say how others reach it by SSH", host.name);
            Err(Trouble::Partial(
                Fault::new(message).because(ran.stderr.trim()),
            ))
        }
    }
}

/// What each of them is to be told. Whoever is silent now stays known.
async fn wanted(
    world: &World,
    met: &[Met<'_>],
) -> Result<Vec<(Host, Config, Option<Config>)>, Fault> {
    let mut all = Vec::new();
    for one in met {
        let was = known(world, &one.host).await?;
        let mut peers: BTreeMap<ServerName, Peer> = BTreeMap::new();
        for old in was.iter().flat_map(|was| &was.peers) {
            if world.stack.server(&old.server).is_some() {
                peers.insert(old.server.clone(), old.clone());
            }
        }
        for other in met {
            if let Some(peer) = &other.peer {
                peers.insert(peer.server.clone(), peer.clone());
            }
        }
        peers.remove(&one.server.name);
        let peers = peers.into_values().collect();
        all.push((
            one.host.clone(),
            config(world, one.server, &one.host, peers)?,
            was,
        ));
    }
    Ok(all)
}

/// Whether every server of the group that answers knows the others.
pub async fn is_connected(world: &World, group: &GroupName) -> Result<bool, Fault> {
    let met = meet(world, group, false)
        .await
        .map_err(|trouble| trouble.fault().clone())?;
    if met.iter().any(|one| one.peer.is_none()) {
        return Ok(false);
    }
    let wanted = wanted(world, &met).await?;
    Ok(wanted.iter().all(|(_, now, was)| Some(now) == was.as_ref()))
}

/// What a server has of some files.
pub async fn look(world: &World, files: &Files, host: &Host) -> Result<FilesFact, Fault> {
    let shell = world.shell(&host.site)?;
    let (place, _) = places(world, host, files);
    let mark = shell.get(host, &format!("{place}/{MARK}")).await?;
    let report = report(world, &files.name, host).await?;
    Ok(FilesFact {
        marked: mark.as_deref() == Some(mark_of(&files.name).as_bytes()),
        report,
    })
}

async fn report(world: &World, name: &FilesName, host: &Host) -> Result<Option<Report>, Fault> {
    let path = format!("{}/{}", folder(host), report_path(name));
    let bytes = world.shell(&host.site)?.get(host, &path).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn entry<'a>(world: &'a World, name: &FilesName) -> Result<&'a Files, Fault> {
    let mut files = world.stack.files.iter();
    let found = files.find(|files| &files.name == name);
    found.ok_or_else(|| Fault::new(format!("there are no files `{name}`")))
}

#[async_trait]
impl Act for ConnectFiles {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        match is_connected(context.world, &self.group).await? {
            true => Ok(Standing::done(format!(
                "the servers of `{}` know one another",
                self.group
            ))),
            false => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        connect(context.world, &self.group).await
    }
}

async fn connect(world: &World, group: &GroupName) -> Result<(), Trouble> {
    let met = meet(world, group, true).await?;
    for (host, now, was) in wanted(world, &met).await.partial()? {
        if was.as_ref() != Some(&now) {
            let shell = world.shell(&host.site).partial()?;
            shell.put(&host, &config_file(&host, &now)).await?;
        }
    }
    Ok(())
}

/// A machine with a new image has another host key, which the others must know.
pub(super) async fn known_again(world: &World, server: &Server) -> Result<(), Trouble> {
    match world.stack.files_of(server).next() {
        Some(files) if server.job == Job::App => connect(world, &files.on).await,
        _ => Ok(()),
    }
}

#[async_trait]
impl Act for FoundFiles {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let files = entry(context.world, &self.files)?;
        let host = context.world.host(&self.server).await?;
        match look(context.world, files, &host).await?.marked {
            true => Ok(Standing::done(format!(
                "{} has `{}`",
                self.server, self.files
            ))),
            false => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let files = entry(world, &self.files).nothing_changed()?;
        let host = world.host(&self.server).await.nothing_changed()?;
        let mark = File {
            path: format!("{}/{MARK}", places(world, &host, files).0),
            bytes: mark_of(&files.name).into_bytes(),
            mode: 0o644,
            for_service_user: false,
        };
        let shell = world.shell(&host.site).nothing_changed()?;
        shell.put(&host, &mark).await
    }
}

/// What every ask of one step of one run begins with. It is in no plan: a plan is the same at every look.
fn asks_of(context: &Context<'_>) -> String {
    format!("{} {} @", context.run, context.step.name)
}

impl SyncFiles {
    /// Each attempt asks anew: what one could not do is no answer to the next.
    fn ask(&self, context: &Context<'_>) -> Ask {
        let attempt = context.world.clock.now();
        Ask {
            id: format!("{}{attempt}", asks_of(context)),
            verify: self.verify,
            restore: self.restore.clone(),
            most_deleted: self.most_deleted,
        }
    }

    /// Of the copy that was asked for, by any attempt, once it was made or could not be.
    async fn answer(&self, context: &Context<'_>) -> Result<Option<Report>, Fault> {
        let host = context.world.host(&self.server).await?;
        let report = report(context.world, &self.files, &host).await?;
        let asks = asks_of(context);
        let is_ours = |answered: &String| answered.starts_with(&asks);
        Ok(report.filter(|report| report.answered.as_ref().is_some_and(is_ours)))
    }
}

fn evidence(sync: &SyncFiles, report: &Report) -> String {
    let aside = match report.aside.as_slice() {
        [] => String::new(),
        folders => format!(
            "; what was there before is in {}",
            folders
                .iter()
                .map(|one| one.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    let Some(whole) = &report.whole else {
        return format!("{} has `{}`{aside}", sync.server, sync.files);
    };
    let verified = match whole.verified.as_ref().filter(|_| sync.verify) {
        None => String::new(),
        Some(verified) => match verified.mended {
            0 => ", all equal by their checksums".to_owned(),
            mended => format!(", {mended} of them had other contents and are mended"),
        },
    };
    format!(
        "{} has the {} files of {}{verified} ({} copied, {} deleted){aside}",
        sync.server, whole.files, whole.source, whole.copied, whole.deleted
    )
}

#[async_trait]
impl Act for SyncFiles {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        match self.answer(context).await? {
            Some(report) if report.trouble.is_none() => Ok(Standing::done(evidence(self, &report))),
            _ => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let host = world.host(&self.server).await.nothing_changed()?;
        let ask = self.ask(context);
        let id = Some(ask.id.clone());
        let ask = File {
            path: format!("{}/{}", folder(&host), ask_path(&self.files)),
            bytes: serde_json::to_vec(&ask).expect("an ask serialises"),
            mode: 0o644,
            for_service_user: false,
        };
        let shell = world.shell(&host.site).nothing_changed()?;
        shell.put(&host, &ask).await?;
        let clock = world.clock.as_ref();
        let begun = clock.elapsed();
        let mut heard = begun;
        loop {
            match self.answer(context).await {
                Ok(Some(report)) if report.answered == id => return done(self, &report),
                Ok(_) => heard = clock.elapsed(),
                Err(fault) if clock.elapsed() - heard > SILENT_LIMIT => {
                    let what = format!(
                        "{} does not say whether it copied `{}`",
                        self.server, self.files
                    );
                    // Whatever came is part of a copy, and the server goes on with it by itself.
                    return Err(Trouble::Partial(fault.while_doing(&what)));
                }
                Err(_) => {}
            }
            let limit = context.step.limit;
            if clock.elapsed() - begun >= limit.0 {
                let late = format!(
                    "{} has not copied `{}` within {limit}",
                    self.server, self.files
                );
                let hint = format!("hafog sync {}", self.files);
                return Err(Trouble::Partial(Fault::new(late).hint(hint)));
            }
            let took = (clock.elapsed() - begun).as_secs();
            if took >= 1 {
                let copying = format!("{} copies `{}`, {took} s so far", self.server, self.files);
                context.progress(copying).await;
            }
            clock.sleep(POLL).await;
        }
    }

    /// What a copy brought is what its source had; taken back, it would come again by itself.
    async fn undo(&self, _: &Context<'_>) -> Result<String, Trouble> {
        Ok(format!("{} keeps what it copied", self.server))
    }
}

fn done(sync: &SyncFiles, report: &Report) -> Result<(), Trouble> {
    let Some(trouble) = &report.trouble else {
        return Ok(());
    };
    let message = format!("{} cannot copy `{}`", sync.server, sync.files);
    let fault = Fault::new(message).because(&trouble.why);
    Err(Trouble::Partial(match trouble.would_delete {
        Some(would) => fault.hint(format!("hafog sync {} --delete {would}", sync.files)),
        None => fault.hint("hafog status"),
    }))
}
