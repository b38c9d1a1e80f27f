//! `hafog failover` and `hafog switchover`: move the stack to its standby, forced or without loss.

use std::collections::BTreeSet;

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::error::{Fault, Kind};
use crate::model::id::{ServerName, SiteName};
use crate::model::stack::{Job as Work, Server, Stack};
use crate::plan::Intent;
use crate::plan::facts::Facts;
use crate::plan::failover::{Options, failover, takeover};
use crate::spec::did_you_mean;
use crate::ui::print::list;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to: a standby, or another database node of the primary site; a standby that is the only one may be left out
    #[arg(value_name = "SITE|NODE")]
    to: Option<String>,
    /// Lose nothing: the same as `hafog switchover`
    #[arg(long, conflicts_with = "assume_down")]
    planned: bool,
    /// Ask nothing of this site: neither its cloud nor its servers; may be repeated
    #[arg(long, value_name = "SITE")]
    assume_down: Vec<SiteName>,
    #[command(flatten)]
    change: Change,
}

#[derive(clap::Args, Debug)]
pub struct SwitchoverArgs {
    /// Where to: a standby, or another database node of the primary site; a standby that is the only one may be left out
    #[arg(value_name = "SITE|NODE")]
    to: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.to.as_deref();
    if args.planned {
        return planned(call, asked, &args.change).await;
    }
    let down: BTreeSet<SiteName> = args.assume_down.iter().cloned().collect();
    // A broken spec does not stand in the way of a run that was begun before: the road decides.
    if let Ok(loaded) = super::open::load(call) {
        for name in &down {
            site::named(&loaded.stack, name)?;
        }
    }
    let mut verb = site::typed("failover", asked);
    down.iter()
        .for_each(|site| verb.push_str(&format!(" --assume-down {site}")));
    let mut job = job(verb, asked, &args.change, false, down.clone());
    job.assume_down = down;
    drive(call, &args.change, job).await
}

pub async fn switchover(call: &Call, args: &SwitchoverArgs) -> Ended {
    planned(call, args.to.as_deref(), &args.change).await
}

async fn planned(call: &Call, asked: Option<&str>, change: &Change) -> Ended {
    let verb = site::typed("switchover", asked);
    drive(
        call,
        change,
        job(verb, asked, change, true, BTreeSet::new()),
    )
    .await
}

fn job(
    verb: String,
    asked: Option<&str>,
    change: &Change,
    planned: bool,
    down: BTreeSet<SiteName>,
) -> Job {
    let accept = change.accept.clone();
    let to = asked.map(str::to_owned);
    let planner = move |stack: &Stack, facts: &Facts| {
        let primary = facts.primary(&stack.primary);
        let options = Options {
            planned,
            assume_down: down.contains(primary),
            accept: accept.clone(),
            rollback: false,
        };
        Ok(match target(stack, facts, to.as_deref())? {
            Target::Site(to) => failover(stack, facts, &to, &options),
            Target::Node(_) if options.assume_down => {
                let why =
                    format!("a node of {primary} cannot take over while {primary} is assumed down");
                return Err(Fault::of(Kind::Usage, why).hint("name a standby"));
            }
            Target::Node(node) => takeover(stack, facts, node, &options)
                .ok_or_else(|| Fault::new(format!("`{}` is no database node", node.name)))?,
        })
    };
    let mut job = Job::new(verb, Box::new(planner));
    job.settles = !planned;
    let asked = asked.map(str::to_owned);
    job.same = Box::new(move |intent| match intent {
        Intent::Failover {
            to, planned: was, ..
        } => *was == planned && asked.as_ref().is_none_or(|asked| asked == to.as_str()),
        Intent::Takeover {
            to, planned: was, ..
        } => *was == planned && asked.as_ref().is_some_and(|asked| asked == to.as_str()),
        _ => false,
    });
    job
}

/// What is moved: everything to another site, or one database to another node of its site.
enum Target<'a> {
    Site(SiteName),
    Node(&'a Server),
}

/// The named site or node, or the only standby. A stack without one is for the planner to refuse, with its hints.
fn target<'a>(stack: &'a Stack, facts: &Facts, asked: Option<&str>) -> Result<Target<'a>, Fault> {
    let to = match asked {
        None => only_standby(stack, facts)?,
        Some(name) => match stack.server(&ServerName::new(name)) {
            Some(node) if stack.site(&SiteName::new(name)).is_none() => {
                return passive(stack, facts, node).map(Target::Node);
            }
            _ => named(stack, facts, name)?,
        },
    };
    let primary = facts.primary(&stack.primary);
    if to != *primary {
        return Ok(Target::Site(to));
    }
    let fault = Fault::refused(format!("`{to}` is the primary site already"));
    Err(match passives(stack, facts).first() {
        Some(node) => fault.hint(format!(
            "`hafog switchover {node}` moves the database to another node of {to}"
        )),
        None => fault.hint("hafog status"),
    })
}

fn only_standby(stack: &Stack, facts: &Facts) -> Result<SiteName, Fault> {
    let standbys = site::standbys(stack, facts);
    let to = site::only(stack, None, &standbys, "standby");
    to.map_err(|fault| match passives(stack, facts).first() {
        Some(node) if standbys.is_empty() => {
            let here = facts.primary(&stack.primary);
            fault.hint(format!("`hafog failover {node}` stays at {here}"))
        }
        _ => fault,
    })
}

fn named(stack: &Stack, facts: &Facts, name: &str) -> Result<SiteName, Fault> {
    if let Some(site) = stack.site(&SiteName::new(name)) {
        return Ok(site.name.clone());
    }
    let what = format!("the spec has no site and no database node `{name}`");
    let sites = stack.sites.iter().map(|site| site.name.as_str());
    let nodes = passives(stack, facts);
    let names = sites.chain(nodes.iter().map(|node| node.as_str()));
    Err(
        Fault::of(Kind::Usage, what).hint(match did_you_mean(name, names.clone()) {
            Some(hint) => hint,
            None => format!("it may be {}", list(&names.collect::<Vec<_>>(), "or")),
        }),
    )
}

/// Who could take over at the primary site.
fn passives<'a>(stack: &'a Stack, facts: &Facts) -> Vec<&'a ServerName> {
    let site = facts.primary(&stack.primary);
    let servers = stack.servers.iter().filter(|server| server.site == *site);
    let is_passive = |server: &&Server| passive(stack, facts, server).is_ok();
    servers
        .filter(is_passive)
        .map(|server| &server.name)
        .collect()
}

/// The node, if it may take over where the users are.
fn passive<'a>(stack: &Stack, facts: &Facts, node: &'a Server) -> Result<&'a Server, Fault> {
    let primary = facts.primary(&stack.primary);
    let (name, site) = (&node.name, &node.site);
    let Work::Database(database) = &node.job else {
        let why = format!("`{name}` is no database node: there is nothing that it could take over");
        return Err(Fault::of(Kind::Usage, why).hint("hafog replicate status"));
    };
    let Some(database) = stack.database(database) else {
        return Err(Fault::new(format!("there is no database `{database}`")));
    };
    if !stack.nodes_at(site, database).any(|one| one.name == *name) {
        let (database, more) = (&database.name, database.replicas + 1);
        let why = format!("`{name}` has no copy of `{database}`");
        let hint = format!("`replicas: {more}` at `databases.{database}` gives it one");
        return Err(Fault::refused(why).hint(hint));
    }
    if facts.writer_node(&database.name) == Some(name) {
        let why = format!("`{name}` is the primary of `{}` already", database.name);
        return Err(Fault::refused(why).hint("hafog status"));
    }
    if site != primary {
        let why = format!("`{name}` is at {site}, and the users are at {primary}");
        let hint = format!("`hafog switchover {site}` moves everything there");
        return Err(Fault::refused(why).hint(hint));
    }
    Ok(node)
}
