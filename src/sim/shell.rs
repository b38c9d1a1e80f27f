//! The simulated shell: files and services are recorded, commands answer what the test says.
//!
//! A service that runs a database (`postgres-main`) is linked to the node: it starts non-writable, and does not stay
//! up on incomplete data.

use async_trait::async_trait;

use super::SimWorld;
use super::call::{Call, Part};
use super::haproxy;
use super::world::{SimServer, SimService, World};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName, SiteName};
use crate::shell::{Command, File, Host, Ran, ServiceChange, ServiceState, Shell};

pub struct SimShell {
    world: SimWorld,
    site: SiteName,
}

impl SimShell {
    pub(super) fn new(world: SimWorld, site: SiteName) -> SimShell {
        SimShell { world, site }
    }

    fn call(&self, name: &'static str, on: &Host, argument: impl std::fmt::Display) -> Call {
        debug_assert_eq!(self.site, on.site, "the shell is another site's");
        Call::new(name, format!("{} {argument}", on.name)).at(&on.site)
    }
}

impl World {
    /// Where nothing is sealed, a server is what its mark says.
    fn applied(&mut self, name: &ServerName, file: &File) {
        let Some(server) = self.servers.get(name) else {
            return;
        };
        let mark = file.path.ends_with("/hafog-recipe.json") && !self.sites[&server.site].seals;
        let mark: Option<serde_json::Value> = mark
            .then(|| serde_json::from_slice(&file.bytes).ok())
            .flatten();
        if let Some(image) = mark.as_ref().and_then(|mark| mark["image"].as_str()) {
            self.server_mut(name).image = Some(ImageName::new(image));
        }
    }
}

#[async_trait]
impl Shell for SimShell {
    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble> {
        let words = command.argv.join(" ");
        let call = self.call("shell.run", on, &words);
        if let Some(told) = haproxy::words(command).filter(|told| haproxy::is_look(told)) {
            let look = self.world.look(call, |world| {
                world.machine(on)?;
                Ok(world.haproxy(&on.name, told))
            });
            return look.await.nothing_changed();
        }
        self.world
            .change(call, |world, _| {
                let machine = world.machine(on).nothing_changed()?;
                machine.commands.push(words.clone());
                if let Some(told) = haproxy::words(command) {
                    return Ok(world.haproxy(&on.name, told));
                }
                let scripted = world
                    .command_answers
                    .iter()
                    .find(|(part, _)| words.contains(part))
                    .map(|(_, ran)| ran.clone());
                Ok(scripted.unwrap_or(Ran {
                    code: 0,
                    stdout: String::new(),
                    stderr: String::new(),
                }))
            })
            .await
    }

    async fn put(&self, on: &Host, file: &File) -> Result<(), Trouble> {
        let call = self.call("shell.put", on, &file.path);
        self.world
            .change(call, |world, _| {
                let machine = world.machine(on).nothing_changed()?;
                machine
                    .files
                    .insert(file.path.clone(), (file.bytes.clone(), file.mode));
                world.applied(&on.name, file);
                Ok(())
            })
            .await
    }

    async fn get(&self, on: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        let call = self.call("shell.get", on, path);
        self.world
            .look(call, |world| {
                let machine = world.machine(on)?;
                Ok(machine.files.get(path).map(|(bytes, _)| bytes.clone()))
            })
            .await
    }

    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble> {
        let call = self.call("shell.remove", on, path);
        self.world
            .change(call, |world, _| {
                let ours = [&on.dirs.etc, &on.dirs.data, &on.dirs.log];
                if !ours.iter().any(|dir| is_below(path, dir)) {
                    let message = format!("`{path}` is not in a folder of server `{}`", on.name);
                    return Err(Trouble::NothingChanged(Fault::new(message)));
                }
                let machine = world.machine(on).nothing_changed()?;
                machine
                    .files
                    .retain(|file, _| file != path && !is_below(file, path));
                Ok(())
            })
            .await
    }

    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault> {
        let call = self.call("shell.services", on, "");
        self.world
            .look(call, |world| {
                let machine = world.machine(on)?;
                Ok(machine
                    .services
                    .iter()
                    .map(|(name, service)| ServiceState {
                        name: name.clone(),
                        running: service.running,
                        wanted: service.wanted,
                        pid: service.pid,
                        starts: service.starts,
                        trouble: service.trouble.clone(),
                    })
                    .collect())
            })
            .await
    }

    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble> {
        let mut call = self.call("shell.service", on, format!("{name} {}", word(&change)));
        if matches!(change, ServiceChange::Restart | ServiceChange::Remove) {
            call = call.halves();
        }
        self.world
            .change(call, |world, part| {
                let pid = world.next() as u32;
                let machine = world.machine(on).nothing_changed()?;
                apply(machine, name, &change, pid, part).nothing_changed()
            })
            .await
    }
}

/// Whether `path` is `folder` or in it.
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && !path.split('/').any(|part| part == "..")
}

fn word(change: &ServiceChange) -> &'static str {
    match change {
        ServiceChange::Install(_) => "install",
        ServiceChange::Start => "start",
        ServiceChange::Stop { .. } => "stop",
        ServiceChange::Restart => "restart",
        ServiceChange::Reload => "reload",
        ServiceChange::Remove => "remove",
    }
}

fn apply(
    machine: &mut SimServer,
    name: &str,
    change: &ServiceChange,
    pid: u32,
    part: Part,
) -> Result<(), Fault> {
    let there = machine.services.get(name);
    let needed = || {
        there
            .map(|service| service.running)
            .ok_or_else(|| Fault::new(format!("there is no service `{name}`")))
    };
    match change {
        ServiceChange::Install(service) => machine.install((**service).clone()),
        ServiceChange::Start => {
            needed()?;
            machine.start(name, pid);
        }
        ServiceChange::Stop { .. } => {
            needed()?;
            machine.stop(name);
        }
        ServiceChange::Restart => {
            needed()?;
            machine.stop(name);
            if part == Part::Whole {
                machine.start(name, pid);
            }
        }
        ServiceChange::Reload => {
            if !needed()? {
                return Err(Fault::new(format!("service `{name}` is not running")));
            }
            machine.reload(name);
        }
        ServiceChange::Remove => {
            machine.stop(name);
            if part == Part::Whole {
                machine.services.remove(name);
            }
        }
    }
    Ok(())
}

impl SimServer {
    /// Writes the definition; what runs goes on running.
    pub(super) fn install(&mut self, definition: crate::shell::Service) {
        match self.services.get_mut(&definition.name) {
            Some(there) => there.definition = definition,
            None => {
                let name = definition.name.clone();
                let service = SimService {
                    definition,
                    running: false,
                    wanted: false,
                    starts: 0,
                    trouble: None,
                    image: None,
                    pid: None,
                    loaded: None,
                };
                self.services.insert(name, service);
            }
        }
    }
}
