//! Recipes: put into a builder that becomes an image, or, where a cloud has no images, into a server itself.

use std::time::Duration;

use async_trait::async_trait;

use super::configure::{self, Listed};
use super::packages::{self, Builder, SBOM};
use super::release::{self, Release};
use super::{Act, Context, Standing, system, trial};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::lock::Lock;
use crate::image::recipe::{self, Contents};
use crate::image::shelf::Shelf;
use crate::model::id::{ImageName, ServerName, SiteName};
use crate::model::stack::Recipe;
use crate::plan::action::ApplyRecipe;
use crate::shell::{Command, File, Host, Shell};
use crate::world::World;

/// Below the image's folder. Written last, so it is there only when everything before it is.
const MARK: &str = "hafog-recipe.json";
const RUN_LIMIT: Duration = Duration::from_secs(900);

fn mark_path(host: &Host) -> String {
    format!("{}/{MARK}", host.dirs.image)
}

fn mark_of(image: &ImageName) -> String {
    format!("{{\"image\":\"{image}\"}}\n")
}

async fn host_of(world: &World, site: &SiteName, server: &ServerName) -> Result<Host, Trouble> {
    let found = world.find(site, server).await.nothing_changed()?;
    let host = found.and_then(|found| found.host);
    host.ok_or_else(|| {
        Trouble::NothingChanged(Fault::unavailable(format!("{server} is not there")))
    })
}

#[async_trait]
impl Act for ApplyRecipe {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let images = world.cloud(&self.site)?.images().await?;
        if images.iter().any(|image| image.name == self.image) {
            return Ok(Standing::done(format!("{} is there already", self.image)));
        }
        let found = world.find(&self.site, &self.builder).await?;
        let Some(host) = found.and_then(|found| found.host) else {
            return Ok(Standing::Ready);
        };
        let shell = world.shell(&self.site)?;
        let mark = shell.get(&host, &mark_path(&host)).await?;
        if mark.as_deref() == Some(mark_of(&self.image).as_bytes()) {
            return Ok(Standing::done(format!(
                "recipe `{}` is in {}",
                self.recipe, self.builder
            )));
        }
        Ok(Standing::Ready)
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let host = host_of(context.world, &self.site, &self.builder).await?;
        let recipe = context.world.stack.recipes.get(&self.recipe);
        let recipe = recipe.ok_or_else(|| {
            Trouble::NothingChanged(Fault::new(format!("there is no recipe `{}`", self.recipe)))
        })?;
        match made_now(context.world, recipe, &self.image).await? {
            Some((contents, upgrades)) => {
                let one = One::of(context, &host, recipe, &self.image)?;
                one.apply(contents, upgrades).await
            }
            None => Err(changed_meanwhile(recipe)),
        }
    }
}

/// Makes a server that has no image what `image` is: by its recipe, or by what was kept when it was applied before.
pub(super) async fn change(
    context: &Context<'_>,
    site: &SiteName,
    server: &ServerName,
    image: &ImageName,
) -> Result<(), Trouble> {
    let world = context.world;
    let host = host_of(world, site, server).await?;
    let recipe = world.server(server).nothing_changed()?.recipe.clone();
    let recipe = &world.stack.recipes[&recipe];
    let one = One::of(context, &host, recipe, image)?;
    match made_now(world, recipe, image).await? {
        Some((contents, upgrades)) => one.apply(contents, upgrades).await,
        None => one.go_back().await,
    }
}

fn changed_meanwhile(recipe: &Recipe) -> Trouble {
    Trouble::NothingChanged(
        Fault::new(format!(
            "the files of recipe `{}` changed since the plan was made",
            recipe.name
        ))
        .hint("run the same command again"),
    )
}

/// What the recipe is made of, if it still makes this image, and how often its packages were asked for anew.
async fn made_now(
    world: &World,
    recipe: &Recipe,
    image: &ImageName,
) -> Result<Option<(Contents, u32)>, Trouble> {
    let (owned, stack, base) = (recipe.clone(), world.stack.clone(), world.base.clone());
    let read = move || {
        let contents = recipe::contents(&stack, &owned, &base, recipe::GIT_LIMIT)?;
        let lock = Lock::read(&base)?;
        Ok((contents, lock.upgrades(&stack.name, &owned.name)))
    };
    let read = tokio::task::spawn_blocking(read).await;
    let lost = |error| Fault::new("nobody read the recipe to its end").because(error);
    let (contents, upgrades) = read.map_err(lost).nothing_changed()?.nothing_changed()?;
    // The first image with versions that were asked for anew is made before they are written down.
    let mut upgrades = [upgrades, upgrades.saturating_add(1)].into_iter();
    let found = upgrades.find(|upgrades| contents.image(*upgrades) == *image);
    Ok(found.map(|upgrades| (contents, upgrades)))
}

/// One recipe on one machine.
struct One<'a> {
    context: &'a Context<'a>,
    shell: std::sync::Arc<dyn Shell>,
    host: &'a Host,
    recipe: &'a Recipe,
    image: &'a ImageName,
    shelf: Shelf,
}

impl<'a> One<'a> {
    fn of(
        context: &'a Context<'a>,
        host: &'a Host,
        recipe: &'a Recipe,
        image: &'a ImageName,
    ) -> Result<One<'a>, Trouble> {
        let world = context.world;
        Ok(One {
            context,
            shell: world.shell(&host.site).nothing_changed()?,
            host,
            recipe,
            image,
            shelf: Shelf::of(&world.home, &host.site, image),
        })
    }

    fn builder(&self, upgrades: u32) -> Builder<'_> {
        Builder {
            context: self.context,
            shell: self.shell.as_ref(),
            host: self.host,
            recipe: self.recipe,
            upgrades,
            shelf: &self.shelf,
        }
    }

    async fn apply(&self, contents: Contents, upgrades: u32) -> Result<(), Trouble> {
        let (world, host, shell) = (self.context.world, self.host, self.shell.as_ref());
        let builder = self.builder(upgrades);
        let machine = world.has_machines(&host.site);
        match machine {
            true => {
                builder.install().await?;
                builder.make_users().await?;
            }
            false => are_there(shell, host, self.recipe).await?,
        }
        shell.prepare(host).await?;
        let in_image = |path: &str| format!("{}{path}", host.dirs.image);
        let files = contents.files.into_iter().map(|file| {
            let mode = if file.executable { 0o755 } else { 0o644 };
            (in_image(&file.to), file.bytes, mode)
        });
        let mut files: Vec<(String, Vec<u8>, u32)> = files.collect();
        let count = files.len();
        for service in &self.recipe.services {
            let Some(line) = &service.run else { continue };
            let text = system::launcher(service, line, machine);
            files.push((
                configure::launcher(host, &service.name),
                text.into_bytes(),
                0o755,
            ));
        }
        if self.recipe.builtin.is_none() {
            files.push(Listed::of(self.recipe).file(host));
        }
        if !self.recipe.cron.is_empty() {
            let jobs = system::jobs(self.recipe, machine);
            let jobs = serde_json::to_vec(&jobs).expect("jobs are JSON");
            files.push((configure::jobs(host), jobs, 0o644));
        }
        let units = packages::units(self.recipe);
        if machine {
            let environment = configure::environment_files(host);
            let drop_ins = units
                .iter()
                .filter_map(|unit| packages::drop_in(unit, &environment));
            files.extend(drop_ins.map(|(path, text)| (in_image(&path), text.into_bytes(), 0o644)));
            let system = system::files(self.recipe).into_iter();
            files.extend(system.map(|(path, bytes, mode)| (in_image(&path), bytes, mode)));
        }
        let paths = files.iter().map(|(path, ..)| path.clone());
        let release = Release {
            files: paths.chain([in_image(SBOM)]).collect(),
            run: self.recipe.run.clone(),
            units,
        };
        let in_place = !world.stack.seals(&host.site);
        if in_place {
            release::begin(shell, host, self.image, &release).await?;
        }
        for (path, bytes, mode) in files {
            self.put(&path, bytes, mode).await?;
        }
        let progress = format!("{count} files are in {}", host.name);
        self.context.progress(progress).await;
        if in_place {
            release::keep(shell, host, self.image).await?;
        }
        if machine {
            builder.heed_files(&release.files).await?;
        }
        self.run(&builder, &self.recipe.run).await?;
        if machine {
            packages::enable(shell, host, &release.units).await?;
            builder.describe(self.image).await?;
        }
        if in_place {
            let before = self.before().await.partial()?;
            release::retire(shell, host, self.image).await?;
            packages::restart(shell, host, &release.units).await?;
            release::end(shell, host, self.image, &release).await?;
            release::clear(shell, host, self.image, before.as_ref()).await?;
            trial::passes(self.context, shell, host, self.recipe, &self.shelf).await?;
        }
        self.mark().await
    }

    /// Packages stay as they are: older versions of them may be nowhere any more.
    async fn go_back(&self) -> Result<(), Trouble> {
        let (host, shell) = (self.host, self.shell.as_ref());
        let Some(kept) = release::find(shell, host, self.image)
            .await
            .nothing_changed()?
        else {
            return Err(changed_meanwhile(self.recipe));
        };
        let before = self.before().await.nothing_changed()?;
        release::restore(shell, host, self.image).await?;
        let builder = self.builder(0);
        builder.heed_files(&kept.files).await?;
        self.run(&builder, &kept.run).await?;
        release::retire(shell, host, self.image).await?;
        packages::enable(shell, host, &kept.units).await?;
        packages::restart(shell, host, &kept.units).await?;
        release::clear(shell, host, self.image, before.as_ref()).await?;
        self.mark().await
    }

    async fn put(&self, path: &str, bytes: Vec<u8>, mode: u32) -> Result<(), Trouble> {
        let file = File {
            path: path.to_owned(),
            bytes,
            mode,
            for_service_user: false,
        };
        self.shell.put(self.host, &file).await
    }

    async fn run(&self, builder: &Builder<'_>, lines: &[String]) -> Result<(), Trouble> {
        for line in lines {
            let command = line_of_recipe(self.host, line).limit(RUN_LIMIT);
            self.context.progress(format!("running `{line}`")).await;
            let what = format!("`{line}` of recipe `{}`", self.recipe.name);
            builder.run(&command, &what).await?;
        }
        Ok(())
    }

    /// What was applied here before, whole.
    async fn before(&self) -> Result<Option<ImageName>, Fault> {
        let found = self
            .context
            .world
            .find(&self.host.site, &self.host.name)
            .await?;
        Ok(found.and_then(|found| found.image))
    }

    async fn mark(&self) -> Result<(), Trouble> {
        let text = mark_of(self.image);
        self.put(&mark_path(self.host), text.into_bytes(), 0o644)
            .await
    }
}

/// In the image's own folder, which is `/` on a machine.
pub(super) fn line_of_recipe(host: &Host, line: &str) -> Command {
    let folder = &host.dirs.image;
    Command {
        dir: Some(match folder.as_str() {
            "" => "/".to_owned(),
            folder => folder.to_owned(),
        }),
        ..Command::new(["sh", "-euc", line]).env("HAFOG_IMAGE", folder.clone())
    }
}

/// A cloud of folders installs nothing: the programs are this machine's.
async fn are_there(shell: &dyn Shell, host: &Host, recipe: &Recipe) -> Result<(), Trouble> {
    for program in recipe::programs(recipe) {
        let look = Command::new(["sh", "-c", &program.look]);
        if shell.run(host, &look).await?.code != 0 {
            return Err(Trouble::NothingChanged(
                Fault::new(format!("`{}` is not installed", program.name))
                    .hint(format!("apt-get install {}", program.package)),
            ));
        }
    }
    Ok(())
}
