//! Units as types: how they are written (`1h`, `60s`, `4GiB`) and how they are printed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A DNS time to live, in seconds (RFC 2181 section 8: at most 2^31 - 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ttl(pub u32);

impl Ttl {
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&short(self.duration()))
    }
}

/// A span of time, written `250ms`, `10s`, `30m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    pub const fn secs(secs: u64) -> Span {
        Span(Duration::from_secs(secs))
    }

    /// Reads `10s`; the error says what is expected.
    pub fn parse(text: &str) -> Result<Span, String> {
        let expected =
            || format!("expected a time such as `250ms`, `10s`, `30m`, `1h` or `7d`, got `{text}`");
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(expected)?;
        let number: u64 = text[..digits].parse().map_err(|_| expected())?;
        let millis = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        number
            .checked_mul(millis)
            .map(|all| Span(Duration::from_millis(all)))
            .ok_or_else(expected)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&short(self.0))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        let text = String::deserialize(from)?;
        Span::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The shortest exact writing that [`Span::parse`] reads back: `90s`, `1h`, `250ms`.
pub fn short(time: Duration) -> String {
    let millis = time.as_millis();
    for (size, unit) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis == 0 {
        "0s".to_owned()
    } else {
        format!("{millis}ms")
    }
}

/// For people: `0.4s`, `12.0s`, `3m05s`, `2h10m`.
pub fn human(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        _ => format!("{}h{:02}m", secs / 3600, secs % 3600 / 60),
    }
}

/// A number of bytes, written `512MiB`, `4GiB`, `200GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    pub fn parse(text: &str) -> Result<Bytes, String> {
        let expected =
            || format!("expected a size such as `512MiB`, `4GiB` or `200GB`, got `{text}`");
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(expected)?;
        let number: u64 = text[..digits].parse().map_err(|_| expected())?;
        let unit: u64 = match &text[digits..] {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(expected()),
        };
        number.checked_mul(unit).map(Bytes).ok_or_else(expected)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift {
                let whole = self.0 as f64 / (1_u64 << shift) as f64;
                let text = if whole.fract() == 0.0 {
                    format!("{whole:.0}{unit}")
                } else {
                    format!("{whole:.1}{unit}")
                };
                return f.pad(&text);
            }
        }
        f.pad(&format!("{}B", self.0))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        u64::deserialize(from).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_back_as_written() {
        for text in ["250ms", "10s", "90s", "30m", "1h", "7d"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Span::parse("120s").unwrap().to_string(), "2m");
        for bad in [
            "",
            "s",
            "10",
            "1.5h",
            "-1s",
            "10 s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(Bytes::parse("4GiB").unwrap(), Bytes(4 << 30));
        assert_eq!(Bytes::parse("200GB").unwrap(), Bytes(200_000_000_000));
        assert_eq!(Bytes(1536).to_string(), "1.5KiB");
        assert_eq!(Bytes(7).to_string(), "7B");
        assert!(Bytes::parse("4 GiB").is_err());
    }
}
