//! Images: put a recipe into a builder, seal it, move servers to it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{Act, Context, Standing, balancer, configure};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::recipe;
use crate::journal::event::Output;
use crate::model::id::ImageName;
use crate::plan::action::*;
use crate::shell::{Command, File, ServiceChange};
use crate::wait;

const MARK: &str = "hafog-recipe.json";

impl ApplyRecipe {
    fn mark(&self) -> String {
        format!("{{\"image\":\"{}\"}}\n", self.image)
    }
}

#[async_trait]
impl Act for ApplyRecipe {
    /// The mark is written last, so it is there only when everything before it is.
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        if world
            .cloud(&self.site)?
            .images()
            .await?
            .iter()
            .any(|image| image.name == self.image)
        {
            return Ok(Standing::done(format!("{} is there already", self.image)));
        }
        let Some(host) = world
            .find(&self.site, &self.builder)
            .await?
            .and_then(|found| found.host)
        else {
            return Ok(Standing::Ready);
        };
        let mark = world
            .shell(&self.site)?
            .get(&host, &format!("{}/{MARK}", host.dirs.image))
            .await?;
        if mark.as_deref() == Some(self.mark().as_bytes()) {
            return Ok(Standing::done(format!(
                "recipe `{}` is in {}",
                self.recipe, self.builder
            )));
        }
        Ok(Standing::Ready)
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let found = world
            .find(&self.site, &self.builder)
            .await
            .nothing_changed()?;
        let host = found.and_then(|found| found.host);
        let host = host.ok_or_else(|| {
            Trouble::NothingChanged(Fault::unavailable(format!("{} is not there", self.builder)))
        })?;
        let shell = world.shell(&self.site).nothing_changed()?;
        let recipe = world.stack.recipes.get(&self.recipe);
        let recipe = recipe.ok_or_else(|| {
            Trouble::NothingChanged(Fault::new(format!("there is no recipe `{}`", self.recipe)))
        })?;
        let (owned, stack, base) = (recipe.clone(), world.stack.clone(), world.base.clone());
        let read = move || recipe::contents(&owned, &base, &stack.secrets);
        let read = tokio::task::spawn_blocking(read).await;
        let lost = |error| Fault::new("nobody read the recipe to its end").because(error);
        let contents = read.map_err(lost).nothing_changed()?.nothing_changed()?;
        if contents.image != self.image {
            return Err(Trouble::NothingChanged(
                Fault::new(format!(
                    "the files of recipe `{}` changed since the plan was made",
                    self.recipe
                ))
                .hint("run the same command again"),
            ));
        }
        for program in recipe::programs(recipe) {
            let found = shell
                .run(&host, &Command::new(["sh", "-c", &program.look]))
                .await?;
            if found.code != 0 {
                return Err(Trouble::NothingChanged(
                    Fault::new(format!("`{}` is not installed", program.name))
                        .hint(format!("apt-get install {}", program.package)),
                ));
            }
        }
        let count = contents.files.len();
        for file in contents.files {
            let file = File {
                path: format!("{}{}", host.dirs.image, file.to),
                bytes: file.bytes,
                mode: if file.executable { 0o755 } else { 0o644 },
                for_service_user: false,
            };
            shell.put(&host, &file).await?;
        }
        context
            .progress(format!("{count} files are in {}", self.builder))
            .await;
        for service in &recipe.services {
            let Some(line) = &service.run else { continue };
            let file = File {
                path: configure::launcher(&host, &service.name),
                bytes: format!("#!/bin/sh\nexec {line}\n").into_bytes(),
                mode: 0o755,
                for_service_user: false,
            };
            shell.put(&host, &file).await?;
        }
        for line in &recipe.run {
            let command = Command::new(["sh", "-euc", line])
                .env("HAFOG_IMAGE", host.dirs.image.clone())
                .limit(Duration::from_secs(900));
            let command = Command {
                dir: Some(host.dirs.image.clone()),
                ..command
            };
            context.progress(format!("running `{line}`")).await;
            let ran = shell.run(&host, &command).await?;
            if ran.code != 0 {
                let last: Vec<&str> = ran
                    .stderr
                    .lines()
                    .chain(ran.stdout.lines())
                    .rev()
                    .take(10)
                    .collect();
                let mut fault = Fault::new(format!(
                    "`{line}` of recipe `{}` ended with code {}",
                    self.recipe, ran.code
                ));
                for line in last.into_iter().rev() {
                    fault = fault.because(line);
                }
                return Err(Trouble::Partial(fault));
            }
        }
        let mark = File {
            path: format!("{}/{MARK}", host.dirs.image),
            bytes: self.mark().into_bytes(),
            mode: 0o644,
            for_service_user: false,
        };
        shell.put(&host, &mark).await
    }
}

#[async_trait]
impl Act for SealImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let images = context.world.cloud(&self.site)?.images().await?;
        match images.iter().find(|image| image.name == self.image) {
            Some(image) => Ok(Standing::done(format!(
                "{} ({} bytes)",
                image.name, image.bytes
            ))),
            None => Ok(Standing::Ready),
        }
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
            .await
    }
}

impl ChangeImage {
    /// Everything is stopped before the change, so that whatever runs after it runs the new image.
    async fn to(&self, context: &Context<'_>, image: &ImageName) -> Result<(), Trouble> {
        let world = context.world;
        let host = world.host(&self.server).await.nothing_changed()?;
        let shell = world.shell(&self.site).nothing_changed()?;
        let services = shell.services(&host).await.nothing_changed()?;
        let cloud = world.cloud(&self.site).nothing_changed()?;
        let found = world
            .find(&self.site, &self.server)
            .await
            .nothing_changed()?;
        let config = found
            .and_then(|mut found| found.tags.remove(CONFIG_TAG))
            .unwrap_or_default();
        let config = config.strip_prefix(CHANGING).unwrap_or(&config);
        let tag = |value: String| BTreeMap::from([(CONFIG_TAG.to_owned(), value)]);
        cloud
            .tag_server(&self.server, &tag(format!("{CHANGING}{config}")))
            .await?;
        for service in &services {
            let stop = ServiceChange::Stop { signal: None };
            shell.service(&host, &service.name, stop).await?;
        }
        cloud.change_image(&self.server, image).await?;
        for service in &services {
            shell
                .service(&host, &service.name, ServiceChange::Start)
                .await?;
        }
        cloud
            .tag_server(&self.server, &tag(config.to_owned()))
            .await
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
            found.image.as_ref() == Some(&self.to) && !is_changing(&found.tags)
        });
        if !changed || !self.all_run(context).await? {
            return Ok(Standing::Ready);
        }
        match balancer::answers(context.world, &self.server).await {
            Ok(()) => Ok(Standing::done(format!(
                "{} runs {} and is healthy",
                self.server, self.to
            ))),
            Err(_) => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        self.to(context, &self.to).await?;
        let Err(fault) = self.answers(context).await else {
            return Ok(());
        };
        // What does not come up goes back at once, so that the next server is never tried.
        self.to(context, &self.from).await?;
        let back = self.answers(context).await;
        let back = match back {
            Ok(()) => format!("{} is back on {}", self.server, self.from),
            Err(fault) => format!(
                "{} was put back on {} and is not healthy: {fault}",
                self.server, self.from
            ),
        };
        Err(Trouble::Partial(
            fault
                .while_doing(format!("{} did not come up on {}", self.server, self.to))
                .because(back),
        ))
    }

    async fn undo(&self, context: &Context<'_>) -> Result<String, Trouble> {
        self.to(context, &self.from).await?;
        self.answers(context).await.partial()?;
        context
            .made(Output::Server {
                name: self.server.to_string(),
                id: self.from.to_string(),
            })
            .await
            .partial()?;
        Ok(format!("{} is back on {}", self.server, self.from))
    }
}
