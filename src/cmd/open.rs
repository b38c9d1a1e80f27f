//! From the spec and the registries to a [`World`]. Every mistake is found before anything is asked of anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::Call;
use crate::clock::RealClock;
use crate::cloud::{self, Cloud, SiteSettings};
use crate::db::{self, Engine, keys::Keys};
use crate::dns::{self, DnsHost, ZoneSettings};
use crate::durable;
use crate::error::Fault;
use crate::image::recipe::{self, Versions};
use crate::model::id::{SiteName, ZoneName};
use crate::model::stack::{SecretRef, Site, Stack, Store, Zone};
use crate::probe::real::RealProbe;
use crate::spec::secret::{self, Secret};
use crate::spec::{self, CloudWord, DnsWord, EngineWord, Known, Loaded};
use crate::state;
use crate::state::stores::Stores;
use crate::world::{Secrets, World};

/// The words of this build, from its registries.
pub fn known() -> Known<'static> {
    static CLOUDS: LazyLock<Vec<CloudWord>> = LazyLock::new(|| {
        let word = |about: &&cloud::CloudAbout| CloudWord {
            name: about.name,
            low_ports: about.can.low_ports,
            seal: about.can.seal,
            firewall: about.can.firewall,
            disks: about.can.disks,
            copies: about.can.copies,
            entry: about.can.entry,
        };
        cloud::registry::CLOUDS.iter().map(word).collect()
    });
    static ENGINES: LazyLock<Vec<EngineWord>> = LazyLock::new(|| {
        let word = |about: &&db::EngineAbout| EngineWord {
            name: about.name,
            port: about.port,
            versions: about.versions,
        };
        db::registry::ENGINES.iter().map(word).collect()
    });
    static DNS_HOSTS: LazyLock<Vec<DnsWord>> = LazyLock::new(|| {
        let word = |about: &&dns::DnsHostAbout| DnsWord {
            name: about.name,
            settings: about.settings,
        };
        dns::registry::DNS_HOSTS.iter().map(word).collect()
    });
    Known {
        clouds: &CLOUDS,
        engines: &ENGINES,
        dns_hosts: &DNS_HOSTS,
    }
}

/// Reads the spec, and nothing else.
pub fn load(call: &Call) -> Result<Loaded, Vec<Fault>> {
    spec::load(&call.file, &known())
}

/// The absolute folder of the spec: relative paths in it start here.
pub fn base(call: &Call) -> Result<PathBuf, Fault> {
    let file = std::path::absolute(&call.file).map_err(|error| {
        Fault::new(format!(
            "cannot find the folder of `{}`",
            call.file.display()
        ))
        .because(error)
    })?;
    Ok(file.parent().map(Path::to_path_buf).unwrap_or(file))
}

/// Where hafog keeps its local files of the stack: `HAFOG_DATA_DIR`, or `.hafog` beside the spec.
pub fn home(base: &Path) -> PathBuf {
    match std::env::var_os("HAFOG_DATA_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => base.join(folder),
        None => base.join(".hafog"),
    }
}

/// The state stores alone: enough to read journals and the lease.
pub fn stores(stack: &Stack, base: &Path) -> Stores {
    let open = |store: &Store| state::open(&base.join(&store.folder), store.remote.as_ref(), None);
    let all = stack.stores.iter().map(open);
    let arbiter = stack.stores.iter().position(|store| store.arbiter);
    Stores::new(
        all.collect(),
        arbiter.expect("a resolved stack has an arbiter"),
    )
}

/// The stores of the spec that the call names.
pub fn stores_of(call: &Call) -> Result<(Stack, Stores), Vec<Fault>> {
    let stack = load(call)?.stack;
    let base = base(call).map_err(|fault| vec![fault])?;
    let stores = stores(&stack, &base);
    Ok((stack, stores))
}

/// What a verb can do without. A failover must not need what only a build needs.
#[derive(Clone, Debug, Default)]
pub struct Without {
    pub images: Images,
    /// Nothing is opened of these.
    pub sites: BTreeSet<SiteName>,
    pub versions: Versions,
}

/// For one repository, where nobody waits for it.
const GLANCE_LIMIT: Duration = Duration::from_secs(3);

/// What a verb wants to know of the recipes. Reading them may ask git hosts, each within a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Images {
    /// A recipe that cannot be read is a fault.
    #[default]
    Needed,
    /// A recipe that cannot be read leaves the images without names.
    IfReadable,
    /// The same, and a git host that does not answer at once is not waited for.
    AtAGlance,
    /// No recipe is read, and no git host is asked.
    Unread,
}

impl Without {
    pub fn images() -> Without {
        Without {
            images: Images::Unread,
            ..Without::default()
        }
    }
}

/// Everything, opened and asked nothing.
pub async fn world(call: &Call, without: &Without) -> Result<(World, Loaded), Vec<Fault>> {
    let loaded = load(call)?;
    let base = base(call).map_err(|fault| vec![fault])?;
    let stack = &loaded.stack;
    let mut missing = Vec::new();
    let mut images = BTreeMap::new();
    if without.images != Images::Unread {
        missing = spec::missing_files(stack, &base);
        if missing.is_empty() {
            let (stack, base) = (stack.clone(), base.clone());
            let limit = match without.images {
                Images::AtAGlance => GLANCE_LIMIT,
                _ => recipe::GIT_LIMIT,
            };
            let versions = without.versions;
            let names = move || recipe::names(&stack, &base, limit, versions);
            let names = durable::blocking(names).await;
            images = keep(names, &mut missing).unwrap_or_default();
        }
    }
    let faults = match without.images {
        Images::Needed => missing,
        Images::IfReadable | Images::AtAGlance | Images::Unread => Vec::new(),
    };
    let mut world = assemble(stack, base, &without.sites, faults)?;
    world.images = images;
    Ok((world, loaded))
}

/// The world of a stack that is known already, without what its recipes make. Nothing is opened of the sites `without`.
pub fn world_of(
    call: &Call,
    stack: &Stack,
    without: &BTreeSet<SiteName>,
) -> Result<World, Vec<Fault>> {
    let base = base(call).map_err(|fault| vec![fault])?;
    assemble(stack, base, without, Vec::new())
}

fn assemble(
    stack: &Stack,
    base: PathBuf,
    without: &BTreeSet<SiteName>,
    mut faults: Vec<Fault>,
) -> Result<World, Vec<Fault>> {
    let home = home(&base);
    let clouds: BTreeMap<_, _> = stack
        .sites
        .iter()
        .filter(|site| !without.contains(&site.name))
        .filter_map(|site| keep(cloud_of(stack, site, &home), &mut faults))
        .collect();
    let zones: BTreeMap<_, _> = stack
        .zones
        .iter()
        .filter_map(|zone| keep(host_of(zone, &home), &mut faults))
        .collect();
    let keys = keep(Keys::open(&home.join("keys")), &mut faults);
    let (Some(keys), true) = (keys, faults.is_empty()) else {
        return Err(faults);
    };
    Ok(World {
        stack: Arc::new(stack.clone()),
        stores: Arc::new(stores(stack, &base)),
        secrets: Arc::new(References {
            all: stack.secrets.clone(),
            base: base.clone(),
        }),
        base,
        home,
        clock: Arc::new(RealClock),
        clouds,
        engines: engines(),
        dns: zones,
        probe: Arc::new(RealProbe::new()),
        keys: Arc::new(keys),
        assumed_down: Default::default(),
        images: BTreeMap::new(),
    })
}

fn keep<T>(opened: Result<T, Fault>, faults: &mut Vec<Fault>) -> Option<T> {
    opened.map_err(|fault| faults.push(fault)).ok()
}

/// The spec was checked, but a stack out of a journal may be of another build.
fn unknown(kind: &str, name: &str) -> Fault {
    Fault::new(format!("this build knows no {kind} `{name}`"))
}

fn cloud_of(stack: &Stack, site: &Site, home: &Path) -> Result<(SiteName, Arc<dyn Cloud>), Fault> {
    let about = cloud::registry::find(&site.cloud).ok_or_else(|| unknown("cloud", &site.cloud))?;
    let settings = SiteSettings {
        stack: stack.name.clone(),
        site: site.name.clone(),
        region: site.region.clone(),
        network: site.network,
        hosts: site.hosts.clone(),
        home: home.to_path_buf(),
    };
    let opened = (about.open)(&settings);
    let opened = opened.map_err(|fault| {
        fault.while_doing(format!("cannot open {} for `{}`", about.name, site.name))
    })?;
    Ok((site.name.clone(), opened))
}

fn host_of(zone: &Zone, home: &Path) -> Result<(ZoneName, Arc<dyn DnsHost>), Fault> {
    let about = dns::registry::find(&zone.host).ok_or_else(|| unknown("DNS host", &zone.host))?;
    let settings = ZoneSettings {
        zone: zone.name.clone(),
        settings: zone.settings.clone(),
        home: home.to_path_buf(),
    };
    let opened = (about.open)(&settings);
    let opened = opened.map_err(|fault| {
        fault.while_doing(format!("cannot open {} for `{}`", about.name, zone.name))
    })?;
    Ok((zone.name.clone(), opened))
}

fn engines() -> BTreeMap<String, Arc<dyn Engine>> {
    let open = |about: &&db::EngineAbout| (about.name.to_owned(), (about.open)());
    db::registry::ENGINES.iter().map(open).collect()
}

/// Secrets as the spec refers to them, read when they are delivered.
struct References {
    all: BTreeMap<String, SecretRef>,
    base: PathBuf,
}

impl Secrets for References {
    fn read(&self, name: &str) -> Result<Secret, Fault> {
        let reference = self
            .all
            .get(name)
            .ok_or_else(|| Fault::new(format!("the spec has no secret `{name}`")))?;
        secret::read(reference, &self.base)
    }
}
