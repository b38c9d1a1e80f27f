//! One question to one name server: UDP, and TCP when the answer was truncated.
//!
//! Answers are taken only from the address that was asked, to the port that asked, with the random id and the same
//! question (RFC 5452). It asks for no recursion: the servers are authorities.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType as Type};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Fault;
use crate::model::id::HostName;
use crate::model::record::{RecordSet, RecordType};
use crate::model::units::Ttl;

use super::canonical::canonical_host;

/// What one name server said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// `NOERROR`, `NXDOMAIN`, `REFUSED`, …
    pub code: String,
    pub authoritative: bool,
    /// The answer section in order, as record sets: a CNAME before what it leads to.
    pub sets: Vec<RecordSet>,
    /// How long a negative answer may be cached (RFC 2308 section 5).
    pub negative_ttl: Option<Ttl>,
}

/// A datagram that is lost is sent again, as resolvers do, within the limit.
const SENDS: u32 = 3;

/// Returns what `server` says about `host`, whatever its code; no usable answer within `limit` is a fault.
pub async fn ask(
    server: SocketAddr,
    host: &HostName,
    kind: RecordType,
    limit: Duration,
) -> Result<DnsAnswer, Fault> {
    let fault = |why: &dyn std::fmt::Display| {
        Fault::unavailable(format!("no answer from `{server}` for `{host} {kind}`")).because(why)
    };
    let question = question(host, kind).map_err(|why| fault(&why))?;
    let packet = question.to_vec().map_err(|error| fault(&error))?;
    let deadline = Instant::now() + limit;
    let late = || fault(&format!("nothing within {} s", limit.as_secs_f64()));

    let told = timeout_at(
        deadline,
        over_udp(server, &question, &packet, limit / SENDS),
    )
    .await
    .map_err(|_| late())?
    .map_err(|error| fault(&error))?;
    let told = if told.metadata.truncation {
        timeout_at(deadline, over_tcp(server, &question, &packet))
            .await
            .map_err(|_| late())?
            .map_err(|error| fault(&error))?
    } else {
        told
    };
    Ok(read(&told))
}

fn question(host: &HostName, kind: RecordType) -> Result<Message, String> {
    let name = host.as_str().trim_end_matches('.');
    let name = Name::from_ascii(format!("{name}."))
        .map_err(|error| format!("`{host}` is no host name: {error}"))?;
    let kind = match kind {
        RecordType::A => Type::A,
        RecordType::Aaaa => Type::AAAA,
        RecordType::Cname => Type::CNAME,
        RecordType::Txt => Type::TXT,
    };
    // `Message::query` draws the id at random.
    let mut message = Message::query();
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
    message.set_edns(edns);
    Ok(message)
}

/// Sends up to [`SENDS`] times and waits for the last answer without end: the caller has the deadline.
async fn over_udp(
    server: SocketAddr,
    question: &Message,
    packet: &[u8],
    again: Duration,
) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // The kernel picks the port; connected, it drops what others send to it.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut sent = 0;
    loop {
        if sent < SENDS {
            socket.send(packet).await?;
            sent += 1;
        }
        if let Ok(answer) = timeout(again, receive(&socket, question)).await {
            return answer;
        }
    }
}

async fn receive(socket: &UdpSocket, question: &Message) -> io::Result<Message> {
    let mut packet = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut packet).await?;
        // What does not fit is somebody else's guess, or garbage: the real answer may still come.
        if let Some(answer) = fitting(&packet[..length], question) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, packet: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    fitting(&answer, question)
        .ok_or_else(|| io::Error::other("the answer over TCP is to another question"))
}

fn fitting(packet: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(packet).ok()?;
    let ours = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == question.metadata.op_code;
    // A server that could not read the question cannot repeat it.
    let unread =
        answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError;
    (ours && (unread || answer.queries == question.queries)).then_some(answer)
}

fn read(message: &Message) -> DnsAnswer {
    let mut sets: Vec<RecordSet> = Vec::new();
    for record in &message.answers {
        let Some((kind, value)) = value(record) else {
            continue;
        };
        let host = canonical_host(&HostName::new(record.name.to_ascii()));
        match sets
            .iter_mut()
            .find(|set| set.host == host && set.kind == kind)
        {
            Some(set) => {
                // Different TTLs within a set are an error of the server's; the smallest is the careful reading
                // (RFC 2181 section 5.2).
                set.ttl = set.ttl.min(Ttl(record.ttl));
                set.values.insert(value);
            }
            None => sets.push(RecordSet {
                host,
                kind,
                ttl: Ttl(record.ttl),
                values: [value].into(),
            }),
        }
    }
    let negative_ttl = message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(Ttl(record.ttl.min(soa.minimum))),
            _ => None,
        });
    DnsAnswer {
        code: code_name(message.metadata.response_code),
        authoritative: message.metadata.authoritative,
        sets,
        negative_ttl,
    }
}

fn value(record: &Record) -> Option<(RecordType, String)> {
    Some(match &record.data {
        RData::A(address) => (RecordType::A, address.0.to_string()),
        RData::AAAA(address) => (RecordType::Aaaa, address.0.to_string()),
        RData::CNAME(target) => (
            RecordType::Cname,
            canonical_host(&HostName::new(target.0.to_ascii())).to_string(),
        ),
        RData::TXT(text) => (
            RecordType::Txt,
            String::from_utf8_lossy(&text.txt_data.concat()).into_owned(),
        ),
        _ => return None,
    })
}

/// As `dig` writes it.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

/// How an answer leads from a name to its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain<'a> {
    /// The CNAMEs on the way, in order.
    pub links: Vec<&'a RecordSet>,
    /// Where the way ends.
    pub last: HostName,
    /// What is there, if the answer says.
    pub set: Option<&'a RecordSet>,
}

/// Follows `host` through the record sets of an answer.
pub fn chain<'a>(answer: &'a DnsAnswer, host: &HostName, kind: RecordType) -> Chain<'a> {
    let find = |host: &HostName, kind| {
        answer
            .sets
            .iter()
            .find(|set| &set.host == host && set.kind == kind)
    };
    let mut links: Vec<&RecordSet> = Vec::new();
    let mut last = canonical_host(host);
    loop {
        let set = find(&last, kind);
        let link = find(&last, RecordType::Cname).filter(|link| !links.contains(link));
        match (
            set,
            link.and_then(|link| Some((link, link.values.first()?))),
        ) {
            (None, Some((link, target))) => {
                last = HostName::new(target.as_str());
                links.push(link);
            }
            _ => return Chain { links, last, set },
        }
    }
}

/// For `fuzz`: a reply to `www.shop.test A`, whatever its id.
#[cfg(test)]
pub(crate) fn hostile(packet: &[u8]) {
    let host = HostName::new("www.shop.test");
    let question = question(&host, RecordType::A).expect("a good name");
    let mut packet = packet.to_vec();
    if let Some(id) = packet.get_mut(..2) {
        id.copy_from_slice(&question.metadata.id.to_be_bytes());
    }
    let Some(message) = fitting(&packet, &question) else {
        return;
    };
    let answer = read(&message);
    for host in answer.sets.iter().map(|set| &set.host).chain([&host]) {
        let chain = chain(&answer, host, RecordType::A);
        assert!(chain.links.len() <= answer.sets.len());
    }
}
