//! Names: zones, records and their TTLs. Only record sets that the stack owns are ever written, each compared first,
//! and every change is entered into the history from which the TTL clock is read.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Act, Context, Standing};
use crate::dns::{CACHING, RecordChange, ttl};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::journal::event::Output;
use crate::model::id::{HostName, ZoneName};
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::Published;
use crate::model::units::{self, Ttl};
use crate::plan::action::*;
use crate::wait;
use crate::world::{NAMES, World};

#[async_trait]
impl Act for EnsureZone {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let host = context.world.zone_host(&self.zone)?;
        if !host.state().await?.open {
            return Ok(Standing::Ready);
        }
        let servers = host.authorities().await?;
        let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
        Ok(Standing::done(format!(
            "{} is served at {}",
            self.zone,
            list.join(", ")
        )))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        context
            .world
            .zone_host(&self.zone)
            .nothing_changed()?
            .open_zone()
            .await
    }
}

#[async_trait]
impl Act for CloseZone {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let host = context.world.zone_host(&self.zone)?;
        match host.state().await?.closable {
            true => Ok(Standing::Ready),
            false => Ok(Standing::done(format!("{} is not served", self.zone))),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        context
            .world
            .zone_host(&self.zone)
            .nothing_changed()?
            .close_zone()
            .await
    }
}

/// The change that is still to be made for a wanted record; `None` when the host serves it.
async fn change(
    world: &World,
    wanted: &WantedRecord,
    held: &[RecordSet],
) -> Result<Option<RecordChange>, Fault> {
    let held_of = |host: &HostName, kind: RecordType| {
        let mut held = held.iter();
        held.find(|set| &set.host == host && set.kind == kind)
    };
    let to = |after: RecordSet| RecordChange {
        host: after.host.clone(),
        kind: after.kind,
        before: held_of(&after.host, after.kind).cloned(),
        after: Some(after),
    };
    let change = match wanted {
        WantedRecord::Exactly(change) => change.clone(),
        WantedRecord::Becomes(set) => to(set.clone()),
        WantedRecord::AddressesOf {
            host,
            ttl,
            site,
            group,
        } => {
            let servers: Vec<_> = world.stack.group_at(site, group).collect();
            let addresses = world.visited_at(site, &servers).await?;
            to(RecordSet {
                host: host.clone(),
                kind: RecordType::A,
                ttl: *ttl,
                values: addresses.iter().map(IpAddr::to_string).collect(),
            })
        }
    };
    let now = held_of(&change.host, change.kind);
    Ok((now != change.after.as_ref()).then_some(change))
}

async fn changes(
    world: &World,
    zone: &ZoneName,
    wanted: &[WantedRecord],
) -> Result<Vec<RecordChange>, Fault> {
    let held = world.zone_host(zone)?.records().await?;
    let mut changes = Vec::new();
    for wanted in wanted {
        changes.extend(change(world, wanted, &held).await?);
    }
    Ok(changes)
}

/// Host and kind that a wanted record is about.
fn subject(wanted: &WantedRecord) -> (&HostName, RecordType) {
    match wanted {
        WantedRecord::Exactly(change) => (&change.host, change.kind),
        WantedRecord::Becomes(set) => (&set.host, set.kind),
        WantedRecord::AddressesOf { host, .. } => (host, RecordType::A),
    }
}

/// Writes changes to a zone, with the history and the TTL leases before: whatever kills this in between, the history
/// never says that an old answer is gone while it may still be given, and no TTL is low without a note of what it was.
async fn write(
    world: &World,
    zone: &ZoneName,
    changes: &[RecordChange],
    leases: &[LeasedTtl],
) -> Result<(), Trouble> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut published = world.published().await.nothing_changed()?;
    let began = world.clock.now();
    ttl::not_later_than(&mut published, began);
    let (leased, known) = (published.ttl_leases.clone(), published.versions.clone());
    ttl::begin_changes(&mut published, changes, began, CACHING);
    note(&mut published, leases, began);
    world
        .stores
        .write_everywhere(NAMES, &published)
        .await
        .nothing_changed()?;
    let applied = world
        .zone_host(zone)
        .nothing_changed()?
        .apply(changes)
        .await;
    if let Err(Trouble::NothingChanged(fault)) = applied {
        ttl::withdraw_changes(&mut published, changes);
        // What it was expected to replace may never have been there.
        published.versions.retain(|version| known.contains(version));
        published.ttl_leases = leased;
        world
            .stores
            .write_everywhere(NAMES, &published)
            .await
            .partial()?;
        return Err(Trouble::NothingChanged(fault));
    }
    applied
}

fn note(published: &mut Published, leases: &[LeasedTtl], now: Timestamp) {
    for lease in leases.iter().filter(|lease| lease.lowered < lease.normal) {
        let until = now + lease.window.0;
        ttl::lower(
            published,
            &lease.host,
            lease.normal,
            lease.lowered,
            now,
            until,
        );
    }
}

/// Closes in the history whatever is not served any longer.
async fn confirm(
    world: &World,
    zone: &ZoneName,
    subjects: &[(&HostName, RecordType)],
    leases: impl FnOnce(&mut Published, Timestamp),
) -> Result<(), Fault> {
    let held = world.zone_host(zone)?.records().await?;
    let mut published = world.published().await?;
    let now = world.clock.now();
    let confirmed: Vec<RecordChange> = subjects
        .iter()
        .map(|(host, kind)| {
            let after = held
                .iter()
                .find(|set| &set.host == *host && set.kind == *kind)
                .cloned();
            RecordChange {
                host: (*host).clone(),
                kind: *kind,
                before: None,
                after,
            }
        })
        .collect();
    ttl::not_later_than(&mut published, now);
    ttl::confirm_changes(&mut published, &confirmed, now);
    leases(&mut published, now);
    ttl::prune(&mut published, now, CACHING);
    world.stores.write_everywhere(NAMES, &published).await
}

/// Whether the history says of a record set what is being served, and nothing else.
fn is_settled(
    published: &Published,
    host: &HostName,
    kind: RecordType,
    held: Option<&RecordSet>,
) -> bool {
    let mut open = published.open(host, kind);
    match held {
        Some(set) => open.next() == Some(set) && open.next().is_none(),
        None => open.all(|set| set.values.is_empty()),
    }
}

fn listed(sets: &[&RecordSet]) -> String {
    sets.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[async_trait]
impl Act for SetRecord {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        if !changes(world, &self.zone, &self.records).await?.is_empty() {
            return Ok(Standing::Ready);
        }
        let held = world.zone_host(&self.zone)?.records().await?;
        let published = world.published().await?;
        let mut sets = Vec::new();
        for (host, kind) in self.records.iter().map(subject) {
            let set = held
                .iter()
                .find(|set| &set.host == host && set.kind == kind);
            if !is_settled(&published, host, kind, set) {
                return Ok(Standing::Ready);
            }
            sets.extend(set);
        }
        if self.leases.iter().any(|lease| {
            lease.lowered < lease.normal && !published.ttl_leases.contains_key(&lease.host)
        }) {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done(if sets.is_empty() {
            "removed".to_owned()
        } else {
            listed(&sets)
        }))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let changes = changes(world, &self.zone, &self.records)
            .await
            .nothing_changed()?;
        write(world, &self.zone, &changes, &self.leases).await?;
        let subjects: Vec<_> = self.records.iter().map(subject).collect();
        confirm(world, &self.zone, &subjects, |published, now| {
            note(published, &self.leases, now);
        })
        .await
        .partial()
    }
}

#[async_trait]
impl Act for SeeRecord {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let host = world.zone_host(&self.zone)?;
        let published = world.published().await?;
        let authorities = host.authorities().await?;
        let kinds = [RecordType::A, RecordType::Cname];
        let mut wanted = Vec::new();
        for name in &self.hosts {
            let sets = kinds.map(|kind| published.current(name, kind));
            wanted.extend(sets.into_iter().flatten());
        }
        if wanted.is_empty() {
            return Ok(Standing::blocked(format!(
                "nothing is published in {}: there is nothing to ask for",
                self.zone
            )));
        }
        for server in &authorities {
            for want in &wanted {
                let answer = world.probe.dns(*server, &want.host, want.kind).await?;
                if !answer.sets.contains(want) {
                    return Ok(Standing::Ready);
                }
            }
        }
        if authorities.is_empty() {
            return Ok(Standing::blocked(format!(
                "nobody answers for {}",
                self.zone
            )));
        }
        Ok(Standing::done(format!(
            "{} of {} authorities answer so",
            authorities.len(),
            authorities.len()
        )))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let limit = context.step.limit.0;
        wait::until(
            context.world.clock.as_ref(),
            "every authority answers so",
            limit,
            || async {
                match self.check(context).await {
                    Ok(Standing::Done(_)) => Ok(()),
                    Ok(_) => Err("an authority still answers otherwise".to_owned()),
                    Err(fault) => Err(fault.to_string()),
                }
            },
        )
        .await
        .nothing_changed()
    }
}

impl SetTtl {
    fn set(&self, ttl: Ttl) -> RecordSet {
        RecordSet {
            ttl,
            ..self.before.clone()
        }
    }

    fn leases(&self) -> Vec<LeasedTtl> {
        let lease = self.lease.map(|window| LeasedTtl {
            host: self.host.clone(),
            normal: self.before.ttl,
            lowered: self.ttl,
            window,
        });
        lease.into_iter().collect()
    }

    /// What the zone holds of it now.
    async fn held(&self, world: &World) -> Result<Option<RecordSet>, Fault> {
        let held = world.zone_host(&self.zone)?.records().await?;
        let mut held = held.into_iter();
        Ok(held.find(|set| set.host == self.host && set.kind == self.before.kind))
    }

    /// A set that the zone has lost is put back; one that is somebody else's is refused.
    async fn change_to(
        &self,
        context: &Context<'_>,
        from: Ttl,
        to: Ttl,
        leases: &[LeasedTtl],
    ) -> Result<(), Trouble> {
        let world = context.world;
        let held = self.held(world).await.nothing_changed()?;
        if held.as_ref() == Some(&self.set(to)) {
            return Ok(());
        }
        let change = RecordChange {
            host: self.host.clone(),
            kind: self.before.kind,
            before: held.map(|_| self.set(from)),
            after: Some(self.set(to)),
        };
        write(world, &self.zone, &[change], leases).await
    }
}

#[async_trait]
impl Act for SetTtl {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let held = world.zone_host(&self.zone)?.records().await?;
        let published = world.published().await?;
        let want = self.set(self.ttl);
        let leased = published.ttl_leases.contains_key(&self.host);
        if !held.contains(&want)
            || !is_settled(&published, &self.host, self.before.kind, Some(&want))
            || leased != self.lease.is_some()
        {
            return Ok(Standing::Ready);
        }
        if self.wait
            && context.own_outputs().await.is_empty()
            && let Some(instant) =
                ttl::slower_gone_at(&published, &self.host, self.before.kind, self.ttl)
            && instant > world.clock.now()
        {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done(format!(
            "{} has TTL {}",
            self.host, self.ttl
        )))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let leases = self.leases();
        self.change_to(context, self.before.ttl, self.ttl, &leases)
            .await?;
        let subject = [(&self.host, self.before.kind)];
        confirm(world, &self.zone, &subject, |published, now| {
            match leases.is_empty() {
                true => drop(ttl::restore(published, &self.host)),
                false => note(published, &leases, now),
            }
        })
        .await
        .partial()?;
        if !self.wait {
            return Ok(());
        }
        let published = world.published().await.partial()?;
        let Some(instant) = ttl::slower_gone_at(&published, &self.host, self.before.kind, self.ttl)
        else {
            return Ok(());
        };
        // By the clock that is never stepped: the other may be an hour off before this is over.
        let wait =
            Duration::try_from(instant.duration_since(world.clock.now())).unwrap_or_default();
        let over = world.clock.elapsed().saturating_add(wait);
        while let Some(left) = over.checked_sub(world.clock.elapsed())
            && !left.is_zero()
        {
            context
                .progress(format!("the old TTL runs out in {}", units::human(left)))
                .await;
            world.clock.sleep(left.min(Duration::from_secs(1))).await;
        }
        context
            .made(Output::WaitedOut {
                ttl: self.before.ttl,
            })
            .await
            .partial()
    }

    async fn undo(&self, context: &Context<'_>) -> Result<String, Trouble> {
        let world = context.world;
        let held = self.held(world).await.nothing_changed()?;
        let ours = [self.set(self.ttl), self.set(self.before.ttl)];
        let others = held.filter(|held| !ours.contains(held));
        if others.is_none() {
            self.change_to(context, self.ttl, self.before.ttl, &[])
                .await?;
        }
        confirm(
            world,
            &self.zone,
            &[(&self.host, self.before.kind)],
            |published, _| {
                ttl::restore(published, &self.host);
            },
        )
        .await
        .partial()?;
        Ok(match others {
            None => format!("{} has TTL {} again", self.host, self.before.ttl),
            // Nothing of it is ours to take back, and the way back must have an end.
            Some(set) => format!("somebody else set `{set}`: it is left as it is"),
        })
    }
}
