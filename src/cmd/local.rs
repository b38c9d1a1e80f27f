//! `hafog local`: pulls plugs. For people who play with the `local` cloud, where a site can be lost on purpose.

use super::{Call, Ended, open};
use crate::cloud::Power;
use crate::error::{Fault, Kind};
use crate::exit;
use crate::model::id::{ServerName, SiteName};
use crate::model::stack::Stack;
use crate::ui::print::list;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Switch a site or a server of the local cloud on or off, abruptly; a lab helper
    Power {
        /// A site, or one server
        #[arg(value_name = "SITE|SERVER")]
        what: String,
        to: To,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum To {
    On,
    /// As if the cable were pulled
    Off,
    /// Everything stops and nothing is closed: a machine that hangs
    Freeze,
    Thaw,
}

impl To {
    fn power(self) -> (Power, &'static str) {
        match self {
            To::On => (Power::On, "on"),
            To::Off => (Power::Off, "off"),
            To::Freeze => (Power::Freeze, "frozen"),
            To::Thaw => (Power::Thaw, "thawed"),
        }
    }
}

pub async fn run(call: &Call, verb: &Verb) -> Ended {
    let Verb::Power { what, to } = verb;
    let (world, loaded) = open::world(call, &open::Without::images()).await?;
    let (site, one) = meant(&loaded.stack, what)?;
    let cloud = world.cloud(&site)?;
    let there = cloud.servers().await?.into_iter().map(|server| server.name);
    let servers: Vec<ServerName> = there
        .filter(|name| one.as_ref().is_none_or(|one| one == name))
        .collect();
    if servers.is_empty() {
        return Err(Fault::new(format!("`{what}` has no servers"))
            .hint("hafog status")
            .into());
    }
    let (power, word) = to.power();
    let all = servers.iter().map(|server| cloud.power(server, power));
    let mut faults = Vec::new();
    for (server, switched) in servers
        .iter()
        .zip(futures_util::future::join_all(all).await)
    {
        if let Err(trouble) = switched {
            faults.push(
                trouble
                    .fault()
                    .clone()
                    .while_doing(format!("cannot switch `{server}`")),
            );
        }
    }
    if !faults.is_empty() {
        return Err(faults.into());
    }
    call.ui
        .result(&servers, || format!("{word}: {}\n", list(&servers, "and")));
    Ok(exit::DONE)
}

fn meant(stack: &Stack, what: &str) -> Result<(SiteName, Option<ServerName>), Fault> {
    let server = stack.server(&what.into());
    let site = match (server, stack.site(&what.into())) {
        (Some(server), _) => stack.site(&server.site),
        (None, site) => site,
    };
    let Some(site) = site else {
        return Err(Fault::of(
            Kind::Usage,
            format!("the spec has no site and no server `{what}`"),
        ));
    };
    if site.cloud != "local" {
        let why = format!(
            "`{}` is on {}, and this is for the cloud `local`",
            site.name, site.cloud
        );
        return Err(Fault::refused(why));
    }
    Ok((site.name.clone(), server.map(|server| server.name.clone())))
}
