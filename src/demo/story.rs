//! The story: what is typed, in which order, and what is measured meanwhile.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::client::{Acknowledged, Clients, orders_at};
use super::report::{Move, Report, Timed, median};
use crate::cloud::SiteSettings;
use crate::cloud::local::base_folder;
use crate::dns::registry::find as dns_host;
use crate::dns::{CACHING, ZoneSettings, ttl};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::model::digest::hex;
use crate::model::id::HostName;
use crate::model::record::RecordType;
use crate::model::roles::Published;
use crate::state::StateStore;
use crate::state::dir::DirStore;
use crate::ui::print::{Colour, Ui};
use crate::ui::snippet;

const SPEC: &str = include_str!("../../templates/demo/hafog.yaml");
const STACK: &str = "shop";
const NAME: &str = "www.shop.test";
const ZONE: &str = "shop.test";
const PORT: u16 = 8080;
const CLIENTS: usize = 4;
/// Orders that are waited for between two acts of the story.
const ORDERS: usize = 100;
const WAIT: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the demo lives; must be new, empty or an earlier demo's
    #[arg(long, value_name = "FOLDER", default_value = ".demo")]
    folder: PathBuf,
    /// Leave everything running at the end
    #[arg(long)]
    keep: bool,
    /// How many times the primary is killed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    failovers: usize,
}

/// From the oldest of the writers' lost orders to the last one of all.
fn span(acknowledged: &[&Acknowledged], lost: &BTreeSet<&str>) -> Option<f64> {
    let is_lost = |one: &&&Acknowledged| lost.contains(one.id.as_str());
    let oldest = acknowledged
        .iter()
        .filter(is_lost)
        .map(|one| one.at)
        .min()?;
    let last = acknowledged.iter().map(|one| one.at).max()?;
    Some(last.duration_since(oldest).as_secs_f64())
}

/// Tells the story; 0 only if nothing was lost that must not be or that was not said, no cache was late, and nothing is left behind.
pub fn run(args: &Args, json: bool) -> ExitCode {
    let ui = Ui::new(Colour::Auto, json, false, false);
    let told = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(tell(args, &ui)),
        Err(error) => Err(Fault::new("cannot start").because(error)),
    };
    match told {
        Ok(report) => {
            ui.result(&report, || report.text());
            ExitCode::from(if report.ok() { exit::DONE } else { exit::ERROR })
        }
        Err(fault) => {
            ui.say(snippet::render(&fault, ui.colour_err).trim_end());
            ExitCode::from(exit::code(fault.kind()))
        }
    }
}

async fn tell(args: &Args, ui: &Ui) -> Result<Report, Fault> {
    let mut story = Story::new(args, *ui)?;
    let told = tokio::select! {
        told = story.acts(args) => told,
        _ = tokio::signal::ctrl_c() => Err(Fault::of(Kind::Interrupted, "interrupted; the demo is being removed")),
    };
    if args.keep {
        told?;
        ui.say(&format!("kept: cd {}", story.folder.display()));
        ui.say(&format!(
            "kept: export DATABASE_PASSWORD={}",
            story.password
        ));
        return Ok(story.finish());
    }
    let removed = story.remove().await;
    told?;
    removed?;
    Ok(story.finish())
}

struct Story {
    ui: Ui,
    folder: PathBuf,
    password: String,
    report: Report,
    began: Instant,
}

/// A moment on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    time: Timestamp,
}

impl Moment {
    fn now() -> Moment {
        Moment {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }

    fn until(self, later: Instant) -> f64 {
        later.saturating_duration_since(self.instant).as_secs_f64()
    }
}

impl Story {
    fn new(args: &Args, ui: Ui) -> Result<Story, Fault> {
        let fault = |error: std::io::Error| {
            Fault::new(format!("cannot use `{}`", args.folder.display())).because(error)
        };
        let spec = args.folder.join("hafog.yaml");
        let is_new =
            std::fs::read_dir(&args.folder).map_or(true, |mut entries| entries.next().is_none());
        if !is_new && std::fs::read_to_string(&spec).ok().as_deref() != Some(SPEC) {
            return Err(Fault::new(format!(
                "`{}` is not empty and no demo's",
                args.folder.display()
            ))
            .hint("hafog demo --folder ANOTHER"));
        }
        std::fs::create_dir_all(&args.folder).map_err(fault)?;
        std::fs::write(&spec, SPEC).map_err(fault)?;
        let folder = args.folder.canonicalize().map_err(fault)?;
        let mut random = [0_u8; 16];
        let read = |bytes: &mut [u8]| {
            use std::io::Read;
            std::fs::File::open("/dev/urandom")?.read_exact(bytes)
        };
        read(&mut random).map_err(fault)?;
        let password = hex(&random);
        Ok(Story {
            ui,
            folder,
            password,
            report: Report::default(),
            began: Instant::now(),
        })
    }

    fn finish(mut self) -> Report {
        self.report.total_seconds = self.began.elapsed().as_secs_f64();
        self.report
    }

    async fn acts(&mut self, args: &Args) -> Result<(), Fault> {
        if self.folder.join(".hafog").exists() {
            self.ui
                .say("an earlier demo was left here; it is removed first");
            self.remove().await?;
            *self = Story::new(args, self.ui)?;
        }
        for command in ["check", "build --yes", "up --yes", "clone west --yes"] {
            self.type_in(command).await?;
        }
        self.show("status").await?;
        let east = self.door("east").await?;
        let west = self.door("west").await?;
        let host = HostName::new(NAME);
        let mut clients = Clients::start(CLIENTS, &self.authorities().await?, &host, PORT)?;
        self.ui.say(&format!(
            "{CLIENTS} clients write orders through {NAME} from now on, all the time"
        ));
        self.orders(&clients, ORDERS).await?;
        self.switchover(&clients, ("west", west)).await?;
        self.type_in("commit --yes").await?;
        let mut primary = ("west", west);
        let mut standby = ("east", east);
        for _ in 0..args.failovers {
            self.failover(&clients, primary.0, standby).await?;
            self.type_in("commit --yes").await?;
            self.type_in("failback --rejoin-only --yes").await?;
            std::mem::swap(&mut primary, &mut standby);
        }
        self.show("status").await?;
        clients.finish().await;
        self.report.acknowledged = clients.count();
        let seconds = |pick: fn(&Move) -> f64| {
            let failovers = self
                .report
                .moves
                .iter()
                .filter(|moved| moved.verb == "failover");
            median(&failovers.map(pick).collect::<Vec<_>>())
        };
        let (command, first, newcomer) = (
            seconds(|moved| moved.command_seconds),
            seconds(|moved| moved.first_write_seconds),
            seconds(|moved| moved.newcomer_seconds),
        );
        self.report.failover_command_seconds = command;
        self.report.failover_to_first_write_seconds = first;
        self.report.failover_to_newcomer_seconds = newcomer;
        Ok(())
    }

    async fn switchover(&mut self, clients: &Clients, to: (&str, IpAddr)) -> Result<(), Fault> {
        let start = Moment::now();
        let said = self.type_in(&format!("switchover {} --yes", to.0)).await?;
        let lost = self
            .measure(clients, "switchover", to, start, start.instant, &said)
            .await?;
        self.report.lost_in_switchovers += lost;
        Ok(())
    }

    /// Pulls the plug of the primary's site (every process of it is killed with -9, at once) and types the command.
    async fn failover(
        &mut self,
        clients: &Clients,
        from: &str,
        to: (&str, IpAddr),
    ) -> Result<(), Fault> {
        self.orders(clients, ORDERS).await?;
        self.type_in(&format!("local power {from} off")).await?;
        let killed = Instant::now();
        let start = Moment::now();
        let said = self.type_in("failover --yes").await?;
        let lost = self
            .measure(clients, "failover", to, start, killed, &said)
            .await?;
        self.report.lost_in_failovers += lost;
        Ok(())
    }

    async fn measure(
        &mut self,
        clients: &Clients,
        verb: &str,
        to: (&str, IpAddr),
        start: Moment,
        before: Instant,
        said: &str,
    ) -> Result<usize, Fault> {
        let command_seconds = start.instant.elapsed().as_secs_f64();
        let clock = self.clock().await?;
        let firsts = self.wait("a write at the new site", || {
            let books = clients.books.lock().expect("no writer panics");
            let first = books.first_by(to.1, start.instant)?;
            Some((first, books.first_newcomer_by(to.1, start.instant)?))
        });
        let (first, newcomer) = firsts.await?;
        // Until the clock says that every cache has moved, and some orders more.
        while Timestamp::now() < clock {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.orders(clients, ORDERS).await?;
        let held = orders_at(SocketAddr::new(to.1, PORT)).await?;
        let (moved, lost) = {
            let books = clients.books.lock().expect("no writer panics");
            let acknowledged = books.acknowledged_between(self.began, before.max(start.instant));
            let lost: BTreeSet<&str> = acknowledged
                .iter()
                .map(|a| a.id.as_str())
                .filter(|id| !held.contains(*id))
                .collect();
            let line = said
                .lines()
                .find_map(|line| line.strip_prefix("loss: "))
                .unwrap_or("no word of a loss");
            let moved = Move {
                verb: verb.to_owned(),
                to: to.0.to_owned(),
                command_seconds,
                downtime_seconds: books
                    .longest_gap(before - Duration::from_millis(500), first)
                    .as_secs_f64(),
                first_write_seconds: start.until(first),
                newcomer_seconds: start.until(newcomer),
                acknowledged_before: acknowledged.len(),
                lost: lost.len(),
                lost_seconds: span(&acknowledged, &lost),
                said: line.split(" (").next().unwrap_or(line).to_owned(),
                clock_seconds: clock.duration_since(start.time).as_secs_f64().max(0.0),
                last_client_seconds: books
                    .last_elsewhere(to.1, start.instant)
                    .map(|last| start.until(last)),
            };
            let lost = lost.len();
            (moved, lost)
        };
        self.report.moves.push(moved);
        Ok(lost)
    }

    /// Waits for so many more acknowledged orders.
    async fn orders(&self, clients: &Clients, more: usize) -> Result<(), Fault> {
        let wanted = clients.count() + more;
        self.wait("orders", || (clients.count() >= wanted).then_some(()))
            .await
    }

    async fn wait<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T, Fault> {
        let give_up = Instant::now() + WAIT;
        loop {
            if let Some(seen) = ask() {
                return Ok(seen);
            }
            if Instant::now() >= give_up {
                return Err(Fault::unavailable(format!(
                    "no {what} within {} s",
                    WAIT.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Types a command, shows what it did, and times it. Returns what it said.
    async fn type_in(&mut self, words: &str) -> Result<String, Fault> {
        let start = Instant::now();
        let said = self.show(words).await?;
        let command = format!("hafog {words}");
        self.report.commands.push(Timed {
            command,
            seconds: start.elapsed().as_secs_f64(),
        });
        Ok(said)
    }

    async fn show(&self, words: &str) -> Result<String, Fault> {
        self.ui.say(&format!("\n$ hafog {words}"));
        let said = self.command(words).await?;
        // The plan was shown by `--dry-run` to whoever wants it; here what was done is enough.
        let done = said
            .find("\nrun ")
            .map_or(said.as_str(), |at| &said[at + 1..]);
        self.ui.say(done.trim_end());
        Ok(said)
    }

    async fn command(&self, words: &str) -> Result<String, Fault> {
        let program = std::env::current_exe()
            .map_err(|error| Fault::new("cannot find this program").because(error))?;
        let ran = tokio::process::Command::new(&program)
            .args(words.split(' '))
            .current_dir(&self.folder)
            .env("DATABASE_PASSWORD", &self.password)
            .env("HAFOG_EXE", &program)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| Fault::new(format!("cannot run `hafog {words}`")).because(error))?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&ran.stderr),
            String::from_utf8_lossy(&ran.stdout)
        );
        if ran.status.success() {
            return Ok(said);
        }
        self.ui.say(said.trim_end());
        let code = ran
            .status
            .code()
            .map_or("a signal".to_owned(), |code| format!("code {code}"));
        Err(Fault::new(format!("`hafog {words}` ended with {code}")))
    }

    /// The address of a site's balancer.
    async fn door(&self, site: &str) -> Result<IpAddr, Fault> {
        let facts = self.command("show facts --json").await?;
        let facts: Value = serde_json::from_str(&facts)
            .map_err(|error| Fault::new("cannot read the facts").because(error))?;
        let server = format!("{STACK}-{site}-balancer-1");
        let address = find(
            &facts,
            &["sites", site, "servers", &server, "host", "address"],
        );
        let address = address
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        address.ok_or_else(|| Fault::new(format!("`{server}` has no address")))
    }

    fn home(&self) -> PathBuf {
        self.folder.join(".hafog")
    }

    async fn authorities(&self) -> Result<Vec<SocketAddr>, Fault> {
        let about = dns_host("serve").expect("hafog's own name server is built in");
        let settings = ZoneSettings {
            zone: ZONE.into(),
            settings: Default::default(),
            home: self.home(),
        };
        (about.open)(&settings)?.authorities().await
    }

    /// The TTL clock's instant for the name, from the history that the command left.
    async fn clock(&self) -> Result<Timestamp, Fault> {
        let names = DirStore::new(self.home()).get(crate::world::NAMES).await?;
        let (bytes, _) = names.ok_or_else(|| Fault::new("nothing was ever published"))?;
        let published: Published = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::new("cannot read what was published").because(error))?;
        let clock = ttl::effective_at(&published, &HostName::new(NAME), RecordType::A, CACHING);
        Ok(clock.unwrap_or_else(Timestamp::now))
    }

    async fn remove(&mut self) -> Result<(), Fault> {
        self.type_in("destroy --yes").await?;
        self.report.left_processes = self.processes_left()?;
        std::fs::remove_dir_all(&self.folder).map_err(|error| {
            Fault::new(format!("cannot remove `{}`", self.folder.display())).because(error)
        })
    }

    /// Processes that still live in a folder of the demo's.
    fn processes_left(&self) -> Result<usize, Fault> {
        let mut folders = vec![self.folder.clone()];
        for site in ["east", "west"] {
            let settings = SiteSettings {
                stack: STACK.into(),
                site: site.into(),
                network: None,
                region: None,
                hosts: Vec::new(),
                home: self.home(),
            };
            folders.push(base_folder(&settings)?);
        }
        let processes = std::fs::read_dir("/proc")
            .map_err(|error| Fault::new("cannot read `/proc`").because(error))?;
        let cwds = processes
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
        let me: &Path = &std::env::current_dir().unwrap_or_default();
        Ok(cwds
            .filter(|cwd| cwd != me && folders.iter().any(|folder| cwd.starts_with(folder)))
            .count())
    }
}

fn find<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}
