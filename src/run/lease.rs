//! The lease: the right of one run to change the stack. Document `lease` in the arbiter.
//!
//! It has a holder, a reason, an expiry, and an epoch that only grows. A process that lost it finds out before its
//! next step and stops. A holder that died on this very machine is recognised, so nobody waits for its expiry.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Fault, Kind};
use crate::state::stores::Stores;
use crate::state::{PutError, Version};
use crate::step::OPEN_LIMIT;

const KEY: &str = "lease";
/// A holder that does not renew for so long has lost it.
pub const LASTS: Duration = Duration::from_secs(30);
/// How often a running command renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(8);
// What a step may still open without looking is over before somebody else takes the lease.
const _: () = assert!(OPEN_LIMIT.as_secs() + 2 * RENEW_EVERY.as_secs() <= LASTS.as_secs());
const POLL: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    pub epoch: u64,
    /// `None`: free. The epoch stays.
    pub holder: Option<Holder>,
}

impl Lease {
    fn next(&self) -> Option<u64> {
        self.epoch.checked_add(1)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// `user@machine, process 4711`.
    pub who: String,
    /// The boot of the machine, the process and its start: enough to know whether it still lives, from the same machine.
    pub boot: String,
    pub pid: u32,
    pub started: u64,
    /// The verb, and `--reason` if one was given.
    pub reason: String,
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Holder {
    /// This process.
    pub fn me(reason: &str, now: Timestamp) -> Holder {
        let pid = std::process::id();
        let user = std::env::var("USER")
            .or_else(|_| std::env::var("LOGNAME"))
            .unwrap_or_else(|_| "root".to_owned());
        let machine = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
        Holder {
            who: format!("{user}@{machine}, process {pid}"),
            boot: boot_id(),
            pid,
            started: start_of(pid).unwrap_or(0),
            reason: reason.to_owned(),
            since: now,
            until: now + LASTS,
        }
    }

    /// Why this holder stops nobody any more, and what to type; `None` while it may still be at work.
    pub fn is_gone(&self, epoch: u64, now: Timestamp) -> Option<String> {
        let why = match (self.is_dead_here(), self.until <= now) {
            (true, _) => "that process is dead".to_owned(),
            (false, true) => format!("it expired at {:.0}", self.until),
            (false, false) => return None,
        };
        Some(format!(
            "{why}: the next command takes the lease over, and `hafog lock release --epoch {epoch}` frees it now"
        ))
    }

    /// The holder ran on this boot of this machine, and its process is gone.
    fn is_dead_here(&self) -> bool {
        !self.boot.is_empty() && self.boot == boot_id() && start_of(self.pid) != Some(self.started)
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)): start time in clock ticks after boot. A zombie counts as gone.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A lease that this process holds.
#[derive(Clone)]
pub struct Held {
    stores: Arc<Stores>,
    clock: Arc<dyn Clock>,
    pub epoch: u64,
    pub holder: Holder,
}

/// Takes the lease, waiting for at most `patience`.
pub async fn take(
    stores: &Arc<Stores>,
    clock: &Arc<dyn Clock>,
    reason: &str,
    patience: Duration,
) -> Result<Held, Fault> {
    let give_up = clock.elapsed() + patience;
    loop {
        let now = clock.now();
        let found: Option<(Lease, Version)> = stores.get(KEY).await?;
        let next = found.as_ref().map_or(Some(1), |(lease, _)| lease.next());
        let epoch = next.ok_or_else(|| {
            Fault::new("the lease's epoch is the last there is: somebody else wrote that document")
        })?;
        let other = found.as_ref().and_then(|(lease, _)| lease.holder.as_ref());
        match other.filter(|other| other.until > now && !other.is_dead_here()) {
            Some(other) if clock.elapsed() >= give_up => return Err(held_by(other, now, patience)),
            Some(_) => {}
            None => {
                let holder = Holder::me(reason, now);
                let lease = Lease {
                    epoch,
                    holder: Some(holder.clone()),
                };
                match stores
                    .put(KEY, &lease, found.as_ref().map(|(_, version)| version))
                    .await
                {
                    Ok(_) => {
                        stores.rely_on_arbiter();
                        return Ok(Held {
                            stores: stores.clone(),
                            clock: clock.clone(),
                            epoch,
                            holder,
                        });
                    }
                    Err(PutError::Changed) => continue,
                    Err(PutError::Fault(fault)) => return Err(fault),
                }
            }
        }
        clock.sleep(POLL).await;
    }
}

fn held_by(other: &Holder, now: Timestamp, patience: Duration) -> Fault {
    let left = Duration::try_from(other.until.duration_since(now)).unwrap_or_default();
    let waited = if patience.is_zero() {
        String::new()
    } else {
        format!(" (waited {} s)", patience.as_secs())
    };
    Fault::of(
        Kind::Locked,
        format!("the stack is locked by {}{waited}", other.who),
    )
    .because(format!(
        "`{}` since {:.0}; it expires in {} s unless it is renewed",
        other.reason,
        other.since,
        left.as_secs()
    ))
    .hint("hafog lock status")
    .hint("add `--lock-timeout 3m` to wait for it")
}

impl Held {
    /// The process counts too: after a `destroy` epochs begin anew.
    fn is_ours(&self, lease: &Lease) -> bool {
        let process = |holder: &Holder| (holder.boot.clone(), holder.pid, holder.started);
        let holder = lease.holder.as_ref();
        lease.epoch == self.epoch
            && holder.is_some_and(|holder| process(holder) == process(&self.holder))
    }

    /// Releases it and removes the document.
    pub async fn forget(&self) -> Result<(), Fault> {
        self.still_ours().await?;
        self.stores.delete_everywhere(KEY).await
    }

    /// A stale process stops here.
    pub async fn still_ours(&self) -> Result<(), Fault> {
        let found: Option<(Lease, Version)> = self.stores.get(KEY).await?;
        match found {
            Some((lease, _)) if self.is_ours(&lease) => Ok(()),
            _ => Err(Fault::of(
                Kind::Partial,
                "the lease was lost: another run may be changing the stack; this one stopped",
            )
            .hint("hafog lock status")),
        }
    }

    pub async fn renew(&self) -> Result<(), Fault> {
        let found: Option<(Lease, Version)> = self.stores.get(KEY).await?;
        let Some((mut lease, version)) = found.filter(|(lease, _)| self.is_ours(lease)) else {
            return self.still_ours().await;
        };
        if let Some(holder) = &mut lease.holder {
            holder.until = self.clock.now() + LASTS;
        }
        match self.stores.put(KEY, &lease, Some(&version)).await {
            Ok(_) => Ok(()),
            Err(PutError::Changed) => self.still_ours().await,
            Err(PutError::Fault(fault)) => Err(fault),
        }
    }

    /// Renews until dropped. Failures are found by `still_ours` before the next step.
    pub fn keep(&self) -> Keeper {
        let held = self.clone();
        Keeper(tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                let _ = held.renew().await;
            }
        }))
    }

    pub async fn release(&self) -> Result<(), Fault> {
        let found: Option<(Lease, Version)> = self.stores.get(KEY).await?;
        if let Some((lease, version)) = found.filter(|(lease, _)| self.is_ours(lease)) {
            let free = Lease {
                epoch: lease.epoch,
                holder: None,
            };
            match self.stores.put(KEY, &free, Some(&version)).await {
                Ok(_) | Err(PutError::Changed) => {}
                Err(PutError::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

/// Stops renewing when it is dropped.
pub struct Keeper(tokio::task::JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The lease as it is now.
pub async fn show(stores: &Stores) -> Result<Option<Lease>, Fault> {
    Ok(stores.get::<Lease>(KEY).await?.map(|(lease, _)| lease))
}

/// `hafog lock release`: frees a lease of a given epoch, whoever holds it. The old holder stops before its next step.
pub async fn release_other(stores: &Stores, epoch: u64) -> Result<(), Fault> {
    let found: Option<(Lease, Version)> = stores.get(KEY).await?;
    let Some((lease, version)) = found.filter(|(lease, _)| lease.holder.is_some()) else {
        return Ok(());
    };
    if lease.epoch != epoch {
        return Err(
            Fault::new(format!("the lease has epoch {}, not {epoch}", lease.epoch))
                .hint("hafog lock status"),
        );
    }
    // The epoch grows, so that the old holder cannot take itself for the new one.
    let free = Lease {
        epoch: lease.epoch.saturating_add(1),
        holder: None,
    };
    match stores.put(KEY, &free, Some(&version)).await {
        Ok(_) => Ok(()),
        Err(PutError::Changed) => {
            Err(Fault::new("the lease changed meanwhile").hint("hafog lock status"))
        }
        Err(PutError::Fault(fault)) => Err(fault),
    }
}

/// For `fuzz`: what is done with a lease that somebody else wrote.
#[cfg(test)]
pub(crate) fn hostile(bytes: &[u8], now: Timestamp) {
    let Ok(lease) = serde_json::from_slice::<Lease>(bytes) else {
        return;
    };
    let _ = lease.next();
    if let Some(holder) = &lease.holder {
        let _ = (
            holder.is_dead_here(),
            held_by(holder, now, Duration::from_secs(1)),
        );
    }
}
