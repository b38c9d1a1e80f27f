//! One generation as tables for answering. Built once, never changed, read without locks.
//!
//! Everything that could be wrong with a zone is found here, so that a generation that was accepted can always be
//! served: both a change and a file from disk pass through [`Snapshot::build`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, TXT};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType as Type};

use crate::dns::serve_control::{Generation, NEGATIVE_TTL, ServedZone};
use crate::error::Fault;
use crate::model::record::{RecordSet, RecordType};

/// TTL of SOA, NS and the name server's addresses.
const ZONE_TTL: u32 = 3600;
/// RFC 2181 section 8.
const TTL_MAX: u32 = i32::MAX as u32;
/// A set that is larger cannot be carried by any message.
const SET_BYTES_MAX: usize = 60_000;

pub struct Snapshot {
    pub generation: Generation,
    zones: HashMap<LowerName, ZoneTable>,
}

pub struct ZoneTable {
    /// The SOA as negative answers carry it: its TTL is the negative TTL (RFC 2308 section 3).
    pub negative_soa: Record,
    /// A name without sets is an empty non-terminal: it exists, and has no data (RFC 8020).
    names: HashMap<LowerName, Vec<Set>>,
}

pub struct Set {
    kind: Type,
    pub records: Vec<Record>,
}

pub enum Found<'a> {
    Set(&'a Set),
    Cname(&'a Set, LowerName),
    NoData,
    NoName,
}

impl Snapshot {
    pub fn build(generation: Generation) -> Result<Snapshot, Fault> {
        let mut zones = HashMap::new();
        for zone in &generation.zones {
            let apex = name(zone.name.as_str())?;
            let table = ZoneTable::build(zone, &apex, generation.number)
                .map_err(|fault| fault.while_doing(format!("cannot serve zone `{}`", zone.name)))?;
            if zones.insert(LowerName::new(&apex), table).is_some() {
                return Err(Fault::new(format!("zone `{}` is there twice", zone.name)));
            }
        }
        Ok(Snapshot { generation, zones })
    }

    /// The zone with the longest name that `name` is in.
    pub fn zone_of(&self, name: &LowerName) -> Option<&ZoneTable> {
        if self.zones.is_empty() {
            return None;
        }
        let mut at = name.clone();
        loop {
            if let Some(zone) = self.zones.get(&at) {
                return Some(zone);
            }
            if at.is_root() {
                return None;
            }
            at = at.base_name();
        }
    }
}

impl ZoneTable {
    fn build(zone: &ServedZone, apex: &Name, number: u64) -> Result<ZoneTable, Fault> {
        let server = name(zone.server.as_str())?;
        let mailbox = name(&format!("hostmaster.{}", zone.name))?;
        // RFC 1982: the serial is a number modulo 2^32, so the low half of the generation's is enough.
        let serial = (number & u64::from(u32::MAX)) as u32;
        let soa = RData::SOA(SOA::new(
            server.clone(),
            mailbox,
            serial,
            3600,
            600,
            604_800,
            NEGATIVE_TTL.0,
        ));
        let mut table = ZoneTable {
            negative_soa: Record::from_rdata(
                apex.clone(),
                ZONE_TTL.min(NEGATIVE_TTL.0),
                soa.clone(),
            ),
            names: HashMap::new(),
        };
        table.add(apex, apex, ZONE_TTL, vec![soa])?;
        table.add(apex, apex, ZONE_TTL, vec![RData::NS(NS(server.clone()))])?;
        let (four, six): (Vec<IpAddr>, Vec<IpAddr>) =
            zone.addresses.iter().copied().partition(IpAddr::is_ipv4);
        for addresses in [four, six] {
            let data = addresses
                .into_iter()
                .map(|ip| match ip {
                    IpAddr::V4(ip) => RData::A(A(ip)),
                    IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
                })
                .collect();
            table.add(apex, &server, ZONE_TTL, data)?;
        }
        for set in &zone.sets {
            if set.host == zone.server {
                return Err(Fault::new(format!(
                    "`{}` is the name server's own name",
                    set.host
                )));
            }
            table
                .add_set(apex, set)
                .map_err(|fault| fault.while_doing(format!("cannot hold `{set}`")))?;
        }
        Ok(table)
    }

    fn add_set(&mut self, apex: &Name, set: &RecordSet) -> Result<(), Fault> {
        if set.values.is_empty() {
            return Err(Fault::new("a record set needs a value"));
        }
        if set.ttl.0 > TTL_MAX {
            return Err(Fault::new(format!(
                "a TTL is at most {TTL_MAX} s (RFC 2181)"
            )));
        }
        let owner = name(set.host.as_str())?;
        let data: Vec<RData> = set
            .values
            .iter()
            .map(|value| data_of(set.kind, value))
            .collect::<Result<_, _>>()?;
        if set.kind == RecordType::Cname {
            if data.len() != 1 {
                return Err(Fault::new("a CNAME has one value"));
            }
            if LowerName::new(&owner) == LowerName::new(apex) {
                return Err(Fault::new("the zone's own name cannot be a CNAME"));
            }
        }
        if data.iter().map(data_bytes).sum::<usize>() > SET_BYTES_MAX {
            return Err(Fault::new(format!(
                "a record set has at most {SET_BYTES_MAX} bytes"
            )));
        }
        self.add(apex, &owner, set.ttl.0, data)
    }

    fn add(&mut self, apex: &Name, owner: &Name, ttl: u32, data: Vec<RData>) -> Result<(), Fault> {
        let Some(kind) = data.first().map(RData::record_type) else {
            return Ok(());
        };
        if !apex.zone_of(owner) {
            return Err(Fault::new(format!("`{owner}` is not in zone `{apex}`")));
        }
        let key = LowerName::new(owner);
        let top = LowerName::new(apex);
        let mut above = key.clone();
        while above != top {
            above = above.base_name();
            self.names.entry(above.clone()).or_default();
        }
        let sets = self.names.entry(key).or_default();
        if sets.iter().any(|set| set.kind == kind) {
            return Err(Fault::new(format!("`{owner}` has {kind} twice")));
        }
        let lonely = |kind: Type| kind == Type::CNAME;
        if lonely(kind) && !sets.is_empty() || sets.iter().any(|set| lonely(set.kind)) {
            return Err(Fault::new(format!(
                "`{owner}` cannot be a CNAME and hold other records (RFC 1034)"
            )));
        }
        let records = data
            .into_iter()
            .map(|data| Record::from_rdata(owner.clone(), ttl, data))
            .collect();
        sets.push(Set { kind, records });
        Ok(())
    }

    /// `name` must be in this zone.
    pub fn find(&self, name: &LowerName, kind: Type) -> Found<'_> {
        let Some(sets) = self.names.get(name) else {
            return Found::NoName;
        };
        // ANY gets one set, which is enough for who still asks for it (RFC 8482 section 4.1).
        let exact = sets
            .iter()
            .find(|set| set.kind == kind || kind == Type::ANY);
        if let Some(set) = exact {
            return Found::Set(set);
        }
        match sets.first() {
            Some(
                set @ Set {
                    kind: Type::CNAME, ..
                },
            ) => match &set.records[0].data {
                RData::CNAME(target) => Found::Cname(set, LowerName::new(target)),
                _ => unreachable!("a set holds one kind of record"),
            },
            _ => Found::NoData,
        }
    }
}

/// Reads a name that is written with or without its final dot.
fn name(text: &str) -> Result<Name, Fault> {
    let wrong = |why: &str| Err(Fault::new(format!("`{text}` is no host name")).because(why));
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.is_empty() {
        return wrong("it is empty");
    }
    if bare.split('.').any(|label| label == "*") {
        return wrong("wildcards are not served");
    }
    if let Some(odd) = bare
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c))
    {
        return wrong(&format!("`{odd}` is not allowed in it"));
    }
    match Name::from_ascii(format!("{bare}.")) {
        Ok(name) => Ok(name),
        Err(error) => wrong(&error.to_string()),
    }
}

fn data_of(kind: RecordType, value: &str) -> Result<RData, Fault> {
    let no = |what: &str| Fault::new(format!("`{value}` is no {what}"));
    Ok(match kind {
        RecordType::A => RData::A(A(value
            .parse::<Ipv4Addr>()
            .map_err(|_| no("IPv4 address"))?)),
        RecordType::Aaaa => RData::AAAA(AAAA(
            value.parse::<Ipv6Addr>().map_err(|_| no("IPv6 address"))?,
        )),
        RecordType::Cname => RData::CNAME(CNAME(name(value)?)),
        // RFC 1035 section 3.3.14: strings of at most 255 bytes; a reader puts them together again.
        RecordType::Txt if value.is_empty() => RData::TXT(TXT::from_bytes(vec![b""])),
        RecordType::Txt => RData::TXT(TXT::from_bytes(value.as_bytes().chunks(255).collect())),
    })
}

/// An upper bound of a record's size in a message, its owner's name written as a pointer.
fn data_bytes(data: &RData) -> usize {
    12 + match data {
        RData::TXT(text) => text.txt_data.iter().map(|part| part.len() + 1).sum(),
        RData::AAAA(_) => 16,
        RData::A(_) => 4,
        _ => 255,
    }
}
