//! Images: what the recipes say, and those that hafog brings.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::model::cron::{CRON, CronJob};
use crate::model::id::*;
use crate::model::stack::*;

use super::Resolver;
use crate::spec::spot::Spot;
use crate::spec::types::*;

impl<'a> Resolver<'a, '_> {
    pub(super) fn recipes(&mut self) -> BTreeMap<RecipeName, Recipe> {
        let mut recipes = BTreeMap::new();
        for (name, image) in self.spec.images.iter() {
            let spot = self.root.key("images").key(&name.0);
            if self.builtin(&name.0).is_some() {
                let message =
                    format!("`{name}` is an image that hafog brings; choose another name");
                self.complain(spot, message);
            }
            let name = RecipeName::new(&name.0);
            recipes.insert(name.clone(), self.recipe(name, image, spot));
        }
        for (name, group) in self.spec.servers.iter() {
            let word = group.image.0.as_str();
            let recipe = RecipeName::new(word);
            if recipes.contains_key(&recipe) {
                continue;
            }
            match self.builtin(word) {
                Some(builtin) => {
                    recipes.insert(recipe.clone(), brought(recipe, builtin));
                }
                None => {
                    self.unknown_image(self.root.key("servers").key(&name.0).key("image"), word)
                }
            }
        }
        let brings = [
            ("haproxy", Builtin::Haproxy, self.spec.balancer.is_some()),
            ("varnish", Builtin::Varnish, self.spec.cache.is_some()),
        ];
        for (name, builtin, _) in brings.into_iter().filter(|(.., needed)| *needed) {
            let name = RecipeName::from(name);
            recipes
                .entry(name.clone())
                .or_insert_with(|| brought(name, builtin));
        }
        recipes
    }

    /// The versions of PostgreSQL that this build can run.
    fn versions(&self) -> Option<&'static RangeInclusive<u32>> {
        let mut engines = self.known.engines.iter();
        let engine = engines.find(|engine| engine.name == "postgres")?;
        Some(engine.versions)
    }

    /// The images that hafog brings: `haproxy`, `postgres`, `postgres-NN`.
    pub(super) fn builtin(&self, word: &str) -> Option<Builtin> {
        match word {
            "haproxy" => Some(Builtin::Haproxy),
            "postgres" => Some(Builtin::Postgres { major: None }),
            _ => {
                let major = postgres(word)?;
                let versions = self.versions()?;
                let major = Some(major).filter(|major| versions.contains(major))?;
                Some(Builtin::Postgres { major: Some(major) })
            }
        }
    }

    fn unknown_image(&mut self, spot: Spot, word: &str) {
        if let (Some(major), Some(versions)) = (postgres(word), self.versions()) {
            let (oldest, newest) = (versions.start(), versions.end());
            let message = format!("hafog runs PostgreSQL {oldest} to {newest}, and not {major}");
            return self.complain_hinted(spot, message, [format!("write `postgres-{newest}`")]);
        }
        let mut words: Vec<&str> = self
            .spec
            .images
            .iter()
            .map(|(name, _)| name.0.as_str())
            .collect();
        words.extend(["haproxy", "postgres", "postgres-15"]);
        self.unknown(spot, "image", word, self.root.key("images"), &words);
    }

    fn recipe(&mut self, name: RecipeName, image: &ImageSpec, spot: Spot) -> Recipe {
        let files = image.files.iter().map(|file| file.to().0.as_str());
        self.no_twins(spot.key("files"), "to", "file", files);
        let services: Vec<RecipeService> = image.services.iter().map(service).collect();
        let service_names = services.iter().map(|service| service.name.as_str());
        self.no_twins(spot.key("services"), "name", "service", service_names);
        let jobs = image.cron.iter().map(|job| job.name.0.as_str());
        self.no_twins(spot.key("cron"), "name", "job", jobs);
        self.no_service_is_cron(image, spot.key("services"));
        let users = image.users.iter().map(|user| user.name.0.as_str());
        self.no_twins(spot.key("users"), "name", "user", users);
        self.root_is_there(image, spot.key("users"));
        Recipe {
            name,
            base: image.base.0.clone(),
            packages: texts(&image.packages),
            users: image.users.iter().map(user).collect(),
            code: image.code.as_ref().map(code),
            files: image.files.iter().map(file).collect(),
            run: texts(&image.run),
            services,
            cron: image.cron.iter().map(job).collect(),
            sysctl: image.sysctl.iter().map(|line| line.0.clone()).collect(),
            check: image.check.as_ref().map(|line| line.0.clone()),
            builtin: None,
        }
    }

    /// What does the jobs is a service of that name.
    fn no_service_is_cron(&mut self, image: &ImageSpec, list: Spot) {
        let own = image.services.iter().position(
            |service| matches!(service, ServiceSpec::Command { name, .. } if name.0 == CRON),
        );
        if let Some(index) = own.filter(|_| !image.cron.is_empty()) {
            let spot = list.nth(index).key("name");
            let message =
                format!("the service `{CRON}` does the jobs of `cron`; choose another name");
            self.complain(spot, message);
        }
    }

    fn root_is_there(&mut self, image: &ImageSpec, list: Spot) {
        let root = image.users.iter().position(|user| user.name.0 == "root");
        if let Some(index) = root {
            let spot = list.nth(index).key("name");
            self.complain(
                spot,
                "`root` is there already, and hafog's own keys let it in",
            );
        }
    }
}

/// `postgres-NN`, whatever the number.
fn postgres(word: &str) -> Option<u32> {
    word.strip_prefix("postgres-")?.parse().ok()
}

fn brought(name: RecipeName, builtin: Builtin) -> Recipe {
    let package = match &builtin {
        Builtin::Haproxy => "haproxy".to_owned(),
        Builtin::Varnish => "varnish".to_owned(),
        Builtin::Postgres { major: None } => "postgresql".to_owned(),
        Builtin::Postgres { major: Some(major) } => format!("postgresql-{major}"),
    };
    Recipe {
        name,
        base: DEFAULT_BASE.to_owned(),
        packages: vec![package],
        code: None,
        files: Vec::new(),
        run: Vec::new(),
        services: Vec::new(),
        cron: Vec::new(),
        users: Vec::new(),
        sysctl: Vec::new(),
        check: None,
        builtin: Some(builtin),
    }
}

fn texts(texts: &[Text]) -> Vec<String> {
    texts.iter().map(|text| text.0.clone()).collect()
}

fn code(code: &CodeSpec) -> Code {
    let (from, to) = match code {
        CodeSpec::Git { git, r#ref, to } => {
            let from = CodeFrom::Git {
                url: git.0.clone(),
                r#ref: r#ref.0.clone(),
            };
            (from, to)
        }
        CodeSpec::Path { path, to } => (CodeFrom::Path(path.0.clone()), to),
    };
    Code {
        from,
        to: to.0.clone(),
    }
}

fn file(file: &FileSpec) -> RecipeFile {
    let (from, raw) = match file {
        FileSpec::Template { template, .. } => (template, false),
        FileSpec::Copy { copy, .. } => (copy, true),
    };
    RecipeFile {
        from: from.0.clone(),
        to: file.to().0.clone(),
        raw,
    }
}

fn service(service: &ServiceSpec) -> RecipeService {
    match service {
        ServiceSpec::Packaged(name) => RecipeService {
            name: name.0.clone(),
            run: None,
            user: None,
        },
        ServiceSpec::Command { name, run, user } => RecipeService {
            name: name.0.clone(),
            run: Some(run.0.clone()),
            user: user.as_ref().map(|user| user.0.clone()),
        },
    }
}

fn user(user: &UserSpec) -> RecipeUser {
    RecipeUser {
        name: user.name.0.clone(),
        groups: user.groups.iter().map(|group| group.0.clone()).collect(),
        keys: user.keys.iter().map(|key| key.0.clone()).collect(),
    }
}

fn job(job: &CronSpec) -> CronJob {
    CronJob {
        name: job.name.0.clone(),
        at: job.at.0.clone(),
        run: job.run.0.clone(),
        user: job.user.as_ref().map(|user| user.0.clone()),
    }
}
