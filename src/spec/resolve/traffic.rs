//! What stands before the application: balancer, hot spares, cache.

use crate::model::id::*;
use crate::model::stack::*;

use super::{Resolver, time};
use crate::spec::spot::Spot;
use crate::spec::types::*;

impl<'a> Resolver<'a, '_> {
    pub(super) fn balancer(&mut self) -> Option<Balancer> {
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
    pub(super) fn spare(&self) -> Option<&'a GroupSpec> {
        let to = self.spec.balancer.as_ref()?.to.0.as_str();
        self.groups.get(SPARE_GROUP)?;
        let group = self.groups.get(to).copied();
        group.filter(|_| to != SPARE_GROUP)
    }

    /// Spares are what they stand in for.
    pub(super) fn check_spares(&mut self) {
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

    pub(super) fn cache(&mut self) -> Option<Cache> {
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
    pub(super) fn group_listens(&mut self, name: &Word, group: &GroupSpec, spot: Spot) {
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
}
