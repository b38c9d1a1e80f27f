//! What the runner itself costs: a thousand steps that do nothing, journaled and fsynced in two stores on the disk.
//! Prints steps, seconds, lines of the journal and peak memory as one line of JSON.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use hafog::clock::RealClock;
use hafog::db::keys::Keys;
use hafog::dns::{DnsHost, RecordChange, ZoneState};
use hafog::error::{Fault, Trouble};
use hafog::journal::Silent;
use hafog::model::id::ZoneName;
use hafog::model::record::RecordSet;
use hafog::model::units::Ttl;
use hafog::plan::action::EnsureZone;
use hafog::plan::{Intent, Plan, PlanKind, step};
use hafog::probe::real::RealProbe;
use hafog::run::open::{self, OpenOptions};
use hafog::run::runner::{End, Stop};
use hafog::sim::stacks;
use hafog::spec::secret::Secret;
use hafog::state::StateStore;
use hafog::state::dir::DirStore;
use hafog::state::stores::Stores;
use hafog::world::{Secrets, World};

const STEPS: usize = 1_000;

/// A zone that is open from the moment that it was opened, and does nothing else.
#[derive(Default)]
struct Nothing(AtomicBool);

#[async_trait]
impl DnsHost for Nothing {
    async fn open_zone(&self) -> Result<(), Trouble> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }
    async fn close_zone(&self) -> Result<(), Trouble> {
        Ok(())
    }
    async fn state(&self) -> Result<ZoneState, Fault> {
        let open = self.0.load(Ordering::SeqCst);
        Ok(ZoneState {
            open,
            closable: open,
        })
    }
    async fn records(&self) -> Result<Vec<RecordSet>, Fault> {
        Ok(Vec::new())
    }
    async fn apply(&self, _: &[RecordChange]) -> Result<(), Trouble> {
        Ok(())
    }
    async fn authorities(&self) -> Result<Vec<SocketAddr>, Fault> {
        Ok(Vec::new())
    }
    fn ttl_floor(&self) -> Ttl {
        Ttl(1)
    }
}

struct NoSecret;

impl Secrets for NoSecret {
    fn read(&self, name: &str) -> Result<Secret, Fault> {
        Err(Fault::new(format!("there is no `{name}`")))
    }
}

fn zone(number: usize) -> ZoneName {
    format!("z{number}.test").as_str().into()
}

fn world(folder: &Path) -> World {
    let mut stack = stacks::small();
    stack.zones.clear();
    stack.names.clear();
    let store = |name| Arc::new(DirStore::new(folder.join(name))) as Arc<dyn StateStore>;
    World {
        stack: Arc::new(stack),
        home: std::env::temp_dir(),
        base: folder.to_path_buf(),
        clock: Arc::new(RealClock),
        stores: Arc::new(Stores::new(vec![store("local"), store("arbiter")], 1)),
        clouds: BTreeMap::new(),
        engines: BTreeMap::new(),
        dns: (0..STEPS)
            .map(|number| {
                (
                    zone(number),
                    Arc::new(Nothing::default()) as Arc<dyn DnsHost>,
                )
            })
            .collect(),
        probe: Arc::new(RealProbe::new()),
        keys: Arc::new(Keys::open(&folder.join("keys")).expect("keys are made")),
        secrets: Arc::new(NoSecret),
        assumed_down: Default::default(),
        images: BTreeMap::new(),
    }
}

fn plan() -> Plan {
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Up {
            site: "east".into(),
        },
    );
    for number in 0..STEPS {
        let open = EnsureZone { zone: zone(number) };
        plan.push(step(
            format!("open-zone {number}"),
            "do nothing",
            open.into(),
        ));
    }
    plan
}

/// Of this process, in MiB (proc(5)).
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Beside the program and not in /tmp, which may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let options = OpenOptions {
        assume_down: Default::default(),
        lock_timeout: Default::default(),
        reason: None,
        verb: "bench".to_owned(),
        take_lease: true,
    };
    let session = open::open(world(folder.path()), &options)
        .await
        .expect("a session opens");
    let plan = plan();
    let began = Instant::now();
    let (run, end) = session
        .execute(&plan, &[], Arc::new(Silent), &Stop::default(), 10)
        .await;
    let seconds = began.elapsed().as_secs_f64();
    assert!(matches!(end, End::Done), "{end:?}");
    let journal = hafog::journal::newest(&run, &session.world.stores)
        .await
        .expect("it can be read")
        .expect("it is there");
    let lines = journal.lines.len();
    assert_eq!(lines, 2 * STEPS + 2, "each step began and ended");
    session.close().await.expect("the lease is given back");
    println!(
        r#"{{"steps":{STEPS},"seconds":{seconds:.3},"lines":{lines},"peak":{:.0}}}"#,
        peak()
    );
}
