//! An image is ready where it was seen to work: a server boots from it, passes the recipe's check, and is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::image::ended_badly;
use super::packages::SBOM;
use super::{Act, Context, Standing, apply, server};
use crate::cloud::{OnceKey, TRIED};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::recipe;
use crate::image::shelf::Shelf;
use crate::model::stack::Recipe;
use crate::plan::action::TryImage;
use crate::shell::{Command, Host, Shell};
use crate::wait;

/// For services that a boot starts.
const CHECK_LIMIT: Duration = Duration::from_secs(20);
const LINE_LIMIT: Duration = Duration::from_secs(60);

/// What is asked of a machine with the image, in this order.
pub(super) fn lines(recipe: &Recipe) -> Vec<String> {
    let programs = recipe::programs(recipe).into_iter();
    let own = recipe.check.iter().cloned();
    programs.map(|program| program.look).chain(own).collect()
}

/// Asks until all is well. What was said last is in the image's build log.
pub(super) async fn passes(
    context: &Context<'_>,
    shell: &dyn Shell,
    host: &Host,
    recipe: &Recipe,
    shelf: &Shelf,
) -> Result<(), Trouble> {
    for line in lines(recipe) {
        let command: Command = apply::line_of_recipe(host, &line).limit(LINE_LIMIT);
        let what = format!("`{line}`, the check of `{}`,", recipe.name);
        let progress = format!("asking `{line}` on {}", host.name);
        context.progress(progress).await;
        let clock = context.world.clock.as_ref();
        let passed = wait::until(clock, "it passes", CHECK_LIMIT, || async {
            let ran = shell.run(host, &command).await;
            let ran = ran.map_err(|trouble| trouble.fault().to_string())?;
            match ran.code {
                0 => Ok(()),
                code => Err(format!("code {code}")),
            }
        });
        if passed.await.is_ok() {
            continue;
        }
        let ran = shell.run(host, &command).await?;
        if ran.code == 0 {
            continue;
        }
        let said = format!(
            "==== {what} on {}\n{}{}==== code {}\n",
            host.name, ran.stdout, ran.stderr, ran.code
        );
        shelf.say(said).await.partial()?;
        let hint = format!("less {}", shelf.log().display());
        return Err(ended_badly(&ran, &what).map(|fault| fault.hint(hint)));
    }
    Ok(())
}

/// Of an image that was not made from here, but copied.
async fn keep_sbom(
    context: &Context<'_>,
    shell: &dyn Shell,
    host: &Host,
    shelf: &Shelf,
) -> Result<(), Trouble> {
    if !context.world.has_machines(&host.site) || shelf.read_sbom().partial()?.is_some() {
        return Ok(());
    }
    let path = format!("{}{SBOM}", host.dirs.image);
    match shell.get(host, &path).await.partial()? {
        Some(bytes) => shelf.put_sbom(bytes).await.partial(),
        None => Ok(()),
    }
}

#[async_trait]
impl Act for TryImage {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let images = context.world.cloud(&self.site)?.images().await?;
        match images.iter().find(|image| image.name == self.image) {
            Some(image) if image.is_tried() => {
                Ok(Standing::done(format!("{} boots, and passes", self.image)))
            }
            Some(_) => Ok(Standing::Ready),
            None => Ok(Standing::blocked(format!("{} is gone", self.image))),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let cloud = world.cloud(&self.site).nothing_changed()?;
        let none = || Fault::new(format!("there is no recipe `{}`", self.recipe));
        let recipe = world.stack.recipes.get(&self.recipe);
        let recipe = recipe.ok_or_else(none).nothing_changed()?;
        // Of a run that was cut: who knows how far it came.
        cloud.delete_server(&self.trial.name).await?;
        let key = OnceKey(format!(
            "{} {} {}",
            world.stack.name, self.trial.name, self.image
        ));
        let tried = async {
            let made = cloud.create_server(&self.trial, &key).await;
            made.map_err(Trouble::after_a_change)?;
            let limit = context.step.limit.0;
            let host = server::runs(world, &self.site, &self.trial.name, limit);
            let host = host.await.partial()?;
            let shell = world.shell(&self.site).partial()?;
            let shelf = Shelf::of(&world.home, &self.site, &self.image);
            passes(context, shell.as_ref(), &host, recipe, &shelf).await?;
            keep_sbom(context, shell.as_ref(), &host, &shelf).await
        };
        tried.await.map_err(|trouble| {
            trouble.map(|fault| {
                fault.while_doing(format!(
                    "{} was made in {} and is not used: it does not work there",
                    self.image, self.site
                ))
            })
        })?;
        cloud
            .delete_server(&self.trial.name)
            .await
            .map_err(Trouble::after_a_change)?;
        let at = world.clock.now().to_string();
        let tags = BTreeMap::from([(TRIED.to_owned(), at)]);
        cloud.tag_image(&self.image, &tags).await
    }

    /// The image stays as it is, untried, and the next build tries it again.
    async fn undo(&self, context: &Context<'_>) -> Result<String, Trouble> {
        let cloud = context.world.cloud(&self.site).nothing_changed()?;
        cloud.delete_server(&self.trial.name).await?;
        Ok(format!("{} is removed", self.trial.name))
    }
}
