//! The stack's private certificate authority, and what it signs: one pair for each server, one for each of
//! hafog's own database roles. There are no passwords between hafog's parts.
//!
//! Everything is in one folder (0700, files 0600), made at first use under a file lock, so that two processes may
//! open it at once. A pair is one file, replaced as a whole, so that a reader never sees a certificate without its
//! key. Issued pairs are reused, and renewed when less than [`RENEW_BEFORE`] is left.
//!
//! A machine that only acts in one role (the agent's) has [`Keys::of_role`]: its own pair and nothing else, so a
//! stolen server cannot sign anything. There is no revocation: the way to revoke is a new folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Lock};
use crate::error::Fault;
use crate::model::digest::sha256;
use crate::shell::Host;

/// An issued pair with less than this left is replaced.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
const PAIR_DAYS: i64 = 397;
const AUTHORITY_DAYS: i64 = 3650;
/// How long another process is waited for. It holds the lock for milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// The mode of every file, from its first instant.
const SECRET: u32 = 0o600;

/// A certificate and its private key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

/// Where certificates come from. `Debug` and `Display` are absent on purpose.
pub struct Keys(Source);

enum Source {
    Authority {
        folder: PathBuf,
        authority: OnceLock<Stored>,
    },
    Role {
        role: String,
        ca_pem: String,
        pair: Pair,
    },
}

/// One file.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    cert_pem: String,
    key_pem: String,
    /// Names and addresses in the certificate; others than wanted make a new one.
    names: Vec<String>,
    /// Digest of the certificate of the authority that signed it: a folder whose removal was cut short may hold pairs of
    /// one that is gone.
    #[serde(default)]
    signed_by: String,
    until: Timestamp,
}

#[derive(Clone, Copy)]
enum Use {
    Server,
    Client,
}

impl Keys {
    /// Opens the authority in `folder`. Where there is none it is made when it is first needed, so that a command that
    /// only looks leaves nothing behind.
    pub fn open(folder: &Path) -> Result<Keys, Fault> {
        let authority = OnceLock::new();
        if let Some(found) = read(&folder.join("authority.json"))? {
            let _ = authority.set(found);
        }
        Ok(Keys(Source::Authority {
            folder: folder.to_owned(),
            authority,
        }))
    }

    /// Whether there is anything to forget.
    pub fn exist(&self) -> bool {
        matches!(&self.0, Source::Authority { folder, .. } if folder.exists())
    }

    /// Removes the authority and everything that it signed. Gone already is success.
    pub fn forget(&self) -> Result<(), Fault> {
        let Source::Authority { folder, .. } = &self.0 else {
            return Ok(());
        };
        durable::remove(folder)
    }

    /// What a machine has that acts in one role: its pair, and the authority's certificate to know others by.
    pub fn of_role(role: &str, ca_pem: impl Into<String>, pair: Pair) -> Keys {
        Keys(Source::Role {
            role: role.to_owned(),
            ca_pem: ca_pem.into(),
            pair,
        })
    }

    pub fn ca_pem(&self) -> Result<&str, Fault> {
        match &self.0 {
            Source::Authority { folder, authority } => Ok(&made(folder, authority)?.cert_pem),
            Source::Role { ca_pem, .. } => Ok(ca_pem),
        }
    }

    /// Whether new pairs can be signed here.
    pub fn is_authority(&self) -> bool {
        matches!(self.0, Source::Authority { .. })
    }

    /// The pair of a server: valid for its name and its address.
    pub fn server(&self, host: &Host) -> Result<Pair, Fault> {
        let names = vec![host.name.to_string(), host.address.to_string()];
        self.pair(Use::Server, host.name.as_str(), names)
    }

    /// The pair of a role: the certificate's common name is the role's.
    pub fn client(&self, role: &str) -> Result<Pair, Fault> {
        match &self.0 {
            Source::Role {
                role: own, pair, ..
            } if own == role => Ok(pair.clone()),
            _ => self.pair(Use::Client, role, vec![role.to_owned()]),
        }
    }

    /// TLS as `role`: trusts this authority and no other.
    pub fn client_config(&self, role: &str) -> Result<rustls::ClientConfig, Fault> {
        client_config_from_pem(self.ca_pem()?, &self.client(role)?)
    }

    fn pair(&self, purpose: Use, subject: &str, names: Vec<String>) -> Result<Pair, Fault> {
        let Source::Authority { folder, authority } = &self.0 else {
            return Err(Fault::new(format!(
                "this machine cannot make a key for `{subject}`: it has no certificate authority"
            )));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if subject.is_empty() || subject.starts_with('.') || !subject.chars().all(plain) {
            return Err(Fault::new(format!(
                "`{subject}` cannot be the name of a key"
            )));
        }
        let kind = match purpose {
            Use::Server => "server",
            Use::Client => "client",
        };
        let authority = made(folder, authority)?;
        let path = folder.join(format!("{kind}-{subject}.json"));
        let signer = authority.digest();
        let fits = |stored: &Stored| {
            stored.names == names && stored.signed_by == signer && is_fresh(stored)
        };
        if let Some(stored) = read(&path)?.filter(fits) {
            return Ok(stored.into());
        }
        let _lock = lock(folder)?;
        if let Some(stored) = read(&path)?.filter(fits) {
            return Ok(stored.into());
        }
        let made = sign(authority, purpose, subject, names)?;
        write(&path, &made)?;
        Ok(made.into())
    }
}

/// The authority of the folder, by whoever was first.
fn made<'a>(folder: &Path, authority: &'a OnceLock<Stored>) -> Result<&'a Stored, Fault> {
    if let Some(authority) = authority.get() {
        return Ok(authority);
    }
    durable::make_folders(folder, 0o700)?;
    // Also one that was made by somebody else.
    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .map_err(|error| durable::fault("make", folder, error))?;
    let path = folder.join("authority.json");
    let _lock = lock(folder)?;
    let found = match read(&path)? {
        Some(found) => found,
        None => {
            // Wherever the folder is, nobody commits it by mistake.
            durable::replace(&folder.join(".gitignore"), b"*\n", SECRET, None)?;
            let made = make_authority()?;
            write(&path, &made)?;
            made
        }
    };
    Ok(authority.get_or_init(|| found))
}

impl Stored {
    fn digest(&self) -> String {
        sha256(self.cert_pem.as_bytes())
    }
}

impl From<Stored> for Pair {
    fn from(stored: Stored) -> Pair {
        Pair {
            cert_pem: stored.cert_pem,
            key_pem: stored.key_pem,
        }
    }
}

/// TLS with one client certificate that trusts `ca_pem` and nothing else; the crypto is ring's, whatever the process chose.
pub fn client_config_from_pem(ca_pem: &str, pair: &Pair) -> Result<rustls::ClientConfig, Fault> {
    let bad = |what: &str, why: String| Fault::new(format!("the {what} is unusable")).because(why);
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let cert = cert.map_err(|error| bad("authority's certificate", error.to_string()))?;
        roots
            .add(cert)
            .map_err(|error| bad("authority's certificate", error.to_string()))?;
    }
    let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("client certificate", error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())
        .map_err(|_| bad("client key", "it is no PEM private key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("TLS provider", error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad("client certificate", error.to_string()))
}

fn is_fresh(stored: &Stored) -> bool {
    Timestamp::now() + RENEW_BEFORE < stored.until
}

/// The authority's name is a constant, so the issuer can be made again from its key alone.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("hafog stack authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Valid from yesterday, because the machines' clocks differ, until the start of a day.
fn set_validity(params: &mut CertificateParams, days: i64) -> Result<Timestamp, Fault> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let last = today.saturating_add(days.days());
    let date =
        |day: Date| rcgen::date_time_ymd(i32::from(day.year()), day.month() as u8, day.day() as u8);
    params.not_before = date(today.saturating_sub(1.days()));
    params.not_after = date(last);
    let until = last.to_zoned(TimeZone::UTC);
    until
        .map(|until| until.timestamp())
        .map_err(|error| Fault::new("the clock is out of range").because(error))
}

fn new_key() -> Result<KeyPair, Fault> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(cannot_sign)
}

fn cannot_sign(error: rcgen::Error) -> Fault {
    Fault::new("cannot make a certificate").because(error)
}

fn make_authority() -> Result<Stored, Fault> {
    let key = new_key()?;
    let mut params = authority_params();
    let until = set_validity(&mut params, AUTHORITY_DAYS)?;
    let cert = params.self_signed(&key).map_err(cannot_sign)?;
    Ok(Stored {
        cert_pem: cert.pem(),
        key_pem: key.serialize_pem(),
        names: Vec::new(),
        signed_by: String::new(),
        until,
    })
}

fn sign(
    authority: &Stored,
    purpose: Use,
    subject: &str,
    names: Vec<String>,
) -> Result<Stored, Fault> {
    let authority_key = KeyPair::from_pem(&authority.key_pem).map_err(cannot_sign)?;
    let issuer = Issuer::new(authority_params(), authority_key);
    let alternatives = match purpose {
        Use::Server => names.clone(),
        Use::Client => Vec::new(),
    };
    let mut params = CertificateParams::new(alternatives).map_err(cannot_sign)?;
    params.distinguished_name = name(subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // A server's pair cannot log in anywhere, and a role's cannot pose as a server.
    params.extended_key_usages = vec![match purpose {
        Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let until = set_validity(&mut params, PAIR_DAYS)?;
    let key = new_key()?;
    let cert = params.signed_by(&key, &issuer).map_err(cannot_sign)?;
    Ok(Stored {
        cert_pem: cert.pem(),
        key_pem: key.serialize_pem(),
        names,
        signed_by: authority.digest(),
        until,
    })
}

fn lock(folder: &Path) -> Result<Lock, Fault> {
    Lock::take(&folder.join("lock"), LOCK_LIMIT)
}

fn read(path: &Path) -> Result<Option<Stored>, Fault> {
    let Some(bytes) = durable::read(path)? else {
        return Ok(None);
    };
    // The error of the parser could quote the key.
    let stored = serde_json::from_slice(&bytes);
    stored
        .map(Some)
        .map_err(|_| durable::fault("read", path, "it is damaged"))
}

fn write(path: &Path, stored: &Stored) -> Result<(), Fault> {
    let bytes = serde_json::to_vec(stored).expect("a pair serialises");
    durable::replace(path, &bytes, SECRET, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Dirs;

    fn host(address: &str) -> Host {
        let dirs = Dirs {
            image: String::new(),
            etc: String::new(),
            data: String::new(),
            log: String::new(),
        };
        Host {
            name: "shop-east-db-1".into(),
            site: "east".into(),
            address: address.parse().unwrap(),
            dirs,
        }
    }

    #[test]
    fn opened_at_once_by_many_there_is_one_authority_and_one_pair() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let all: Vec<(String, String)> = std::thread::scope(|scope| {
            let open = || {
                let keys = Keys::open(&folder).unwrap();
                let pair = keys.client("hafog_repl").unwrap();
                (keys.ca_pem().unwrap().to_owned(), pair.cert_pem)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
    }

    #[test]
    fn files_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let keys = Keys::open(&folder).unwrap();
        keys.server(&host("127.70.0.1")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        let mut names = Vec::new();
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        names.sort();
        assert_eq!(
            names,
            [
                ".gitignore",
                "authority.json",
                "lock",
                "server-shop-east-db-1.json"
            ]
        );
    }

    #[test]
    fn pairs_are_reused_until_they_run_out_or_the_address_changes() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let first = keys.server(&host("127.70.0.1")).unwrap();
        let again = Keys::open(folder.path()).unwrap();
        assert!(again.server(&host("127.70.0.1")).unwrap() == first);
        let moved = keys.server(&host("127.70.0.2")).unwrap();
        assert!(moved != first);

        let path = folder.path().join("server-shop-east-db-1.json");
        let mut stored = read(&path).unwrap().unwrap();
        stored.until = Timestamp::now() + RENEW_BEFORE - Duration::from_secs(60);
        write(&path, &stored).unwrap();
        let renewed = keys.server(&host("127.70.0.2")).unwrap();
        assert!(renewed != moved);
        assert!(is_fresh(&read(&path).unwrap().unwrap()));
    }

    #[test]
    fn a_pair_whose_authority_is_gone_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let of_gone = Keys::open(folder.path()).unwrap().client("hafog_admin");
        fs::remove_file(folder.path().join("authority.json")).unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let made = keys.client("hafog_admin").unwrap();
        assert!(made != of_gone.unwrap());
        let again = Keys::open(folder.path()).unwrap();
        assert!(again.client("hafog_admin").unwrap() == made);
    }

    #[test]
    fn a_machine_with_one_role_has_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let pair = keys.client("hafog_agent").unwrap();
        let agent = Keys::of_role("hafog_agent", keys.ca_pem().unwrap(), pair);
        assert!(agent.client_config("hafog_agent").is_ok());
        let refused = agent.client("hafog_admin").err().unwrap();
        assert_eq!(
            refused.to_string(),
            "this machine cannot make a key for `hafog_admin`: it has no certificate authority"
        );
        assert!(agent.server(&host("127.70.0.1")).is_err());
    }

    #[test]
    fn nothing_is_made_by_looking_and_nothing_is_left_after_forgetting() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("keys");
        let keys = Keys::open(&folder).unwrap();
        assert!(!keys.exist() && !folder.exists());
        keys.client("hafog_repl").unwrap();
        assert!(keys.exist());
        keys.forget().unwrap();
        keys.forget().unwrap();
        assert!(!keys.exist() && !folder.exists());
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        for name in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(keys.client(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        Keys::open(folder.path()).unwrap().ca_pem().unwrap();
        let path = folder.path().join("authority.json");
        fs::write(&path, "{\"key_pem\": \"SECRET").unwrap();
        let fault = Keys::open(folder.path()).err().unwrap();
        let expected = format!("cannot read `{}`: it is damaged", path.display());
        assert_eq!(fault.to_string(), expected);
    }
}
