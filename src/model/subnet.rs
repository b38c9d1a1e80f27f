//! A range of IPv4 addresses, as in `10.66.20.0/24`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A site's own network. It has room for servers, and its text is that of its first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: Ipv4Addr,
    length: u8,
}

impl Subnet {
    /// The address of whoever leads out of it: the first that a machine can have.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + 1)
    }

    pub fn length(&self) -> u8 {
        self.length
    }

    pub fn overlaps(&self, other: &Subnet) -> bool {
        let shared = self.length.min(other.length);
        masked(self.first, shared) == masked(other.first, shared)
    }
}

fn masked(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Subnet, String> {
        let wrong = || format!("expected a network such as `10.66.20.0/24`, found `{text}`");
        let (first, length) = text.split_once('/').ok_or_else(wrong)?;
        let first: Ipv4Addr = first.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        if !(8..=28).contains(&length) {
            return Err(format!("`{text}`: the length is from 8 to 28"));
        }
        match masked(first, length) == first {
            true => Ok(Subnet { first, length }),
            false => Err(format!(
                "`{text}` is no network's first address: `{}/{length}` is",
                masked(first, length)
            )),
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Subnet, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_a_network_and_what_is_not() {
        for good in ["10.66.20.0/24", "10.0.0.0/8", "192.168.1.16/28"] {
            assert_eq!(subnet(good).to_string(), good);
        }
        assert_eq!(subnet("10.66.20.0/24").gateway().to_string(), "10.66.20.1");
        for bad in ["", "10.66.20.0", "10.66.20.0/29", "10.0.0.0/0", "fd00::/64"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        let why = "10.66.20.7/24".parse::<Subnet>().unwrap_err();
        assert_eq!(
            why,
            "`10.66.20.7/24` is no network's first address: `10.66.20.0/24` is"
        );
    }

    #[test]
    fn networks_that_have_addresses_in_common() {
        assert!(subnet("10.66.20.0/24").overlaps(&subnet("10.66.0.0/16")));
        assert!(!subnet("10.66.20.0/24").overlaps(&subnet("10.66.21.0/24")));
    }
}
