//! The names that follow the primary site: their zones, TTLs and targets.

use std::collections::HashMap;

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::{self, Ttl};

use super::Resolver;
use crate::spec::nearest::one_of;
use crate::spec::spot::Spot;
use crate::spec::types::*;

impl<'a> Resolver<'a, '_> {
    pub(super) fn names(&mut self) -> (Vec<Zone>, Vec<Name>) {
        let mut zones: Vec<Zone> = Vec::new();
        let mut names = Vec::new();
        let list = self.root.key("names");
        let hosts = self.spec.names.iter().map(|name| name.host.0.as_str());
        self.no_twins(list, "host", "name", hosts);
        let mut indexes: HashMap<&str, usize> = HashMap::new();
        for (index, name) in self.spec.names.iter().enumerate() {
            let spot = list.nth(index);
            let zone = self.zone(&name.zone, spot.key("zone"));
            match indexes.get(name.zone.name.0.as_str()) {
                Some(earlier) if zones[*earlier] != zone => {
                    let message =
                        format!("the zone `{}` is described differently above", zone.name);
                    self.complain(spot.key("zone"), message);
                }
                Some(_) => {}
                None => {
                    indexes.insert(&name.zone.name.0, zones.len());
                    zones.push(zone);
                }
            }
            names.push(self.name(name, spot));
        }
        (zones, names)
    }

    fn zone(&mut self, zone: &ZoneSpec, spot: Spot) -> Zone {
        let host = self
            .known
            .dns_hosts
            .iter()
            .find(|host| host.name == zone.host.0);
        if let Some(host) = host
            && spot.key("host").sound
        {
            for setting in zone.settings.keys() {
                if !host.settings.contains(&setting.as_str()) {
                    let others = match host.settings {
                        [] => "it has none".to_owned(),
                        settings => format!("expected {}", one_of(settings.iter().copied())),
                    };
                    let message = format!(
                        "the DNS host `{}` has no setting `{setting}`: {others}",
                        host.name
                    );
                    let at = spot.key(setting);
                    if at.sound {
                        self.mistakes.add(at.key_span(), message);
                    }
                }
            }
        }
        Zone {
            name: ZoneName::new(&zone.name.0),
            host: zone.host.0.clone(),
            settings: zone.settings.clone(),
        }
    }

    fn name(&mut self, name: &'a NameSpec, spot: Spot) -> Name {
        let to = spot.key("to");
        if name.to.0 == BALANCER_GROUP {
            if self.spec.balancer.is_none() && self.root.sound {
                let hint = "write `balancer: { to: GROUP }`".to_owned();
                self.complain_hinted(to, "there is no `balancer:` in this spec", [hint]);
            }
        } else if let Some(group) = self.group(&name.to.0, to) {
            self.group_listens(&name.to, group, to);
        }
        let (ttl, failover_ttl) = (ttl(&name.ttl), ttl(&name.failover_ttl));
        if failover_ttl > ttl && spot.key("ttl").sound {
            let message = format!("`failover_ttl` ({failover_ttl}) is above `ttl` ({ttl})");
            let low = spot.key("failover_ttl");
            // When only `ttl` is written, that is the one that was meant too low.
            let at = if low.is_written() {
                low
            } else {
                spot.key("ttl")
            };
            self.complain(at, message);
        }
        Name {
            host: HostName::new(&name.host.0),
            to: GroupName::new(&name.to.0),
            zone: ZoneName::new(&name.zone.name.0),
            ttl,
            failover_ttl,
            target: self.target(name, spot),
        }
    }

    /// At the apex there can be no CNAME (RFC 1034 section 3.6.2), so the name itself is the target. Elsewhere it is
    /// the same labels below `hafog-STACK`: unique for each name, and of no use to anyone else.
    fn target(&mut self, name: &NameSpec, spot: Spot) -> HostName {
        let (host, zone) = (name.host.0.as_str(), name.zone.name.0.as_str());
        let at = spot.key("host");
        let zone_sound = spot.key("zone").key("name").sound;
        let Some(labels) = labels_below(host, zone) else {
            if host != zone && zone_sound {
                self.complain(at, format!("`{host}` is not in the zone `{zone}`"));
            }
            return HostName::new(host);
        };
        let ours = format!("hafog-{}", self.spec.stack);
        if labels.split('.').next_back() == Some(ours.as_str()) && self.root.key("stack").sound {
            let message = format!("names below `{ours}.{zone}` are hafog's own");
            self.complain(at, message);
        }
        let target = format!("{labels}.{ours}.{zone}");
        if target.len() > 253 && self.root.key("stack").sound && zone_sound {
            let message = format!("the name's target `{target}` is longer than 253 characters");
            self.complain(at, message);
        }
        HostName::new(target)
    }
}

fn ttl(text: &TtlText) -> Ttl {
    let span = units::Span::parse(&text.0).expect("the format was checked");
    Ttl(u32::try_from(span.0.as_secs()).expect("the format was checked"))
}

/// `a.b` of `a.b.shop.test` in `shop.test`; nothing at the apex and outside.
fn labels_below<'h>(host: &'h str, zone: &str) -> Option<&'h str> {
    host.strip_suffix(zone)?
        .strip_suffix('.')
        .filter(|labels| !labels.is_empty())
}
