//! Servers behind a balancer: out of rotation before they change, and back in when they answer.
//!
//! HAProxy is told through its socket (management guide, section 9.3), which neither restarts anything nor touches a
//! client's connection. What it was told ends with its process; its configuration has every server in.

use std::time::Duration;

use super::{Context, balancer, program};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::ServerName;
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

/// The balancers that send requests to a server.
async fn balancers(world: &World, name: &ServerName) -> Result<Vec<Host>, Fault> {
    let server = world.server(name)?;
    let behind = world.stack.balancer.as_ref();
    if behind.is_none_or(|balancer| balancer.to != server.group) {
        return Ok(Vec::new());
    }
    let hosts = world.hosts_at(&server.site).await?;
    let balancers = world.stack.balancers_at(&server.site);
    let hosts = balancers.map(|server| world.host_among(&hosts, &server.name).cloned());
    hosts.collect()
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

async fn set(world: &World, host: &Host, name: &ServerName, state: &str) -> Result<(), Trouble> {
    let said = tell(
        world,
        host,
        &format!("set server servers/{name} state {state}"),
    )
    .await?;
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

async fn look(world: &World, host: &Host, name: &ServerName) -> Result<Seen, Fault> {
    // The servers (4) of one backend, as CSV.
    let told = tell(world, host, "show stat servers 4 -1").await;
    let table = told.map_err(|trouble| trouble.fault().clone())?;
    seen(&table, name).ok_or_else(|| {
        Fault::new(format!(
            "the balancer `{}` does not know `{name}`",
            host.name
        ))
    })
}

/// One line of `show stat`, section 9.1 of the management guide: the columns are named in the first line.
fn seen(table: &str, name: &ServerName) -> Option<Seen> {
    let mut lines = table.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |wanted: &str| columns.iter().position(|name| *name == wanted);
    let (server, queue, current, status) = (
        column("svname")?,
        column("qcur")?,
        column("scur")?,
        column("status")?,
    );
    let fields = lines.find_map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields.get(server) == Some(&name.as_str())).then_some(fields)
    })?;
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Seen {
        busy: number(queue)? + number(current)?,
        status: (*fields.get(status)?).to_owned(),
    })
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
    for host in balancers(world, name).await.map_err(words)? {
        let seen = look(world, &host, name).await.map_err(words)?;
        if !is_enough(&seen) {
            let status = seen.status;
            return Err(format!(
                "the balancer `{}` has {name} as {status}",
                host.name
            ));
        }
    }
    Ok(())
}

/// Takes the server out, and waits until it has answered what it is at work on. What takes longer than the limit is cut.
pub(super) async fn take_out(context: &Context<'_>, name: &ServerName) -> Result<(), Trouble> {
    let world = context.world;
    let hosts = balancers(world, name).await.nothing_changed()?;
    for host in &hosts {
        program::bring(world, host).await?;
        set(world, host, name, "drain").await?;
    }
    for host in &hosts {
        let what = format!("{name} has nothing left to answer");
        let idle = wait::until(world.clock.as_ref(), &what, DRAIN_LIMIT, || async {
            // Twice: a request may have been given to it at the moment of the order.
            for _ in 0..2 {
                let seen = look(world, host, name).await;
                match seen.map_err(|fault| fault.to_string())?.busy {
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
    for host in balancers(world, name).await.partial()? {
        let services = world.shell(&host.site).partial()?.services(&host).await;
        let mut services = services.partial()?.into_iter();
        if services.any(|service| service.name == balancer::SERVICE && service.running) {
            let brought = program::bring(world, &host).await;
            brought.map_err(Trouble::after_a_change)?;
            let set = set(world, &host, name, "ready").await;
            set.map_err(Trouble::after_a_change)?;
        }
    }
    Ok(())
}

/// Puts the server in again, and waits until every balancer finds it healthy.
pub(super) async fn put_in(context: &Context<'_>, name: &ServerName) -> Result<(), Trouble> {
    let world = context.world;
    for host in balancers(world, name).await.partial()? {
        let set = set(world, &host, name, "ready").await;
        set.map_err(Trouble::after_a_change)?;
    }
    let what = format!("{name} is in rotation");
    let back = wait::until(world.clock.as_ref(), &what, BACK_LIMIT, || async {
        in_all(world, name, Seen::is_well).await
    });
    back.await.partial()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What HAProxy 2.6 says, its later columns left out.
    const TABLE: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,\n\
        servers,shop-east-web-1,0,0,3,9,,120,1,2,,0,,0,0,0,0,UP,1,\n\
        servers,shop-east-web-2,1,0,0,9,,120,1,2,,0,,0,0,0,0,DRAIN,1,\n\n";

    #[test]
    fn a_servers_line_is_read_by_the_names_of_its_columns() {
        let one = seen(TABLE, &ServerName::from("shop-east-web-1")).unwrap();
        assert_eq!((one.busy, one.is_in()), (3, true));
        let two_name = ServerName::from("shop-east-web-2");
        let two = seen(TABLE, &two_name).unwrap();
        assert_eq!((two.busy, two.is_in()), (1, false));
        let shaky = seen(&TABLE.replace("DRAIN", "UP 1/2"), &two_name).unwrap();
        assert_eq!((shaky.is_in(), shaky.is_well()), (true, false));
        assert_eq!(seen(TABLE, &ServerName::from("shop-east-web")), None);
        assert_eq!(seen("", &ServerName::from("x")), None);
    }
}
