// STUB(lead): cloud::local is merged later. Everything is refused, except that nothing is there.

use std::sync::Arc;

use super::{Can, Cloud, CloudAbout, SiteSettings};
use crate::error::Fault;
use crate::sim::{SimWorld, stacks};

pub const ABOUT: CloudAbout = CloudAbout {
    name: "local",
    about: "this machine: servers are folders and processes on loopback addresses",
    can: Can {
        seal: true,
        low_ports: false,
        power: true,
    },
    open,
};

fn open(settings: &SiteSettings) -> Result<Arc<dyn Cloud>, Fault> {
    let mut stack = stacks::small();
    stack.sites[0].name = settings.site.clone();
    let world = SimWorld::new(jiff::Timestamp::now(), &stack);
    Ok(world.cloud(&settings.site))
}
