//! Loopback addresses: each site has a block 127.A.B.0/24 of its own, and each server one address of it.
//!
//! A block belongs to the site whose claim is in the machine's claims folder, for as long as that site's record is
//! where the claim says. Claims are made under a lock, so that two sites cannot take one block. Other users' sites
//! have other claims: a block that any process holds a marker port of is passed over, and should two users still
//! come to the same block, the second supervisor cannot take its address and says so.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::supervisor::MARKER_PORT;
use crate::durable::{self, Lock};
use crate::error::Fault;

const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// 127.64.0.0 to 127.126.255.0: away from 127.0.0.x, which everybody uses.
const FIRST: u32 = 64 * 256;
const COUNT: u32 = 63 * 256;
pub(super) const SERVERS: u8 = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block(u8, u8);

impl Block {
    fn number(number: u32) -> Block {
        let number = FIRST + number % COUNT;
        Block((number / 256) as u8, (number % 256) as u8)
    }

    pub(super) fn address(self, server: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.0, self.1, server))
    }

    fn claim(self, claims: &Path) -> PathBuf {
        claims.join(format!("127.{}.{}", self.0, self.1))
    }

    fn is_in_use(self) -> bool {
        (1..=SERVERS).any(|server| UdpSocket::bind((self.address(server), MARKER_PORT)).is_err())
    }
}

/// `site.json`: what the site's folder is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SiteRecord {
    pub stack: String,
    pub site: String,
    pub block: Block,
}

pub(super) fn record(base: &Path) -> Result<Option<SiteRecord>, Fault> {
    let path = base.join("site.json");
    let Some(bytes) = durable::read(&path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| durable::fault("understand", &path, error))
}

/// Where all of a user's sites on this machine say which block is theirs.
fn claims_folder() -> Result<PathBuf, Fault> {
    let me = nix::unistd::geteuid();
    if me.is_root() {
        return Ok(PathBuf::from("/var/lib/hafog/blocks"));
    }
    let folder = PathBuf::from(format!("/var/tmp/hafog-{me}"));
    match std::fs::symlink_metadata(&folder) {
        Ok(meta) if !meta.is_dir() || meta.uid() != me.as_raw() => Err(Fault::new(format!(
            "`{}` is not a folder of ours",
            folder.display()
        ))),
        _ => Ok(folder),
    }
}

fn lock(claims: &Path) -> Result<Lock, Fault> {
    durable::lock_in(claims, ".lock", LOCK_LIMIT)
}

/// The site's block; at first it takes a free one and writes `site.json`. The caller holds the site's lock.
pub(super) fn claim(base: &Path, stack: &str, site: &str) -> Result<SiteRecord, Fault> {
    let claims = claims_folder()?;
    let _lock = lock(&claims)?;
    let owner = base.display().to_string();
    if let Some(record) = record(base)? {
        // The claim is lost where the claims folder was cleaned.
        if owner_of(&claims, record.block)?.is_none() {
            write_claim(&claims, record.block, &owner)?;
        }
        return Ok(record);
    }
    durable::sweep(&claims)?;
    forget(&claims, &owner)?;
    let digest = Sha256::digest(owner.as_bytes());
    let start = u32::from_be_bytes([0, digest[0], digest[1], digest[2]]);
    for probe in 0..COUNT {
        let block = Block::number(start.wrapping_add(probe));
        let free = match owner_of(&claims, block)? {
            Some(other) => other == owner,
            None => true,
        };
        if free && !block.is_in_use() {
            let record = SiteRecord {
                stack: stack.to_owned(),
                site: site.to_owned(),
                block,
            };
            write_claim(&claims, block, &owner)?;
            let bytes = serde_json::to_vec_pretty(&record).expect("a record is always JSON");
            durable::replace(&base.join("site.json"), &bytes, 0o644, None)?;
            return Ok(record);
        }
    }
    Err(Fault::new(format!(
        "all {COUNT} blocks of loopback addresses are in use"
    )))
}

/// A command that was killed before it wrote `site.json` left a claim, and the block may be somebody else's by now.
fn forget(claims: &Path, owner: &str) -> Result<(), Fault> {
    for name in durable::names(claims)? {
        let claim = claims.join(name);
        if durable::read(&claim)?.is_some_and(|bytes| bytes == owner.as_bytes()) {
            durable::remove(&claim)?;
        }
    }
    Ok(())
}

fn write_claim(claims: &Path, block: Block, owner: &str) -> Result<(), Fault> {
    durable::replace(&block.claim(claims), owner.as_bytes(), 0o644, None)
}

/// Whose block it is. A claim by a site that is gone does not count.
fn owner_of(claims: &Path, block: Block) -> Result<Option<String>, Fault> {
    let Some(bytes) = durable::read(&block.claim(claims))? else {
        return Ok(None);
    };
    let owner = String::from_utf8_lossy(&bytes).into_owned();
    let theirs = record(Path::new(&owner)).ok().flatten();
    Ok(theirs.filter(|record| record.block == block).map(|_| owner))
}

/// Gives the block back, and those of sites that were removed by hand. The caller holds the site's lock, if the site
/// is there, and removes its folder afterwards.
pub(super) fn release(base: &Path) -> Result<(), Fault> {
    let claims = claims_folder()?;
    if !claims.exists() {
        return Ok(());
    }
    let _lock = lock(&claims)?;
    durable::sweep(&claims)?;
    let ours = base.display().to_string();
    for name in durable::names(&claims)? {
        let claim = claims.join(name);
        let owner = durable::read(&claim)?.unwrap_or_default();
        let owner = String::from_utf8_lossy(&owner);
        if owner == ours || matches!(record(Path::new(&*owner)), Ok(None)) {
            durable::remove(&claim)?;
        }
    }
    if durable::names(&claims)?.is_empty() {
        durable::remove(&claims.join(".lock"))?;
        // A new lock file of somebody who waits keeps the folder.
        let _ = std::fs::remove_dir(&claims);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_between_127_64_and_127_126() {
        assert_eq!(Block::number(0), Block(64, 0));
        assert_eq!(Block::number(COUNT - 1), Block(126, 255));
        assert_eq!(Block::number(COUNT), Block(64, 0));
        assert_eq!(Block(64, 7).address(3).to_string(), "127.64.7.3");
    }

    #[test]
    fn a_held_marker_makes_a_block_used() {
        let block = (0..COUNT)
            .map(Block::number)
            .find(|block| !block.is_in_use())
            .unwrap();
        let held = UdpSocket::bind((block.address(17), MARKER_PORT)).unwrap();
        assert!(block.is_in_use());
        drop(held);
        // A program that another test starts just now holds a copy of the socket until its exec.
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while block.is_in_use() {
            assert!(
                std::time::Instant::now() < give_up,
                "the marker is still held"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_claim_counts_while_its_site_is_there() {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().join("site");
        std::fs::create_dir(&base).unwrap();
        let mine = claim(&base, "shop", "east").unwrap();
        assert_eq!(claim(&base, "shop", "east").unwrap(), mine);
        let claims = claims_folder().unwrap();
        let owner = || owner_of(&claims, mine.block).unwrap();
        assert_eq!(owner(), Some(base.display().to_string()));
        std::fs::rename(base.join("site.json"), base.join("away")).unwrap();
        assert_eq!(owner(), None);
        std::fs::rename(base.join("away"), base.join("site.json")).unwrap();
        // Killed between the claim and its record, and the block is not to be had the next time.
        std::fs::remove_file(base.join("site.json")).unwrap();
        let stale = Block::number(u32::from(u16::MAX));
        write_claim(&claims, stale, &base.display().to_string()).unwrap();
        let mine = claim(&base, "shop", "east").unwrap();
        assert!(mine.block == stale || !stale.claim(&claims).exists());
        release(&base).unwrap();
        assert!(!mine.block.claim(&claims).exists());
    }
}
