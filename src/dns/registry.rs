//! The DNS hosts, in the order of docs and help. A new one is one line here.

use super::{DnsHostAbout, serve_host};

pub const DNS_HOSTS: &[&DnsHostAbout] = &[&serve_host::ABOUT];

pub fn find(name: &str) -> Option<&'static DnsHostAbout> {
    DNS_HOSTS.iter().copied().find(|host| host.name == name)
}
