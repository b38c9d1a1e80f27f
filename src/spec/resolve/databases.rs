//! Databases, and the groups that hold them.

use std::collections::HashMap;

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::Span;

use super::{Resolver, amount, time};
use crate::spec::secret;
use crate::spec::spot::Spot;
use crate::spec::types::*;

const SHORTEST_WRITE_LEASE: Span = Span::secs(2);
const LONGEST_WRITE_LEASE: Span = Span::secs(600);

impl<'a> Resolver<'a, '_> {
    pub(super) fn databases(&mut self) -> Vec<Database> {
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
    pub(super) fn no_work(&mut self, group: &str, image: &str) {
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
}

fn nodes(replicas: u32) -> String {
    match replicas {
        0 => "one node".to_owned(),
        1 => "a node and 1 replica".to_owned(),
        more => format!("a node and {more} replicas"),
    }
}
