//! Lints: specs that are valid and will disappoint. Each has a name, by which `check` prints it and the docs explain it.
//! No plan refuses because of one.
//!
//! Where the arbiter lives is only asked on clouds that are not this machine. That it is in neither of them cannot be
//! seen in a host's name; object stores will bring `arbiter-in-primary` with them.

use crate::error::{Fault, Kind, Place};
use crate::model::id::RecipeName;
use crate::model::stack::{Check, SPARE_GROUP, Site, Stack, Store};
use crate::model::units::Ttl;

use super::Known;
use super::resolve::is_published;
use super::source::Span;
use super::spot::Spot;
use super::types::{ServiceSpec, Spec};

#[derive(Clone, Debug, PartialEq)]
pub struct Lint {
    /// As `check` prints it: `one-site`.
    pub name: &'static str,
    pub message: String,
    pub place: Option<Place>,
    pub hint: String,
}

impl Lint {
    /// The lint as something to render.
    pub fn fault(&self) -> Fault {
        let fault = Fault::of(Kind::Refused, format!("{}: {}", self.name, self.message));
        let fault = fault.hint(self.hint.clone());
        match &self.place {
            Some(place) => fault.at(place.clone()),
            None => fault,
        }
    }
}

pub(super) struct Found {
    pub name: &'static str,
    pub message: String,
    /// Nothing, when the lint is about a section that is not there.
    pub at: Option<Span>,
    pub hint: String,
}

/// Everything on it is this machine: one machine's death is not what such a stack is about.
const THIS_MACHINE: &str = "local";
/// Longer than this and a failover is not felt for minutes.
const LONG_FAILOVER_TTL: Ttl = Ttl(300);

/// Looks at a stack that has no mistakes. In the order of the text.
pub(super) fn lint(spec: &Spec, stack: &Stack, root: Spot, known: &Known) -> Vec<Found> {
    let mut found = Vec::new();
    one_site(stack, root, &mut found);
    both_sites_one_account(stack, root, &mut found);
    zone_in_primary(stack, root, &mut found);
    arbiter_out_of_reach(stack, root, &mut found);
    single_server(spec, root, &mut found);
    nothing_published(stack, root, &mut found);
    slow_failover(stack, root, &mut found);
    health(stack, root, &mut found);
    not_asked_yet(stack, root, &mut found);
    not_on_this_machine(spec, stack, root, &mut found);
    unused_image(spec, root, &mut found);
    disks(spec, stack, root, known, &mut found);
    open_to_all(stack, root, known, &mut found);
    found.sort_by_key(|lint| lint.at);
    found
}

fn add(
    found: &mut Vec<Found>,
    name: &'static str,
    at: Spot,
    message: impl Into<String>,
    hint: impl Into<String>,
) {
    found.push(Found {
        name,
        message: message.into(),
        at: at.is_written().then(|| at.span()),
        hint: hint.into(),
    });
}

fn one_site(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    if stack.sites.len() == 1 {
        let message = "there is one site, so there is nowhere to fail over to";
        add(
            found,
            "one-site",
            root.key("sites"),
            message,
            "add a second site, best on another cloud",
        );
    }
}

fn both_sites_one_account(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    for (index, site) in stack.sites.iter().enumerate() {
        let same = |other: &&Site| other.cloud == site.cloud && other.region == site.region;
        let Some(other) = stack.sites[..index].iter().find(same) else {
            continue;
        };
        // Nobody sees from here what listed hosts have in common.
        if site.cloud == THIS_MACHINE || !site.seals {
            continue;
        }
        let message = format!(
            "sites `{}` and `{}` are both in one region of `{}`: what stops one stops the other",
            other.name, site.name, site.cloud
        );
        let at = root.key("sites").key(site.name.as_str());
        add(
            found,
            "both-sites-one-account",
            at,
            message,
            "choose another cloud, or another region of it",
        );
    }
}

/// A cloud that is also the DNS host takes the way out with it when it fails.
fn zone_in_primary(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    let Some(primary) = stack.site(&stack.primary) else {
        return;
    };
    for (index, name) in stack.names.iter().enumerate() {
        let Some(zone) = stack.zone(&name.zone) else {
            continue;
        };
        let cloud = if zone.host == "route53" {
            "aws"
        } else {
            zone.host.as_str()
        };
        if cloud == primary.cloud {
            let message = format!(
                "the zone `{}` is served by `{}`, the primary's cloud: when that fails, the name cannot be moved",
                zone.name, zone.host
            );
            let at = root.key("names").nth(index).key("zone").key("host");
            add(
                found,
                "zone-in-primary",
                at,
                message,
                "choose another DNS host for the zone",
            );
        }
    }
}

fn arbiter_out_of_reach(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    let elsewhere = stack.sites.iter().find(|site| site.cloud != THIS_MACHINE);
    let is_here = |store: &Store| store.arbiter && store.remote.is_none();
    let here = stack.stores.iter().any(is_here);
    if let (Some(site), true, false) = (elsewhere, here, stack.databases.is_empty()) {
        let message = format!(
            "the arbiter is a folder on this machine, which the database servers of `{}` cannot reach",
            site.name
        );
        let hint = "write `{ url: \"ssh://user@host/folder\", arbiter: true }` at `state`: a third place, in neither cloud";
        add(
            found,
            "arbiter-out-of-reach",
            root.key("state"),
            message,
            hint,
        );
    }
}

fn single_server(spec: &Spec, root: Spot, found: &mut Vec<Found>) {
    let Some(balancer) = &spec.balancer else {
        return;
    };
    if spec.servers.iter().any(|(name, _)| name.0 == SPARE_GROUP) {
        return;
    }
    let group = spec.servers.iter().find(|(name, _)| **name == balancer.to);
    if let Some((name, group)) = group
        && group.count == 1
    {
        let message = format!(
            "the balancer has one server behind it: a deploy of `{name}` interrupts the service"
        );
        let spot = root.key("servers").key(&name.0);
        add(
            found,
            "single-server",
            spot.key("count"),
            message,
            format!("write `count: 2` at `servers.{name}`"),
        );
    }
}

fn nothing_published(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    if stack.names.is_empty() {
        let message = "there are no `names`, so a failover cannot move any traffic";
        add(
            found,
            "no-names",
            root.key("names"),
            message,
            "add `names:` with the host that visitors use",
        );
    }
}

fn slow_failover(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    for (index, name) in stack.names.iter().enumerate() {
        if name.failover_ttl > LONG_FAILOVER_TTL {
            let message = format!(
                "visitors of `{}` may see the old site for {} after a planned failover",
                name.host, name.failover_ttl
            );
            let at = root.key("names").nth(index).key("failover_ttl");
            add(
                found,
                "slow-failover",
                at,
                message,
                "write `failover_ttl: 60s`",
            );
        }
    }
}

fn health(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    if stack.health.is_empty() && !stack.names.is_empty() {
        let message = "there is no `health`, so nothing says whether a site works";
        let hint = format!(
            "add `health: [ {{ http: \"http://{}/\" }} ]`",
            stack.names[0].host
        );
        add(found, "no-health", root.key("health"), message, hint);
    }
    for (index, check) in stack.health.iter().enumerate() {
        let Check::Http { url, .. } = check else {
            continue;
        };
        if !stack.names.is_empty() && !is_published(&stack.names, url) {
            let message = "this check looks at a host that is not in `names`, so it says nothing about the site that visitors see";
            let at = root.key("health").nth(index).key("http");
            add(
                found,
                "health-elsewhere",
                at,
                message,
                format!("use the host `{}`", stack.names[0].host),
            );
        }
    }
}

/// Checks that the spec can say and nobody asks so far: a site must not count as checked by them.
fn not_asked_yet(stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    for (index, check) in stack.health.iter().enumerate() {
        let at = root.key("health").nth(index);
        match check {
            Check::Ping => add(
                found,
                "ping-is-not-asked",
                at,
                "nothing pings yet, so this check says nothing about a site",
                "add an `http` check",
            ),
            Check::Http { url, .. } if url.starts_with("https:") && stack.balancer.is_some() => {
                add(
                    found,
                    "balancer-without-tls",
                    at.key("http"),
                    "the balancer speaks plain HTTP so far, so this check fails at every site",
                    "use `http://`",
                )
            }
            Check::Http { .. } => {}
        }
    }
}

/// On this machine an image is files and processes: nothing is installed.
fn not_on_this_machine(spec: &Spec, stack: &Stack, root: Spot, found: &mut Vec<Found>) {
    if !stack.sites.iter().any(|site| site.cloud == THIS_MACHINE) {
        return;
    }
    for (name, image) in spec.images.iter() {
        let at = root.key("images").key(&name.0);
        if !image.packages.is_empty() {
            add(
                found,
                "packages-on-local",
                at.key("packages"),
                "the cloud `local` installs nothing: it runs the programs that this machine has",
                "install them here, and name the programs in `run`",
            );
        }
        let services = image.services.iter().enumerate();
        let with_user = services.filter_map(|(index, service)| match service {
            ServiceSpec::Command { user: Some(_), .. } => {
                Some(at.key("services").nth(index).key("user"))
            }
            _ => None,
        });
        let jobs = image.cron.iter().enumerate();
        let jobs = jobs.filter(|(_, job)| job.user.is_some());
        let jobs = jobs.map(|(index, _)| at.key("cron").nth(index).key("user"));
        for (spot, is_there) in [
            (at.key("users"), !image.users.is_empty()),
            (at.key("sysctl"), !image.sysctl.is_empty()),
        ]
        .into_iter()
        .chain(with_user.chain(jobs).map(|spot| (spot, true)))
        {
            if is_there {
                add(
                    found,
                    "system-on-local",
                    spot,
                    "the cloud `local` changes nothing of this machine: its services run as whoever runs hafog",
                    "it is for sites on other clouds, and stays for them",
                );
            }
        }
        let recipe = stack.recipes.get(&RecipeName::new(&name.0));
        let services = recipe.map_or(&[][..], |recipe| &recipe.services);
        for (index, service) in services.iter().enumerate() {
            if service.run.is_none() {
                add(
                    found,
                    "service-without-run",
                    at.key("services").nth(index),
                    "on the cloud `local` nothing comes with a package, so nothing starts this service",
                    "say its command line: `{ name: …, run: … }`",
                );
            }
        }
    }
}

/// What is asked for and not given.
fn disks(spec: &Spec, stack: &Stack, root: Spot, known: &Known, found: &mut Vec<Found>) {
    let lacks = |site: &&Site| {
        let cloud = known.cloud(&site.cloud);
        cloud.is_some_and(|cloud| !cloud.disks)
    };
    let Some(site) = stack.sites.iter().find(lacks) else {
        return;
    };
    let groups = spec.servers.iter();
    for (name, _) in groups.filter(|(_, group)| group.disk.is_some()) {
        let message = format!(
            "the cloud `{}` of `{}` gives no server a disk of its own: it has what its machine has",
            site.cloud, site.name
        );
        add(
            found,
            "disk-not-given",
            root.key("servers").key(&name.0).key("disk"),
            message,
            "it is for sites on other clouds, and stays for them",
        );
    }
}

/// Only of clouds that could enforce it: the others say so in their pages.
fn open_to_all(stack: &Stack, root: Spot, known: &Known, found: &mut Vec<Found>) {
    let can = |site: &&Site| {
        let cloud = known.cloud(&site.cloud);
        cloud.is_some_and(|cloud| cloud.firewall)
    };
    let sites = stack.sites.iter().filter(can);
    for site in sites.filter(|site| site.network.is_none()) {
        let message = format!(
            "nothing enforces `open` at `{}`: whoever reaches its servers reaches every port of them",
            site.name
        );
        add(
            found,
            "open-not-enforced",
            root.key("sites").key(site.name.as_str()),
            message,
            "write `network: 10.66.20.0/24`, a range that nothing else uses",
        );
    }
}

fn unused_image(spec: &Spec, root: Spot, found: &mut Vec<Found>) {
    let used: std::collections::HashSet<&str> = spec
        .servers
        .iter()
        .map(|(_, group)| group.image.0.as_str())
        .collect();
    for (name, _) in spec.images.iter() {
        if !used.contains(name.0.as_str()) {
            let message =
                format!("no group starts from the image `{name}`, but every build makes it");
            add(
                found,
                "unused-image",
                root.key("images").key(&name.0),
                message,
                format!("remove `images.{name}`"),
            );
        }
    }
}
