//! How long a certificate is good for, read from the certificate itself: what is on a server decides, not what was
//! meant to be there.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

/// A certificate on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// What it is for: `server`, `ca`, a role.
    pub name: String,
    pub until: Timestamp,
}

impl Certificate {
    /// Whether less than `left` is left at `now`.
    pub fn ends_within(&self, left: std::time::Duration, now: Timestamp) -> bool {
        self.until < now.saturating_add(left).unwrap_or(Timestamp::MAX)
    }
}

/// When the first certificate in a PEM file runs out. `None`: there is none that can be read.
pub fn until(pem: &[u8]) -> Option<Timestamp> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    not_after(&certificate)
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// RFC 5280 section 4.1: the second time in the fifth part (the fourth, without a version) of what is signed.
fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der, SEQUENCE)?;
    let (_, mut signed, _) = element(certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        signed = any(signed)?.2;
    }
    for _part in ["serial number", "algorithm", "issuer"] {
        signed = any(signed)?.2;
    }
    let (_, validity, _) = element(signed, SEQUENCE)?;
    let (_, _, after) = any(validity)?;
    let (tag, text, _) = any(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

fn element(der: &[u8], wanted: u8) -> Option<(u8, &[u8], &[u8])> {
    any(der).filter(|(tag, _, _)| *tag == wanted)
}

/// Tag, contents and what follows.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let digit = |number, digit: &u8| number << 8 | usize::from(*digit);
            (digits.iter().fold(0, digit), rest)
        }
        _ => return None,
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some((*tag, contents, after))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    let whole = match tag {
        UTC_TIME if digits.len() == 12 => {
            let century = if digits < "50" { "20" } else { "19" };
            format!("{century}{digits}")
        }
        GENERALIZED_TIME if digits.len() == 14 => digits.to_owned(),
        _ => return None,
    };
    let number = |range: std::ops::Range<usize>| whole.get(range)?.parse::<i8>().ok();
    let at = civil::DateTime::new(
        whole.get(0..4)?.parse().ok()?,
        number(4..6)?,
        number(6..8)?,
        number(8..10)?,
        number(10..12)?,
        number(12..14)?,
        0,
    );
    let zoned = at.ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(year: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 3, 9);
        params.self_signed(&key).unwrap().pem().into_bytes()
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        for year in [2027, 2049, 2050, 2120] {
            let expected: Timestamp = format!("{year}-03-09T00:00:00Z").parse().unwrap();
            assert_eq!(until(&made(year)), Some(expected), "{year}");
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_never_a_panic() {
        let pem = made(2027);
        let der = CertificateDer::from_pem_slice(&pem).unwrap().to_vec();
        for length in 0..der.len() {
            not_after(&der[..length]);
            let mut changed = der.clone();
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                changed[length] = byte;
                not_after(&changed);
            }
        }
        assert_eq!(until(b""), None);
        assert_eq!(
            until(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
            None
        );
    }
}
