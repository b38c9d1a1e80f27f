//! Images: seal a builder, move servers to what it became.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{Act, Context, Standing, apply, balancer, configure, files, rotation};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::shelf::Shelf;
use crate::model::id::{ImageName, SiteName};
use crate::model::roles::Revocation;
use crate::plan::action::*;
use crate::shell::{Host, Ran, ServiceChange};
use crate::wait;
use crate::world::{REVOKED, World};

/// With the last lines of what it said.
pub(super) fn ended_badly(ran: &Ran, what: &str) -> Trouble {
    let lines = ran.stderr.lines().chain(ran.stdout.lines());
    let fault = Fault::new(format!("{what} ended with code {}", ran.code));
    Trouble::Partial(fault.because_last(10, lines))
}

async fn is_there(
    context: &Context<'_>,
    site: &SiteName,
    image: &ImageName,
) -> Result<Standing, Fault> {
    let images = context.world.cloud(site)?.images().await?;
    match images.iter().find(|there| &there.name == image) {
        Some(image) => Ok(Standing::done(format!(
            "{} ({} bytes)",
            image.name, image.bytes
        ))),
        None => Ok(Standing::Ready),
    }
}

#[async_trait]
impl Act for SealImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        is_there(context, &self.site, &self.image).await
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let cloud = context.world.cloud(&self.site).nothing_changed()?;
        cloud
            .seal(&self.builder, &self.image, &self.tags)
            .await
            .map(drop)
    }
}

#[async_trait]
impl Act for CopyImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        is_there(context, &self.site, &self.image).await
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let from = world.cloud(&self.from).nothing_changed()?;
        let to = world.cloud(&self.site).nothing_changed()?;
        let file = from.get_image(&self.image).await.nothing_changed()?;
        to.put_image(&self.image, &self.tags, file).await?;
        let shelf = Shelf::of(&world.home, &self.site, &self.image);
        let said = shelf.say(format!("copied from {}\n", self.from)).await;
        said.partial()
    }
}

#[async_trait]
impl Act for DeleteImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let images = context.world.cloud(&self.site)?.images().await?;
        if images.iter().any(|image| image.name == self.image) {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done(format!("{} is gone", self.image)))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        context
            .world
            .cloud(&self.site)
            .nothing_changed()?
            .delete_image(&self.image)
            .await?;
        let shelf = Shelf::of(&context.world.home, &self.site, &self.image);
        shelf.clear().await.partial()
    }
}

#[async_trait]
impl Act for RevokeImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let revoked = context.world.revoked().await?;
        let stands = revoked.images.get(&self.image).map(|one| &one.why);
        if stands != self.why.as_ref() {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done(match stands {
            Some(why) => format!("{} is revoked: {why}", self.image),
            None => format!("{} is not revoked", self.image),
        }))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let mut revoked = world.revoked().await.nothing_changed()?;
        revoked.serial = revoked.serial.saturating_add(1);
        match &self.why {
            Some(why) => {
                let (why, at) = (why.clone(), world.clock.now());
                let one = Revocation { why, at };
                revoked.images.insert(self.image.clone(), one);
            }
            None => drop(revoked.images.remove(&self.image)),
        }
        let written = world.stores.write_everywhere(REVOKED, &revoked);
        written.await.unknown()
    }
}

/// The image that a server is moved to.
#[derive(Clone, Copy)]
enum Which {
    New,
    /// The one that it had.
    Old,
}

impl ChangeImage {
    /// Nobody asks it anything while it changes. Everything is stopped before the change, so that whatever runs after it
    /// runs the new image. Marked as changing until [`ChangeImage::back`].
    async fn to(&self, context: &Context<'_>, which: Which) -> Result<(), Trouble> {
        let world = context.world;
        let host = world.host(&self.server).await.nothing_changed()?;
        let (config, was_cut) = self.config(world).await.nothing_changed()?;
        self.mark(world, format!("{CHANGING}{config}")).await?;
        let changed = self.change(context, &host, which, was_cut).await;
        changed.map_err(Trouble::after_a_change)
    }

    async fn change(
        &self,
        context: &Context<'_>,
        host: &Host,
        which: Which,
        was_cut: bool,
    ) -> Result<(), Trouble> {
        let world = context.world;
        let image = match which {
            Which::New => &self.to,
            Which::Old => &self.from,
        };
        let shell = world.shell(&self.site).nothing_changed()?;
        let cloud = world.cloud(&self.site).nothing_changed()?;
        let services = match shell.services(host).await {
            // An earlier change left it off, or with a disk that lets nobody in. The image that is put under it now mends
            // that, whatever runs there meanwhile.
            Err(_) if was_cut && world.stack.seals(&self.site) => Vec::new(),
            services => services.nothing_changed()?,
        };
        rotation::take_out(context, &self.server).await?;
        for service in &services {
            let stop = ServiceChange::Stop { signal: None };
            shell.service(host, &service.name, stop).await?;
        }
        match world.stack.seals(&self.site) {
            true => cloud.change_image(&self.server, image).await?,
            false => apply::change(context, &self.site, &self.server, image).await?,
        }
        let server = world.server(&self.server).nothing_changed()?;
        // Links and keys are gone with the old image.
        files::bring(world, server, host).await?;
        match which {
            Which::New if self.configure => {
                let config = configure::put(world, server, host).await?;
                return self.mark(world, format!("{CHANGING}{config}")).await;
            }
            // Nobody knows any more with what it was configured then.
            Which::Old if self.configure => {
                configure::follow_image(world, server, host).await?;
                self.mark(world, CHANGING.to_owned()).await?;
            }
            _ => {}
        }
        for service in shell.services(host).await.partial()? {
            shell
                .service(host, &service.name, ServiceChange::Start)
                .await?;
        }
        Ok(())
    }

    /// Into rotation again. Until then it is changing, so that whoever goes on after a crash does this too.
    async fn back(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let server = context.world.server(&self.server).partial()?;
        files::known_again(context.world, server).await?;
        rotation::put_in(context, &self.server).await?;
        let (config, _) = self.config(context.world).await.partial()?;
        self.mark(context.world, config).await
    }

    /// The digest of its configuration, without the mark, and whether it was marked.
    async fn config(&self, world: &World) -> Result<(String, bool), Fault> {
        let found = world.find(&self.site, &self.server).await?;
        let config = found.and_then(|mut found| found.tags.remove(CONFIG_TAG));
        let config = config.unwrap_or_default();
        Ok(match config.strip_prefix(CHANGING) {
            Some(digest) => (digest.to_owned(), true),
            None => (config, false),
        })
    }

    async fn mark(&self, world: &World, config: String) -> Result<(), Trouble> {
        let tags = BTreeMap::from([(CONFIG_TAG.to_owned(), config)]);
        let cloud = world.cloud(&self.site).nothing_changed()?;
        cloud.tag_server(&self.server, &tags).await
    }

    async fn all_run(&self, context: &Context<'_>) -> Result<bool, Fault> {
        let world = context.world;
        let host = world.host(&self.server).await?;
        let services = world.shell(&self.site)?.services(&host).await?;
        Ok(services.iter().all(|service| service.running))
    }

    async fn answers(&self, context: &Context<'_>) -> Result<(), Fault> {
        let what = format!("{} is healthy", self.server);
        wait::until(
            context.world.clock.as_ref(),
            &what,
            Duration::from_secs(30),
            || async { balancer::answers(context.world, &self.server).await },
        )
        .await
    }
}

#[async_trait]
impl Act for ChangeImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let found = context.world.find(&self.site, &self.server).await?;
        let changed = found.is_some_and(|found| {
            let is_settled = !is_changing(&found.tags) && !awaits_deploy(&found.tags);
            found.image.as_ref() == Some(&self.to) && is_settled
        });
        if !changed || !self.all_run(context).await? {
            return Ok(Standing::Ready);
        }
        let works = match balancer::answers(context.world, &self.server).await {
            Ok(()) => rotation::is_in(context.world, &self.server).await,
            answers => answers,
        };
        match works {
            Ok(()) => Ok(Standing::done(format!(
                "{} runs {} and is healthy",
                self.server, self.to
            ))),
            Err(_) => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let came_up = match self.to(context, Which::New).await {
            Ok(()) => self.answers(context).await,
            // A service that ends at once, a recipe whose command fails.
            Err(Trouble::Partial(fault)) => Err(fault),
            Err(trouble) => return Err(trouble),
        };
        let Err(fault) = came_up else {
            return self.back(context).await;
        };
        // What does not come up goes back at once, so that the next server is never tried.
        let back = async {
            self.to(context, Which::Old).await?;
            self.answers(context).await.partial()?;
            self.back(context).await
        };
        let back = match back.await {
            Ok(()) => format!("{} is back on {}", self.server, self.from),
            Err(trouble) => format!(
                "{} is not back on {}: {}",
                self.server,
                self.from,
                trouble.fault()
            ),
        };
        Err(Trouble::Partial(
            fault
                .while_doing(format!("{} did not come up on {}", self.server, self.to))
                .because(back),
        ))
    }

    async fn undo(&self, context: &Context<'_>) -> Result<String, Trouble> {
        self.to(context, Which::Old).await?;
        self.answers(context).await.partial()?;
        self.back(context).await?;
        Ok(format!("{} is back on {}", self.server, self.from))
    }
}
