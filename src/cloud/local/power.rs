//! Power: all processes of a server at once.

use std::time::Duration;

use super::Site;
use super::supervisor::{self, Life};
use crate::cloud::{Power, ServerState};
use crate::durable::Lock;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::ServerName;

const LIMIT: Duration = Duration::from_secs(20);

impl Site {
    /// Without the site's lock: an emergency does not wait for somebody's deletion.
    pub(super) fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        let record = self.known(name).nothing_changed()?;
        let folder = self.server_folder(name).nothing_changed()?;
        let refused =
            |why: &str| Trouble::NothingChanged(Fault::new(format!("server `{name}` {why}")));
        match (to, supervisor::life(&folder)) {
            (Power::Off, _) => self.power_off(name),
            (Power::On, _) if !record.made => Err(refused("is not made yet")),
            (Power::On | Power::Thaw, Life::Running) | (Power::Freeze, Life::Frozen) => Ok(()),
            (Power::On, Life::Frozen) => Err(refused("is frozen; thaw it or power it off first")),
            (Power::On, Life::Off) => self.power_on(name),
            (Power::Freeze, Life::Running) => {
                let frozen = supervisor::search(&folder).freeze(LIMIT);
                frozen.map_err(|left| partial("froze only a part of", name, &left))
            }
            (Power::Thaw, Life::Frozen) => {
                let thawed = supervisor::search(&folder).thaw(LIMIT);
                thawed.map_err(|left| partial("thawed only a part of", name, &left))
            }
            (Power::Freeze | Power::Thaw, Life::Off) => Err(refused("is off")),
            (Power::Isolate, _) => Err(refused("cannot be cut off: `local` has no network")),
        }
    }

    /// A boot. What a killed supervisor left running is ended first: nobody knows what it is doing.
    pub(super) fn power_on(&self, name: &ServerName) -> Result<(), Trouble> {
        let folder = self.server_folder(name).nothing_changed()?;
        // Of two boots at once, the second must not take the first one's supervisor for a leftover.
        let _lock = Lock::take(&folder.join("boot.lock"), LIMIT).nothing_changed()?;
        if supervisor::life(&folder) == Life::Running {
            return Ok(());
        }
        self.power_off(name)?;
        supervisor::start(&folder)
    }

    pub(super) fn power_off(&self, name: &ServerName) -> Result<(), Trouble> {
        let folder = self.server_folder(name).nothing_changed()?;
        let killed = supervisor::search(&folder).kill(LIMIT);
        killed.map_err(|left| partial("powered off only a part of", name, &left))
    }

    pub(super) fn state(&self, name: &ServerName, made: bool) -> Result<ServerState, Fault> {
        let folder = self.server_folder(name)?;
        Ok(match supervisor::life(&folder) {
            _ if !made => ServerState::Pending,
            Life::Running => ServerState::Running,
            Life::Frozen => ServerState::Frozen,
            Life::Off => match supervisor::search(&folder).find().len() {
                // "Off" is a proof for a fence: not a process may be left.
                0 => ServerState::Off,
                count => {
                    ServerState::Failed(format!("its supervisor is gone; processes left: {count}"))
                }
            },
        })
    }
}

fn partial(what: &str, name: &ServerName, left: &dyn std::fmt::Display) -> Trouble {
    Trouble::Partial(Fault::new(format!("{what} server `{name}`")).because(left))
}
