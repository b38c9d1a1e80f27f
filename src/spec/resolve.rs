//! Spec → Stack: every default filled, every reference followed.
//!
//! The tree that comes with the spec fits the rules (see `check.rs`), so texts parse. What is left are the mistakes
//! that need more than one place to see: words that refer to nothing, numbers that do not go together.

mod hosts;
mod names;
mod servers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use crate::model::cron::{CRON, CronJob};
use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::{self, Bytes};

use super::format::url_host;
use super::nearest::{did_you_mean, one_of};
use super::source::Mistakes;
use super::spot::Spot;
use super::types::*;
use super::{Known, secret};

const SHORTEST_WRITE_LEASE: units::Span = units::Span::secs(2);
const LONGEST_WRITE_LEASE: units::Span = units::Span::secs(600);

/// Resolves. The stack is only of use when there are no mistakes.
pub fn resolve(spec: &Spec, root: Spot, known: &Known, mistakes: &mut Mistakes) -> Stack {
    let groups = spec
        .servers
        .iter()
        .map(|(name, group)| (name.0.as_str(), group))
        .collect();
    let mut resolver = Resolver {
        spec,
        root,
        known,
        groups,
        mistakes,
    };
    let sites = resolver.sites();
    resolver.primary();
    let databases = resolver.databases();
    let files = resolver.files();
    let mut recipes = resolver.recipes();
    resolver.rsync(&files, &mut recipes);
    let balancer = resolver.balancer();
    let cache = resolver.cache();
    let servers = resolver.servers(&sites, &databases);
    resolver.enough_hosts(&sites, &servers);
    let (zones, names) = resolver.names();
    Stack {
        name: StackName::new(&spec.stack.0),
        primary: SiteName::new(&spec.primary.0),
        health: resolver.health(),
        secrets: resolver.secrets(),
        stores: resolver.stores(),
        commit_window: resolver.commit_window(),
        self_fence: spec.self_fence,
        sites,
        recipes,
        servers,
        balancer,
        cache,
        databases,
        files,
        zones,
        names,
    }
}

struct Resolver<'a, 'm> {
    spec: &'a Spec,
    root: Spot<'a>,
    known: &'a Known<'a>,
    groups: HashMap<&'a str, &'a GroupSpec>,
    mistakes: &'m mut Mistakes,
}

impl<'a> Resolver<'a, '_> {
    fn complain(&mut self, spot: Spot, message: impl Into<String>) {
        self.complain_hinted(spot, message, None);
    }

    fn complain_hinted(
        &mut self,
        spot: Spot,
        message: impl Into<String>,
        hint: impl IntoIterator<Item = String>,
    ) {
        if spot.sound {
            self.mistakes.add_hinted(spot.span(), message, hint);
        }
    }

    /// A word that refers to nothing. Silent while the words themselves are in doubt.
    fn unknown(&mut self, spot: Spot, noun: &str, word: &str, among: Spot, words: &[&str]) {
        if !spot.sound || !among.sound || among.has_lost() {
            return;
        }
        if self.mistakes.is_full() {
            return self.complain(spot, String::new());
        }
        let message = match words {
            [] => format!("unknown {noun} `{word}`: there is none"),
            _ => format!(
                "unknown {noun} `{word}`, expected {}",
                one_of(words.iter().copied())
            ),
        };
        self.complain_hinted(spot, message, did_you_mean(word, words.iter().copied()));
    }

    fn primary(&mut self) {
        let sites: Vec<&str> = self
            .spec
            .sites
            .iter()
            .map(|(name, _)| name.0.as_str())
            .collect();
        let primary = self.spec.primary.0.as_str();
        if !sites.contains(&primary) {
            let (spot, among) = (self.root.key("primary"), self.root.key("sites"));
            self.unknown(spot, "site", primary, among, &sites);
        }
    }

    fn recipes(&mut self) -> BTreeMap<RecipeName, Recipe> {
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
    fn builtin(&self, word: &str) -> Option<Builtin> {
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

    /// Complains about entries of a list that say the same.
    fn no_twins<'w>(
        &mut self,
        list: Spot,
        key: &str,
        noun: &str,
        words: impl Iterator<Item = &'w str>,
    ) {
        let mut seen = HashSet::new();
        for (index, word) in words.enumerate() {
            let spot = list.nth(index);
            let at = spot.key(key);
            if at.sound && !seen.insert(word) {
                self.complain(at, format!("there is a {noun} `{word}` already"));
            }
        }
    }

    /// Ports are different, and stay different on a cloud that cannot use those below 1024.
    fn ports(&mut self, ports: &[Port], list: Spot) -> Vec<u16> {
        let mapped = self.spec.sites.iter().any(|(_, site)| {
            let cloud = self
                .known
                .clouds
                .iter()
                .find(|cloud| cloud.name == site.cloud.0);
            cloud.is_some_and(|cloud| !cloud.low_ports)
        });
        let mut seen: HashMap<u16, u16> = HashMap::new();
        for (index, Port(port)) in ports.iter().enumerate() {
            let spot = list.nth(index);
            if !spot.sound {
                continue;
            }
            let used = if mapped && *port < 1024 {
                port + 8000
            } else {
                *port
            };
            match seen.insert(used, *port) {
                Some(other) if other == *port => {
                    self.complain(spot, format!("there is a port {port} already"));
                }
                Some(other) => {
                    let message = format!(
                        "port {port} clashes with {other}: a cloud of this stack has no ports below 1024 and uses {used} for both"
                    );
                    self.complain(spot, message);
                }
                None => {}
            }
        }
        ports.iter().map(|port| port.0).collect()
    }

    /// Looks a group up; complains when there is none.
    fn group(&mut self, word: &'a str, spot: Spot) -> Option<&'a GroupSpec> {
        let found = self.groups.get(word).copied();
        if found.is_none() {
            let words: Vec<&str> = self
                .spec
                .servers
                .iter()
                .map(|(name, _)| name.0.as_str())
                .collect();
            self.unknown(spot, "group", word, self.root.key("servers"), &words);
        }
        found
    }

    fn databases(&mut self) -> Vec<Database> {
        let mut held: HashMap<&str, &str> = HashMap::new();
        let mut databases = Vec::new();
        for (name, database) in self.spec.databases.iter() {
            let spot = self.root.key("databases").key(&name.0);
            let on = database.on.0.as_str();
            if let Some(group) = self.group(on, spot.key("on")) {
                self.room_for_replicas(database, group, spot);
                self.image_fits(database, group, spot);
            }
            if let Some(other) = held.insert(on, &name.0)
                && spot.key("on").sound
            {
                let message = format!("group `{on}` holds the database `{other}` already");
                self.complain(spot.key("on"), message);
            }
            databases.push(self.database(name, database, spot));
        }
        databases
    }

    fn files(&mut self) -> Vec<Files> {
        let mut paths: Vec<(&str, &str)> = Vec::new();
        let mut all = Vec::new();
        for (name, files) in self.spec.files.iter() {
            let spot = self.root.key("files").key(&name.0);
            let on = files.on.0.as_str();
            if let Some(group) = self.group(on, spot.key("on")) {
                self.one_writer(name, files, group, spot);
            }
            if self
                .spec
                .databases
                .iter()
                .any(|(_, database)| database.on.0 == on)
            {
                let message =
                    format!("group `{on}` holds a database, which is replicated by itself");
                self.complain(spot.key("on"), message);
            }
            let path = files.path.0.trim_end_matches('/');
            let at = spot.key("path");
            let mut others = paths.iter();
            let inside =
                |one: &str, other: &str| format!("{one}/").starts_with(&format!("{other}/"));
            let other = others.find(|(other, group)| {
                *group == on && (inside(path, other) || inside(other, path))
            });
            if let Some((other, _)) = other.filter(|_| at.sound) {
                let message = format!("`{path}` and `{other}` are one inside the other");
                self.complain(at, message);
            }
            if path.is_empty() && at.sound {
                self.complain(at, "the whole server cannot be copied; name a folder");
            }
            paths.push((path, on));
            all.push(self.one_of_files(name, files, path, spot));
        }
        all
    }

    /// Files that several servers write cannot be kept in step by copying: whose would count?
    fn one_writer(&mut self, name: &Word, files: &FilesSpec, group: &GroupSpec, spot: Spot) {
        let count = self.root.key("servers").key(&files.on.0).key("count");
        if !count.sound || group.count < 2 || files.writer.is_some() {
            return;
        }
        let message = format!(
            "`{name}` is copied from one server, and group `{}` has {}",
            files.on, group.count
        );
        let hints = [
            "give what takes the files a group of its own".to_owned(),
            "or write `writer: first`, if no other server changes them".to_owned(),
        ];
        self.complain_hinted(spot.key("on"), message, hints);
    }

    fn one_of_files(&mut self, name: &Word, files: &FilesSpec, path: &str, spot: Spot) -> Files {
        let lag = spot.key("lag");
        let (lag_warn, lag_critical) = (time(&files.lag.warn), time(&files.lag.critical));
        if lag_warn > lag_critical && lag.key("warn").sound && lag.key("critical").sound {
            let message = format!("`warn` ({lag_warn}) is above `critical` ({lag_critical})");
            self.complain(lag.key("warn"), message);
        }
        let every = time(&files.every);
        if every < units::Span::secs(1) && spot.key("every").sound {
            let message = format!("files are copied every 1s at most, not {every}");
            self.complain(spot.key("every"), message);
        }
        Files {
            name: FilesName::new(&name.0),
            on: GroupName::new(&files.on.0),
            path: path.to_owned(),
            user: files.user.as_ref().map(|user| user.0.clone()),
            every,
            bandwidth: files.bandwidth.as_ref().map(amount),
            most_deleted: files.delete.into(),
            lag_warn,
            lag_critical,
        }
    }

    /// Their servers need the program that copies.
    fn rsync(&mut self, files: &[Files], recipes: &mut BTreeMap<RecipeName, Recipe>) {
        for one in files {
            let Some(group) = self.groups.get(one.on.as_str()) else {
                continue;
            };
            let recipe = recipes.get_mut(&RecipeName::new(&group.image.0));
            let Some(recipe) = recipe.filter(|recipe| recipe.builtin.is_none()) else {
                continue;
            };
            if !recipe.packages.iter().any(|package| package == "rsync") {
                recipe.packages.push("rsync".to_owned());
            }
        }
    }

    fn room_for_replicas(&mut self, database: &DatabaseSpec, group: &GroupSpec, spot: Spot) {
        let count = self.root.key("servers").key(&database.on.0).key("count");
        let needed = 1 + database.replicas;
        if count.sound && group.count < needed {
            let message = format!(
                "{} need {needed} servers, but group `{}` has {}",
                nodes(database.replicas),
                database.on,
                group.count
            );
            let hint = format!("write `count: {needed}` at `servers.{}`", database.on);
            self.complain_hinted(spot.key("replicas"), message, [hint]);
        }
    }

    fn image_fits(&mut self, database: &DatabaseSpec, group: &GroupSpec, spot: Spot) {
        let engine = spot.key("engine");
        let fits = match self.builtin(&group.image.0) {
            None => true,
            Some(Builtin::Postgres { .. }) => database.engine.0 == "postgres",
            Some(Builtin::Haproxy | Builtin::Varnish) => false,
        };
        self.no_work(&database.on.0, &group.image.0);
        if !fits && engine.sound {
            let message = format!(
                "group `{}` starts from the image `{}`, which has no {} in it",
                database.on, group.image, database.engine
            );
            self.complain(spot.key("on"), message);
        }
    }

    /// Jobs are done and commands are kept up by application servers.
    fn no_work(&mut self, group: &str, image: &str) {
        let mut images = self.spec.images.iter();
        let Some((_, of)) = images.find(|(name, _)| name.0 == image) else {
            return;
        };
        let at = self.root.key("images").key(image);
        let own = |service: &ServiceSpec| matches!(service, ServiceSpec::Command { .. });
        let holds = format!("group `{group}` holds a database, and its servers");
        let needs = "a group without one needs an image of its own";
        if !of.cron.is_empty() {
            self.complain(at.key("cron"), format!("{holds} do no jobs; {needs}"));
        }
        if let Some(index) = of.services.iter().position(own) {
            let spot = at.key("services").nth(index);
            let message = format!("{holds} run the database and what comes with packages; {needs}");
            self.complain(spot, message);
        }
    }

    fn database(&mut self, name: &Word, database: &DatabaseSpec, spot: Spot) -> Database {
        let engine = self
            .known
            .engines
            .iter()
            .find(|engine| engine.name == database.engine.0);
        self.password(database, spot.key("password"));
        let lag = spot.key("lag");
        let (lag_warn, lag_critical) = (time(&database.lag.warn), time(&database.lag.critical));
        if lag_warn > lag_critical && lag.key("warn").sound && lag.key("critical").sound {
            let message = format!("`warn` ({lag_warn}) is above `critical` ({lag_critical})");
            self.complain(lag.key("warn"), message);
        }
        let write_lease = time(&database.write_lease);
        if !(SHORTEST_WRITE_LEASE..=LONGEST_WRITE_LEASE).contains(&write_lease) {
            let message = format!(
                "a write lease lasts from {SHORTEST_WRITE_LEASE} to {LONGEST_WRITE_LEASE}, not {write_lease}"
            );
            self.complain(spot.key("write_lease"), message);
        }
        Database {
            name: DatabaseName::new(&name.0),
            engine: database.engine.0.clone(),
            on: GroupName::new(&database.on.0),
            replicas: database.replicas,
            port: match (database.port, engine) {
                (Some(Port(port)), _) => port,
                (None, Some(engine)) => engine.port,
                // The engine was complained about.
                (None, None) => 1,
            },
            user: self.role(database, spot.key("user")),
            password: database.password.as_ref().map(|name| name.0.clone()),
            lag_warn,
            lag_critical,
            write_lease,
            keep_log: amount(&database.keep_log),
        }
    }

    fn password(&mut self, database: &DatabaseSpec, spot: Spot) {
        let Some(password) = &database.password else {
            return;
        };
        let words: Vec<&str> = self
            .spec
            .secrets
            .iter()
            .map(|(name, _)| name.0.as_str())
            .collect();
        if words.contains(&password.0.as_str()) {
            return;
        }
        // Who wrote the password itself does not want to read it in a log.
        let word = if secret::is_harmless(&password.0) {
            password.0.as_str()
        } else {
            "***"
        };
        let among = self.root.key("secrets");
        self.unknown(spot, "secret", word, among, &words);
    }

    /// The application logs in as this role; it may not be one of the engine's or of ours.
    fn role(&mut self, database: &DatabaseSpec, spot: Spot) -> String {
        let user = match &database.user {
            Some(user) => user.0.clone(),
            None => self.spec.stack.0.replace('-', "_"),
        };
        let reserved = ["postgres", "hafog", "public", "root", "mysql", "admin"];
        let stack_sound = database.user.is_some() || self.root.key("stack").sound;
        if stack_sound
            && (reserved.contains(&user.as_str())
                || user.starts_with("pg_")
                || user.starts_with("hafog_"))
        {
            let message = match &database.user {
                Some(_) => format!("the role `{user}` is reserved"),
                None => format!("the role `{user}`, named after the stack, is reserved"),
            };
            let hint = "write another name at `user`".to_owned();
            self.complain_hinted(spot, message, [hint]);
        }
        user
    }

    fn balancer(&mut self) -> Option<Balancer> {
        let balancer = self.spec.balancer.as_ref()?;
        let spot = self.root.key("balancer");
        let to = spot.key("to");
        if balancer.to.0 == BALANCER_GROUP {
            self.complain(to, "the balancer cannot stand behind itself");
        } else if let Some(group) = self.group(&balancer.to.0, to) {
            self.group_listens(&balancer.to, group, to);
        }
        Some(Balancer {
            to: GroupName::new(&balancer.to.0),
            spare: self.spare().map(|_| GroupName::from(SPARE_GROUP)),
            listen: self.ports(&balancer.listen, spot.key("listen")),
            check: balancer.check.http.0.clone(),
        })
    }

    /// The group that hot spares stand in for, if there are spares.
    fn spare(&self) -> Option<&'a GroupSpec> {
        let to = self.spec.balancer.as_ref()?.to.0.as_str();
        self.groups.get(SPARE_GROUP)?;
        let group = self.groups.get(to).copied();
        group.filter(|_| to != SPARE_GROUP)
    }

    /// Spares are what they stand in for.
    fn check_spares(&mut self) {
        let mut groups = self.spec.servers.iter();
        let Some((name, spares)) = groups.find(|(name, _)| name.0 == SPARE_GROUP) else {
            return;
        };
        let spot = self.root.key("servers").key(SPARE_GROUP);
        let Some(balancer) = &self.spec.balancer else {
            if self.root.sound {
                let message = "hot spares stand in for servers behind a balancer, and there is no `balancer:`";
                let hint = "write `balancer: { to: GROUP }`, or give the group another name";
                self.complain_hinted(spot, message, [hint.to_owned()]);
            }
            return;
        };
        if self.holds_database(name, spot) {
            return;
        }
        let Some(group) = self.spare() else { return };
        if group.image != spares.image {
            let (image, to) = (&group.image.0, &balancer.to.0);
            let message = format!(
                "hot spares run what they stand in for: `{to}` runs `{image}`, not `{}`",
                spares.image.0
            );
            let hint = format!("write `image: {image}`");
            self.complain_hinted(spot.key("image"), message, [hint]);
        }
    }

    fn cache(&mut self) -> Option<Cache> {
        let cache = self.spec.cache.as_ref()?;
        let spot = self.root.key("cache");
        match &self.spec.balancer {
            None if self.root.sound => {
                let hint = format!("write `balancer: {{ to: {} }}`", cache.to.0);
                let message = "a cache stands behind a balancer, and there is no `balancer:`";
                self.complain_hinted(spot, message, [hint]);
            }
            Some(balancer) if balancer.to.0 != cache.to.0 => {
                let message = format!(
                    "the cache stands between the balancer and `{}`, not `{}`",
                    balancer.to.0, cache.to.0
                );
                let hint = format!("write `to: {}`", balancer.to.0);
                self.complain_hinted(spot.key("to"), message, [hint]);
            }
            _ => {}
        }
        Some(Cache {
            grace: time(&cache.grace),
        })
    }

    /// Traffic goes to the first open port of a group, and never to a database.
    fn group_listens(&mut self, name: &Word, group: &GroupSpec, spot: Spot) {
        if self.holds_database(name, spot) {
            return;
        }
        let open = self.root.key("servers").key(&name.0).key("open");
        if group.open.is_empty() && open.sound {
            let message = format!("group `{name}` has no open port to send traffic to");
            let hint = format!("write `open: [8080]` at `servers.{name}`");
            self.complain_hinted(spot, message, [hint]);
        }
    }

    fn holds_database(&mut self, name: &Word, spot: Spot) -> bool {
        let mut databases = self.spec.databases.iter();
        let database = databases.find(|(_, database)| database.on == *name);
        if let Some((database, _)) = database {
            let message = format!(
                "group `{name}` holds the database `{database}`, which visitors do not talk to"
            );
            self.complain(spot, message);
        }
        database.is_some()
    }

    fn health(&mut self) -> Vec<Check> {
        self.spec
            .health
            .iter()
            .map(|check| match check {
                HealthSpec::Ping { .. } => Check::Ping,
                HealthSpec::Http {
                    http,
                    status,
                    contains,
                } => Check::Http {
                    url: http.0.clone(),
                    status: *status,
                    contains: contains.as_ref().map(|text| text.0.clone()),
                },
            })
            .collect()
    }

    fn secrets(&mut self) -> BTreeMap<String, SecretRef> {
        let entries = self.spec.secrets.iter();
        entries
            .filter_map(|(name, text)| Some((name.0.clone(), secret::parse(&name.0, &text.0)?)))
            .collect()
    }

    fn stores(&mut self) -> Vec<Store> {
        let list = self.root.key("state");
        let only = self.spec.state.len() == 1;
        let mut stores: Vec<Store> = Vec::new();
        for (index, store) in self.spec.state.iter().enumerate() {
            let spot = list.nth(index);
            let (place, arbiter) = store.parts();
            let at = [spot.key("folder"), spot.key("url")]
                .into_iter()
                .find(|at| at.is_written())
                .unwrap_or(spot);
            let (folder, remote) = self.store_place(at, store, place);
            if index == 0 && remote.is_some() {
                let message = "the first store is a folder of this machine, such as `./.hafog`";
                self.complain(at, message);
            }
            let same = |other: &Store| {
                clean_path(&other.folder) == clean_path(&folder)
                    && other.remote.as_ref().map(|at| &at.host)
                        == remote.as_ref().map(|at| &at.host)
            };
            if at.sound && stores.iter().any(same) {
                self.complain(at, format!("there is a store `{place}` already"));
            }
            if arbiter && spot.sound && stores.iter().any(|other| other.arbiter) {
                self.complain(
                    spot.key("arbiter"),
                    "there is an arbiter already; exactly one store is it",
                );
            }
            stores.push(Store {
                folder,
                arbiter: arbiter || only,
                remote,
            });
        }
        let marks_sound = (0..stores.len())
            .all(|index| list.nth(index).sound && list.nth(index).key("arbiter").sound);
        if stores.len() > 1 && marks_sound && !stores.iter().any(|store| store.arbiter) {
            let hint = format!("write `{{ folder: {}, arbiter: true }}`", stores[0].folder);
            let message = "none of these stores is the arbiter; exactly one must be";
            self.complain_hinted(list, message, [hint]);
        }
        stores
    }

    /// The folder, and the machine that keeps it.
    fn store_place(
        &mut self,
        at: Spot,
        store: &StoreSpec,
        place: &str,
    ) -> (String, Option<Remote>) {
        let folder = place.strip_prefix("file:").unwrap_or(place).to_owned();
        let Some((scheme, _)) = place.split_once("://") else {
            return (folder, None);
        };
        if scheme != "ssh" {
            let message = format!(
                "state stores at `{scheme}://` are not built yet, expected a folder such as `./.hafog`, or \
                 `ssh://user@host/folder`"
            );
            self.complain(at, message);
            return (folder, None);
        }
        match remote(place, store.host_key()) {
            Some((folder, remote)) => (folder, Some(remote)),
            None => {
                let message =
                    format!("expected a URL such as `ssh://user@host:22/folder`, found `{place}`");
                self.complain(at, message);
                (folder, None)
            }
        }
    }

    fn commit_window(&mut self) -> units::Span {
        let window = time(&self.spec.commit_window);
        if window == units::Span::secs(0) {
            self.complain(
                self.root.key("commit_window"),
                "a commit window of no time leaves no way back",
            );
        }
        window
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

fn time(text: &Time) -> units::Span {
    units::Span::parse(&text.0).expect("the format was checked")
}

fn amount(text: &Amount) -> Bytes {
    Bytes::parse(&text.0).expect("the format was checked")
}

fn nodes(replicas: u32) -> String {
    match replicas {
        0 => "one node".to_owned(),
        1 => "a node and 1 replica".to_owned(),
        more => format!("a node and {more} replicas"),
    }
}

/// `ssh://user@host:port/folder`, without a password.
fn remote(text: &str, host_key: Option<&str>) -> Option<(String, Remote)> {
    let url = url::Url::parse(text).ok()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-._:@".contains(c);
    let host = url
        .host_str()?
        .trim_start_matches('[')
        .trim_end_matches(']');
    let plain = url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let plain = plain && !text.contains(char::is_control);
    let folder = text.splitn(4, '/').nth(3)?.trim_end_matches('/');
    let word = |text: &str| text.chars().all(good) && !text.starts_with('-');
    // Agents come as this user too, whoever they run as.
    let user = url.username();
    (plain && !folder.is_empty() && word(host) && word(user) && !user.is_empty()).then(|| {
        let remote = Remote {
            host: host.to_owned(),
            user: user.to_owned(),
            port: url.port(),
            host_key: host_key.map(str::to_owned),
        };
        (format!("/{folder}"), remote)
    })
}

/// Two spellings of one folder are one store.
fn clean_path(path: &str) -> std::path::PathBuf {
    std::path::Path::new(path)
        .components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect()
}

/// Whether a health check looks at a name that this stack moves.
pub fn is_published(names: &[Name], url: &str) -> bool {
    let host = url_host(url).unwrap_or_default().to_ascii_lowercase();
    names.iter().any(|name| name.host.as_str() == host)
}
