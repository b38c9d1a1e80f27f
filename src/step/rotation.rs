//! Servers behind a balancer: out of rotation before they change, and back in when they answer.
//!
//! HAProxy is told through its socket (management guide, section 9.3), which neither restarts anything nor touches a
//! client's connection. What it was told ends with its process; its configuration has every server in.

use std::time::Duration;

use async_trait::async_trait;

use super::{Act, Context, Standing, balancer, program};
use crate::cloud::Server as CloudServer;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{GroupName, ServerName, SiteName};
use crate::model::stack::{CACHE_GROUP, Job, SPARE_GROUP, Server};
use crate::plan::action::{TakeOut, is_changing};
use crate::shell::{Command, Host};
use crate::wait;
use crate::world::World;

/// For the requests that a server is at work on. Longer than HAProxy's own patience with a server (`timeout server`).
const DRAIN_LIMIT: Duration = Duration::from_secs(15);
/// For HAProxy's next health check.
const BACK_LIMIT: Duration = Duration::from_secs(15);
const TELL_LIMIT: Duration = Duration::from_secs(10);

/// A server as a balancer sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Requests that it is at work on, and that wait for it.
    busy: u64,
    status: String,
}

impl Seen {
    fn is_in(&self) -> bool {
        self.status.starts_with("UP") || self.is_well()
    }

    /// `UP 1/2` is also up: its last check failed, maybe one of before the change.
    fn is_well(&self) -> bool {
        matches!(self.status.as_str(), "UP" | "no check")
    }
}

/// A server behind balancers, which the spec may have no longer.
pub(super) struct Behind<'a> {
    pub site: &'a SiteName,
    pub name: &'a ServerName,
    pub group: &'a GroupName,
}

impl<'a> Behind<'a> {
    fn of(world: &'a World, name: &'a ServerName) -> Result<Behind<'a>, Fault> {
        let Server { site, group, .. } = world.server(name)?;
        Ok(Behind { site, name, group })
    }

    /// HAProxy's backend in which the server is checked and told. In the spares', the others only follow.
    fn backend(&self) -> &'static str {
        match self.group.as_str() == SPARE_GROUP {
            true => "spared",
            false => "servers",
        }
    }

    /// The balancers that send requests to it.
    async fn balancers(&self, world: &World) -> Result<Vec<Host>, Fault> {
        let stack = &world.stack;
        let is_balancer = |server: &&Server| match self.group.as_str() {
            CACHE_GROUP => server.job == Job::Balancer,
            SPARE_GROUP => stack.is_balancer(server),
            _ => stack.is_balanced(self.group) && stack.is_balancer(server),
        };
        let hosts = world.hosts_at(self.site).await?;
        let balancers = stack.servers_at(self.site).filter(is_balancer);
        let hosts = balancers.map(|server| world.host_among(&hosts, &server.name).cloned());
        hosts.collect()
    }
}

async fn tell(world: &World, host: &Host, words: &str) -> Result<String, Trouble> {
    let hafog = program::path(world, host).nothing_changed()?;
    let command = Command::new([&hafog, "haproxy", balancer::SOCKET, words]).limit(TELL_LIMIT);
    let shell = world.shell(&host.site).nothing_changed()?;
    let ran = shell.run(host, &command).await?;
    match ran.code {
        0 => Ok(ran.stdout),
        _ => {
            let message = format!("the balancer `{}` does not answer", host.name);
            let fault = Fault::unavailable(message).because(ran.stderr.trim());
            Err(Trouble::NothingChanged(fault.hint(format!(
                "hafog up, or hafog clone {}, gives it its configuration again",
                host.site
            ))))
        }
    }
}

async fn set(world: &World, host: &Host, one: &Behind<'_>, state: &str) -> Result<(), Trouble> {
    let (backend, name) = (one.backend(), one.name);
    let words = format!("set server {backend}/{name} state {state}");
    let said = tell(world, host, &words).await?;
    match said.trim() {
        "" => Ok(()),
        said => {
            let message = format!(
                "the balancer `{}` cannot set `{name}` to {state}",
                host.name
            );
            Err(Trouble::NothingChanged(Fault::new(message).because(said)))
        }
    }
}

/// What HAProxy says of itself, if it runs and says anything.
pub(super) async fn description(world: &World, host: &Host) -> Option<String> {
    let said = tell(world, host, "show info").await.ok()?;
    let mut lines = said.lines();
    lines.find_map(|line| Some(line.strip_prefix("description: ")?.trim().to_owned()))
}

/// The servers that are out of rotation because their images are being changed. Whatever else was taken out comes in
/// again with the next file.
pub(super) async fn kept_out(world: &World, host: &Host) -> Result<Vec<ServerName>, Fault> {
    let told = tell(world, host, "show servers state").await;
    let out = forced_out(&told.map_err(|trouble| trouble.fault().clone())?);
    if out.is_empty() {
        return Ok(out);
    }
    let found = world.cloud(&host.site)?.servers().await?.into_iter();
    let is_kept = |server: &CloudServer| {
        let is_ours = world.stack.server(&server.name).is_some();
        is_ours && is_changing(&server.tags) && out.contains(&server.name)
    };
    let changing = found.filter(is_kept);
    Ok(changing.map(|server| server.name).collect())
}

pub(super) async fn keep_out(
    world: &World,
    host: &Host,
    names: &[ServerName],
) -> Result<(), Trouble> {
    for name in names {
        let one = Behind::of(world, name).partial()?;
        let set = set(world, host, &one, "drain").await;
        set.map_err(Trouble::after_a_change)?;
    }
    Ok(())
}

/// Of `show servers state`, section 9.3 of the management guide: the columns are named in its second line, and bits
/// 0x01 and 0x08 of `srv_admin_state` say that somebody has set the server to maintenance or to drain.
fn forced_out(table: &str) -> Vec<ServerName> {
    const FORCED: u32 = 0x01 | 0x08;
    let mut lines = table.lines().filter(|line| !line.is_empty());
    let columns = lines.find_map(|line| line.strip_prefix("# "));
    let columns: Vec<&str> = columns.unwrap_or_default().split(' ').collect();
    let column = |wanted: &str| columns.iter().position(|name| *name == wanted);
    let Some((name, state)) = column("srv_name").zip(column("srv_admin_state")) else {
        return Vec::new();
    };
    let out = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let state: u32 = fields.get(state)?.parse().ok()?;
        (state & FORCED != 0).then_some(ServerName::from(*fields.get(name)?))
    });
    out.collect()
}

/// `None`: the balancer does not know it.
async fn look(world: &World, host: &Host, one: &Behind<'_>) -> Result<Option<Seen>, Fault> {
    // The servers (4) of every backend, as CSV.
    let told = tell(world, host, "show stat -1 4 -1").await;
    let table = told.map_err(|trouble| trouble.fault().clone())?;
    Ok(seen(&table, one.backend(), one.name))
}

/// Of `show stat`, section 9.1 of the management guide: the columns are named in the first line. Its state is that of
/// its own backend; requests may have come through another one, too.
fn seen(table: &str, backend: &str, name: &ServerName) -> Option<Seen> {
    let mut lines = table.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |wanted: &str| columns.iter().position(|name| *name == wanted);
    let (proxy, server, queue, current, status) = (
        column("pxname")?,
        column("svname")?,
        column("qcur")?,
        column("scur")?,
        column("status")?,
    );
    let mut busy = 0;
    let mut own = None;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        if fields.get(server) != Some(&name.as_str()) {
            continue;
        }
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        busy += number(queue)? + number(current)?;
        if fields.get(proxy) == Some(&backend) {
            own = Some((*fields.get(status)?).to_owned());
        }
    }
    let status = own?;
    Some(Seen { busy, status })
}

/// Whether every balancer sends requests to the server.
pub(super) async fn is_in(world: &World, name: &ServerName) -> Result<(), String> {
    in_all(world, name, Seen::is_in).await
}

async fn in_all(
    world: &World,
    name: &ServerName,
    is_enough: fn(&Seen) -> bool,
) -> Result<(), String> {
    let words = |fault: Fault| fault.to_string();
    let one = Behind::of(world, name).map_err(words)?;
    for host in one.balancers(world).await.map_err(words)? {
        let by = &host.name;
        match look(world, &host, &one).await.map_err(words)? {
            None => return Err(format!("the balancer `{by}` does not know `{name}`")),
            Some(seen) if !is_enough(&seen) => {
                let status = seen.status;
                return Err(format!("the balancer `{by}` has {name} as {status}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Takes the server out, and waits until it has answered what it is at work on. What takes longer than the limit is cut.
pub(super) async fn take_out(context: &Context<'_>, name: &ServerName) -> Result<(), Trouble> {
    let one = Behind::of(context.world, name).nothing_changed()?;
    let hosts = one.balancers(context.world).await.nothing_changed()?;
    out_of(context, &hosts, &one).await
}

async fn out_of(context: &Context<'_>, hosts: &[Host], one: &Behind<'_>) -> Result<(), Trouble> {
    let (world, name) = (context.world, one.name);
    for host in hosts {
        program::bring(world, host).await?;
        set(world, host, one, "drain").await?;
    }
    for host in hosts {
        let what = format!("{name} has nothing left to answer");
        let idle = wait::until(world.clock.as_ref(), &what, DRAIN_LIMIT, || async {
            // Twice: a request may have been given to it at the moment of the order.
            for _ in 0..2 {
                let seen = look(world, host, one)
                    .await
                    .map_err(|fault| fault.to_string())?;
                match seen.map_or(0, |seen| seen.busy) {
                    0 => {}
                    busy => return Err(format!("{busy} requests are under way")),
                }
            }
            Ok(())
        });
        if let Err(fault) = idle.await {
            context.progress(format!("{fault}; goes on")).await;
        }
    }
    Ok(())
}

/// Puts the server in again where HAProxy runs: one that does not has forgotten who was out.
pub(super) async fn let_in(world: &World, name: &ServerName) -> Result<(), Trouble> {
    let one = Behind::of(world, name).partial()?;
    for host in one.balancers(world).await.partial()? {
        let services = world.shell(&host.site).partial()?.services(&host).await;
        let mut services = services.partial()?.into_iter();
        if services.any(|service| service.name == balancer::SERVICE && service.running) {
            let brought = program::bring(world, &host).await;
            brought.map_err(Trouble::after_a_change)?;
            let set = set(world, &host, &one, "ready").await;
            set.map_err(Trouble::after_a_change)?;
        }
    }
    Ok(())
}

/// Puts the server in again, and waits until every balancer finds it healthy.
pub(super) async fn put_in(context: &Context<'_>, name: &ServerName) -> Result<(), Trouble> {
    let world = context.world;
    let one = Behind::of(world, name).partial()?;
    for host in one.balancers(world).await.partial()? {
        let set = set(world, &host, &one, "ready").await;
        set.map_err(Trouble::after_a_change)?;
    }
    let what = format!("{name} is in rotation");
    let back = wait::until(world.clock.as_ref(), &what, BACK_LIMIT, || async {
        in_all(world, name, Seen::is_well).await
    });
    back.await.partial()
}

#[async_trait]
impl Act for TakeOut {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let one = self.behind();
        for host in one.balancers(context.world).await? {
            let seen = look(context.world, &host, &one).await?;
            if seen.is_some_and(|seen| seen.is_in() || seen.busy > 0) {
                return Ok(Standing::Ready);
            }
        }
        let text = format!("nobody sends anything to {}", self.server);
        Ok(Standing::done(text))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let (world, one) = (context.world, self.behind());
        let mut hosts = Vec::new();
        for host in one.balancers(world).await.nothing_changed()? {
            let knows = look(world, &host, &one).await.nothing_changed()?.is_some();
            hosts.extend(knows.then_some(host));
        }
        out_of(context, &hosts, &one).await
    }
}

impl TakeOut {
    fn behind(&self) -> Behind<'_> {
        Behind {
            site: &self.site,
            name: &self.server,
            group: &self.group,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What HAProxy 2.6 says, its later columns left out.
    const TABLE: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,\n\
        servers,shop-east-web-1,0,0,3,9,,120,1,2,,0,,0,0,0,0,UP,1,\n\
        servers,shop-east-web-2,1,0,0,9,,120,1,2,,0,,0,0,0,0,DRAIN,1,\n\
        spared,shop-east-web-2,0,0,2,9,,120,1,2,,0,,0,0,0,0,DRAIN (via servers/shop-east-web-2),1,\n\
        spared,shop-east-spare-1,0,0,4,9,,120,1,2,,0,,0,0,0,0,UP,1,\n\n";

    /// The same.
    const STATES: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
        3 servers 1 shop-east-web-1 127.0.0.1 2 0 1\n\
        3 servers 2 shop-east-web-2 127.0.0.2 0 8 1\n\
        3 servers 3 shop-east-web-3 127.0.0.3 0 32 1\n\n";

    #[test]
    fn a_server_is_forced_out_by_who_says_so_and_not_by_its_checks() {
        assert_eq!(forced_out(STATES), [ServerName::from("shop-east-web-2")]);
        assert_eq!(forced_out(""), [] as [ServerName; 0]);
    }

    #[test]
    fn a_servers_line_is_read_by_the_names_of_its_columns() {
        let in_servers = |table: &str, name: &ServerName| seen(table, "servers", name);
        let one = in_servers(TABLE, &ServerName::from("shop-east-web-1")).unwrap();
        assert_eq!((one.busy, one.is_in()), (3, true));
        let two_name = ServerName::from("shop-east-web-2");
        let two = in_servers(TABLE, &two_name).unwrap();
        assert_eq!((two.busy, two.is_in()), (3, false));
        let spare = seen(TABLE, "spared", &ServerName::from("shop-east-spare-1")).unwrap();
        assert_eq!((spare.busy, spare.is_in()), (4, true));
        let shaky = in_servers(&TABLE.replace("DRAIN", "UP 1/2"), &two_name).unwrap();
        assert_eq!((shaky.is_in(), shaky.is_well()), (true, false));
        assert_eq!(in_servers(TABLE, &ServerName::from("shop-east-web")), None);
        assert_eq!(in_servers("", &ServerName::from("x")), None);
    }
}
