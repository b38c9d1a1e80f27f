// STUB(lead): dns::serve_host is merged later.

use std::sync::Arc;

use super::{DnsHost, DnsHostAbout, ZoneSettings};
use crate::error::Fault;
use crate::sim::{SimWorld, stacks};

pub const ABOUT: DnsHostAbout = DnsHostAbout {
    name: "serve",
    about: "hafog's own name server, `hafog dns serve`",
    settings: &["listen"],
    open,
};

fn open(settings: &ZoneSettings) -> Result<Arc<dyn DnsHost>, Fault> {
    let mut stack = stacks::small();
    stack.zones[0].name = settings.zone.clone();
    Ok(SimWorld::new(jiff::Timestamp::now(), &stack).dns(&settings.zone))
}
