//! The requests on the control socket, answered one at a time per connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::control;
use crate::dns::RecordChange;
use crate::dns::canonical::{canonical, canonical_host, canonical_zone};
use crate::dns::serve_control::{Generation, Hello, Reply, Request, ServedZone};
use crate::error::{Fault, Trouble};
use crate::model::id::{HostName, ZoneName};
use crate::model::record::RecordSet;

use super::snapshot::Snapshot;
use super::store::Store;

/// What the control socket acts on.
pub struct Controlled {
    pub store: Store,
    pub listen: Vec<SocketAddr>,
    pub stop: Notify,
}

pub async fn accept(listener: UnixListener, controlled: Arc<Controlled>) -> Fault {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(talk(stream, controlled.clone()));
            }
            Err(error) => return Fault::new("the control socket failed").because(error),
        }
    }
}

async fn talk(mut stream: UnixStream, controlled: Arc<Controlled>) {
    if !control::is_ours(&stream) {
        return;
    }
    while let Some(request) = control::receive::<Request>(&mut stream).await {
        let stops = matches!(request, Ok(Request::Stop { .. }));
        let reply = match request {
            Ok(request) => {
                let controlled = controlled.clone();
                // Writing a generation waits for the disk.
                tokio::task::spawn_blocking(move || reply(&controlled, request))
                    .await
                    .unwrap_or_else(|error| Reply::Unknown {
                        why: error.to_string(),
                    })
            }
            Err(why) => Reply::Refused { why },
        };
        let sent = control::send(&mut stream, &reply).await;
        if stops && matches!(reply, Reply::Done { .. }) {
            controlled.stop.notify_one();
        }
        if sent.is_err() {
            return;
        }
    }
}

fn reply(controlled: &Controlled, request: Request) -> Reply {
    let store = &controlled.store;
    let changed = match request {
        Request::Hello => {
            let snapshot = store.snapshot();
            return Reply::Hello(Hello {
                pid: std::process::id(),
                listen: controlled.listen.clone(),
                generation: snapshot.generation.number,
                zones: snapshot
                    .generation
                    .zones
                    .iter()
                    .map(|zone| zone.name.clone())
                    .collect(),
            });
        }
        Request::Zones => return Reply::Zones(store.snapshot().generation.clone()),
        Request::Apply {
            zone,
            changes,
            expect_generation,
        } => store.change(|now| apply(now, &canonical_zone(&zone), &changes, expect_generation)),
        Request::OpenZone { zone } => {
            store.change(|now| Ok(open_zone(now, &canonical_zone(&zone), &controlled.listen)))
        }
        Request::CloseZone { zone } => {
            store.change(|now| Ok(close_zone(now, &canonical_zone(&zone))))
        }
        Request::Stop { only_empty } => {
            let removed = if only_empty {
                store.remove_if_empty()
            } else {
                Ok(())
            };
            removed
                .map(|()| store.snapshot().clone())
                .map_err(Trouble::NothingChanged)
        }
    };
    done(changed)
}

fn done(changed: Result<Arc<Snapshot>, Trouble>) -> Reply {
    match changed {
        Ok(snapshot) => Reply::Done {
            generation: snapshot.generation.number,
            zones_left: snapshot.generation.zones.len(),
        },
        Err(Trouble::NothingChanged(fault)) => Reply::Refused {
            why: fault.to_string(),
        },
        Err(Trouble::Unknown(fault) | Trouble::Partial(fault)) => Reply::Unknown {
            why: fault.to_string(),
        },
    }
}

fn apply(
    now: &Generation,
    name: &ZoneName,
    changes: &[RecordChange],
    expect: Option<u64>,
) -> Result<Option<Generation>, Fault> {
    if let Some(expect) = expect.filter(|expect| *expect != now.number) {
        return Err(Fault::refused(format!(
            "generation {} is served, not {expect}",
            now.number
        )));
    }
    let mut next = now.clone();
    let zone = next
        .zones
        .iter_mut()
        .find(|zone| &zone.name == name)
        .ok_or_else(|| Fault::refused(format!("zone `{name}` is not served here")))?;
    for change in changes {
        apply_one(&mut zone.sets, change)?;
    }
    zone.sets.sort();
    Ok((&next != now).then_some(next))
}

fn apply_one(sets: &mut Vec<RecordSet>, change: &RecordChange) -> Result<(), Fault> {
    let before = change.before.as_ref().map(canonical);
    let after = change.after.as_ref().map(canonical);
    let host = canonical_host(&change.host);
    for set in before.iter().chain(&after) {
        if set.host != host || set.kind != change.kind {
            return Err(Fault::refused(format!(
                "a change of `{host} {}` holds `{set}`",
                change.kind
            )));
        }
    }
    if after.as_ref().is_some_and(|set| set.values.is_empty()) {
        return Err(Fault::refused(format!(
            "`{host} {}` would be left without a value",
            change.kind
        )));
    }
    let at = sets
        .iter()
        .position(|set| set.host == host && set.kind == change.kind);
    let held = at.map(|at| &sets[at]);
    if held != before.as_ref() {
        let text = |set: Option<&RecordSet>| {
            set.map_or_else(|| "nothing".to_owned(), |set| format!("`{set}`"))
        };
        return Err(Fault::refused(format!(
            "`{host} {}` was expected to be {} and is {}",
            change.kind,
            text(before.as_ref()),
            text(held)
        )));
    }
    if let Some(at) = at {
        sets.remove(at);
    }
    sets.extend(after);
    Ok(())
}

fn open_zone(now: &Generation, name: &ZoneName, listen: &[SocketAddr]) -> Option<Generation> {
    let mut addresses: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
    addresses.sort();
    addresses.dedup();
    let mut next = now.clone();
    match next.zones.iter_mut().find(|zone| &zone.name == name) {
        // The server moved to another address since.
        Some(zone) => zone.addresses = addresses,
        None => next.zones.push(ServedZone {
            name: name.clone(),
            server: HostName::new(format!("ns1.{name}")),
            addresses,
            sets: Vec::new(),
        }),
    }
    (&next != now).then_some(next)
}

fn close_zone(now: &Generation, name: &ZoneName) -> Option<Generation> {
    let mut next = now.clone();
    next.zones.retain(|zone| &zone.name != name);
    (&next != now).then_some(next)
}

/// For `fuzz`: what is accepted can be served.
#[cfg(test)]
pub(crate) fn hostile(lines: &str) -> Snapshot {
    let listen = ["127.0.0.1:53".parse().expect("an address")];
    let mut now = Generation::default();
    for line in lines.lines() {
        let next = match serde_json::from_str::<Request>(line) {
            Ok(Request::Apply {
                zone,
                changes,
                expect_generation,
            }) => apply(&now, &canonical_zone(&zone), &changes, expect_generation).unwrap_or(None),
            Ok(Request::OpenZone { zone }) => open_zone(&now, &canonical_zone(&zone), &listen),
            Ok(Request::CloseZone { zone }) => close_zone(&now, &canonical_zone(&zone)),
            _ => None,
        };
        if let Some(mut next) = next {
            next.number = now.number + 1;
            if Snapshot::build(next.clone()).is_ok() {
                now = next;
            }
        }
        let _ = serde_json::from_str::<Reply>(line).map(|reply| format!("{reply:?}"));
    }
    Snapshot::build(now).expect("it was built before")
}
