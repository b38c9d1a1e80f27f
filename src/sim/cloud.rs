//! The simulated cloud of one site.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::SimWorld;
use super::call::{Call, Part};
use super::world::{SimServer, SimSite, World};
use crate::cloud::{
    Cloud, Entry, Firewall, Image, ImageFile, OnceKey, Power, Server, ServerState, ServerWant,
};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName, SiteName};
use crate::shell::Shell;

/// A new server is pending, without an address, for the world's boot time. Images belong to a site.
pub struct SimCloud {
    world: SimWorld,
    site: SiteName,
}

impl SimCloud {
    pub(super) fn new(world: SimWorld, site: SiteName) -> SimCloud {
        SimCloud { world, site }
    }

    fn call(&self, name: &'static str, argument: impl ToString) -> Call {
        Call::new(name, argument).at(&self.site)
    }
}

#[async_trait]
impl Cloud for SimCloud {
    async fn ping(&self) -> Result<(), Fault> {
        let call = self.call("cloud.ping", "");
        self.world
            .look(call, |world| world.api(&self.site).map(|_| ()))
            .await
    }

    async fn servers(&self) -> Result<Vec<Server>, Fault> {
        let call = self.call("cloud.servers", "");
        self.world
            .look(call, |world| {
                world.api(&self.site)?;
                Ok(world
                    .servers
                    .iter()
                    .filter(|(_, server)| server.site == self.site)
                    .map(|(name, server)| describe(name, server))
                    .collect())
            })
            .await
    }

    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        let call = self.call("cloud.create_server", &want.name).halves();
        self.world
            .change(call, |world, part| {
                world.create_server(&self.site, want, key, part)
            })
            .await
    }

    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        let call = self.call("cloud.power", format!("{name} {to:?}"));
        self.world
            .change(call, |world, _| {
                let pid = world.next();
                world
                    .owned(&self.site, name)
                    .and_then(|server| power(name, server, to, pid))
                    .nothing_changed()
            })
            .await
    }

    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble> {
        let call = self.call("cloud.delete_server", name).halves();
        self.world
            .change(call, |world, part| {
                world.api(&self.site).nothing_changed()?;
                if let Ok(server) = world.owned(&self.site, name) {
                    server.power_off();
                    if part == Part::Whole {
                        world.servers.remove(name);
                    }
                }
                Ok(())
            })
            .await
    }

    async fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        let call = self
            .call("cloud.seal", format!("{builder} {name}"))
            .halves();
        self.world
            .change(call, |world, part| {
                world.seal(&self.site, builder, name, tags, part)
            })
            .await
    }

    async fn get_image(&self, name: &ImageName) -> Result<ImageFile, Fault> {
        let call = self.call("cloud.get_image", name);
        self.world
            .look(call, |world| {
                world.has_image(&self.site, name)?;
                let body = Vec::new().into();
                Ok(ImageFile { body, format: None })
            })
            .await
    }

    async fn put_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
        _: ImageFile,
    ) -> Result<Image, Trouble> {
        let call = self.call("cloud.put_image", name).halves();
        self.world
            .change(call, |world, part| {
                world.put_image(&self.site, name, tags, part)
            })
            .await
    }

    async fn images(&self) -> Result<Vec<Image>, Fault> {
        let call = self.call("cloud.images", "");
        self.world
            .look(call, |world| {
                Ok(world.api(&self.site)?.images.values().cloned().collect())
            })
            .await
    }

    async fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let call = self.call("cloud.tag_image", name);
        self.world
            .change(call, |world, _| {
                world.has_image(&self.site, name).nothing_changed()?;
                let images = &mut world.site_mut(&self.site).images;
                let image = images.get_mut(name).expect("it is there");
                image.tags.extend(tags.clone());
                Ok(())
            })
            .await
    }

    async fn delete_image(&self, name: &ImageName) -> Result<(), Trouble> {
        let call = self.call("cloud.delete_image", name);
        self.world
            .change(call, |world, _| {
                world.api(&self.site).nothing_changed()?;
                let user = world
                    .servers
                    .iter()
                    .find(|(_, one)| one.site == self.site && one.image.as_ref() == Some(name));
                if let Some((user, _)) = user {
                    let message = format!("image `{name}` is used by server `{user}`");
                    return Err(Trouble::NothingChanged(Fault::new(message)));
                }
                world.site_mut(&self.site).images.remove(name);
                Ok(())
            })
            .await
    }

    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let call = self.call("cloud.tag_server", name);
        self.world
            .change(call, |world, _| {
                let server = world.owned(&self.site, name).nothing_changed()?;
                server.tags.extend(tags.clone());
                Ok(())
            })
            .await
    }

    async fn change_image(&self, name: &ServerName, image: &ImageName) -> Result<(), Trouble> {
        let call = self.call("cloud.change_image", format!("{name} {image}"));
        self.world
            .change(call, |world, _| {
                world.has_image(&self.site, image).nothing_changed()?;
                let server = world.owned(&self.site, name).nothing_changed()?;
                server.image = Some(image.clone());
                Ok(())
            })
            .await
    }

    async fn has_site(&self) -> Result<bool, Fault> {
        let call = self.call("cloud.has_site", "");
        self.world
            .look(call, |world| Ok(world.api(&self.site)?.network))
            .await
    }

    async fn firewall(&self) -> Result<Option<Firewall>, Fault> {
        let call = self.call("cloud.firewall", "");
        self.world
            .look(call, |world| Ok(world.api(&self.site)?.firewall.clone()))
            .await
    }

    async fn allow(&self, firewall: &Firewall) -> Result<(), Trouble> {
        let call = self.call("cloud.allow", "");
        self.world
            .change(call, |world, _| {
                let about = world.api(&self.site).nothing_changed()?;
                if about.firewall.is_none() {
                    let message = format!("site `{}` keeps nobody out", self.site);
                    return Err(Trouble::NothingChanged(Fault::new(message)));
                }
                about.firewall = Some(firewall.clone());
                Ok(())
            })
            .await
    }

    async fn entry(&self) -> Result<Option<Entry>, Fault> {
        let call = self.call("cloud.entry", "");
        self.world
            .look(call, |world| Ok(world.api(&self.site)?.entry.clone()))
            .await
    }

    async fn lead(&self, entry: &Entry) -> Result<(), Trouble> {
        let call = self.call("cloud.lead", "");
        self.world
            .change(call, |world, _| {
                world.api(&self.site).nothing_changed()?.entry = Some(entry.clone());
                Ok(())
            })
            .await
    }

    async fn remove_site(&self) -> Result<(), Trouble> {
        let call = self.call("cloud.remove_site", "");
        self.world
            .change(call, |world, _| {
                let images = !world.api(&self.site).nothing_changed()?.images.is_empty();
                let servers = world.servers.values().any(|one| one.site == self.site);
                if servers || images {
                    let message = format!("site `{}` still has servers or images", self.site);
                    return Err(Trouble::NothingChanged(Fault::new(message)));
                }
                let about = world.site_mut(&self.site);
                about.network = false;
                about.firewall = None;
                about.entry = None;
                Ok(())
            })
            .await
    }

    fn shell(&self) -> Arc<dyn Shell> {
        self.world.shell(&self.site)
    }
}

impl World {
    /// The site, if its cloud answers the caller.
    fn api(&mut self, site: &SiteName) -> Result<&mut SimSite, Fault> {
        self.reach(Some(site))?;
        let about = self.site_mut(site);
        if about.answers {
            Ok(about)
        } else {
            Err(Fault::unavailable(format!(
                "no answer from the cloud of site `{site}` within 2 s"
            )))
        }
    }

    fn owned(&mut self, site: &SiteName, name: &ServerName) -> Result<&mut SimServer, Fault> {
        self.api(site)?;
        self.servers
            .get_mut(name)
            .filter(|server| &server.site == site)
            .ok_or_else(|| Fault::new(format!("site `{site}` has no server `{name}`")))
    }

    fn has_image(&mut self, site: &SiteName, image: &ImageName) -> Result<(), Fault> {
        if self.api(site)?.images.contains_key(image) {
            return Ok(());
        }
        Err(Fault::new(format!("site `{site}` has no image `{image}`")).hint("hafog build"))
    }

    /// A repetition with the same key completes what was begun.
    fn create_server(
        &mut self,
        site: &SiteName,
        want: &ServerWant,
        key: &OnceKey,
        part: Part,
    ) -> Result<Server, Trouble> {
        self.api(site).nothing_changed()?;
        let seals = self.site_mut(site).seals;
        let image = want.image.as_ref().filter(|_| seals);
        if let Some(image) = image {
            self.has_image(site, image).nothing_changed()?;
        }
        let ready_at = (part == Part::Whole).then(|| self.now() + self.boot_time);
        if let Some(there) = self.servers.get_mut(&want.name) {
            if there.key != key.0 || &there.site != site {
                let message = format!("site `{site}` has a server `{}` already", want.name);
                return Err(Trouble::NothingChanged(Fault::new(message)));
            }
            there.ready_at = there.ready_at.or(ready_at);
            return Ok(describe(&want.name, there));
        }
        let about = self.site_mut(site);
        about.network = true;
        if about.walled && about.firewall.is_none() {
            about.firewall = Some(Firewall::default());
        }
        let server = SimServer {
            site: site.clone(),
            id: format!("i-{}", self.next()),
            state: ServerState::Pending,
            ready_at,
            image: image.cloned(),
            tags: want.tags.clone(),
            key: key.0.clone(),
            open: want.open.clone(),
            address: self.new_address(site),
            files: BTreeMap::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            commands: Vec::new(),
            out: BTreeSet::new(),
        };
        self.servers.insert(want.name.clone(), server);
        // A cloud without boot time answers with a running server.
        self.settle(self.now());
        Ok(describe(&want.name, &self.servers[&want.name]))
    }

    fn seal(
        &mut self,
        site: &SiteName,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
        part: Part,
    ) -> Result<Image, Trouble> {
        if let Some(image) = self.api(site).nothing_changed()?.images.get(name) {
            return Ok(image.clone());
        }
        let from = self.owned(site, builder).nothing_changed()?;
        if from.image.is_some() || from.state == ServerState::Pending {
            let message = format!("server `{builder}` is no builder that has booted");
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        from.power_off();
        self.put_image(site, name, tags, part)
    }

    fn put_image(
        &mut self,
        site: &SiteName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
        part: Part,
    ) -> Result<Image, Trouble> {
        if let Some(image) = self.api(site).nothing_changed()?.images.get(name) {
            return Ok(image.clone());
        }
        let image = Image {
            name: name.clone(),
            id: format!("ami-{}", self.next()),
            bytes: 1 << 20,
            tags: tags.clone(),
        };
        if part == Part::Whole {
            let images = &mut self.site_mut(site).images;
            images.insert(name.clone(), image.clone());
        }
        Ok(image)
    }
}

fn describe(name: &ServerName, server: &SimServer) -> Server {
    let known = server.state != ServerState::Pending;
    Server {
        name: name.clone(),
        id: server.id.clone(),
        state: server.state.clone(),
        image: server.image.clone(),
        tags: server.tags.clone(),
        host: known.then(|| server.host(name)),
    }
}

fn power(name: &ServerName, server: &mut SimServer, to: Power, pid: u64) -> Result<(), Fault> {
    let refused = |why: &str| Err(Fault::new(format!("server `{name}` {why}")));
    match (to, &server.state) {
        (Power::Off, _) => server.power_off(),
        (_, ServerState::Pending) => return refused("has not booted yet"),
        (_, ServerState::Failed(why)) => return refused(&format!("has failed: {why}")),
        (Power::On, ServerState::Frozen) => return refused("is frozen"),
        (Power::On, ServerState::Off) => boot(server, pid),
        (Power::Freeze, ServerState::Running) => server.state = ServerState::Frozen,
        (Power::Thaw, ServerState::Frozen) => server.state = ServerState::Running,
        // What it was at, it goes on with.
        (Power::On, ServerState::Isolated) => server.state = ServerState::Running,
        (Power::Isolate, ServerState::Running | ServerState::Frozen) => {
            server.state = ServerState::Isolated;
        }
        (Power::Freeze | Power::Thaw, ServerState::Isolated) => return refused("is cut off"),
        (Power::Freeze | Power::Thaw | Power::Isolate, ServerState::Off) => {
            return refused("is off");
        }
        (Power::Isolate, ServerState::Isolated) => {}
        (Power::On | Power::Thaw, ServerState::Running) | (Power::Freeze, ServerState::Frozen) => {}
    }
    Ok(())
}

/// Starts the services that a boot starts. A database comes up as every node does: non-writable.
fn boot(server: &mut SimServer, pid: u64) {
    server.state = ServerState::Running;
    let names: Vec<String> = server
        .services
        .iter()
        .filter(|(_, service)| service.definition.at_boot)
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        if let Some(service) = server.services.get_mut(&name) {
            service.starts = 0;
        }
        server.start(&name, pid as u32);
    }
}
