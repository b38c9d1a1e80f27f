//! One packet in, one packet out: a pure function of a snapshot. Sockets are in `mod.rs`.
//!
//! It answers queries of class IN for the zones it has, with authority, and nothing else: no recursion, no
//! transfers, no updates. An answer comes from one snapshot, so it is wholly of one generation.

use hickory_proto::ProtoError;
use hickory_proto::op::{
    DEFAULT_MAX_PAYLOAD_LEN, Edns, Header, Message, MessageType, Metadata, OpCode, Query,
    ResponseCode, emit_message_parts,
};
use hickory_proto::rr::{DNSClass, LowerName, Record, RecordType as Type};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncoder};

use super::snapshot::{Found, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A longer chain of CNAMEs is left to the resolver to follow.
const CHAIN_MAX: usize = 16;
/// RFC 1035 section 4.2.1: what every UDP client takes.
const UDP_MIN: u16 = 512;

/// What a request asks for, as far as it could be read.
struct Asked {
    metadata: Metadata,
    query: Option<Query>,
    edns: Option<Edns>,
    /// It was read to its last byte, and no byte is left over.
    whole: bool,
}

#[derive(Default)]
struct Answer<'a> {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<&'a Record>,
    soa: Option<&'a Record>,
}

/// Writes the reply to `packet` into `out`. False: no reply is due (too short to have an id, or a response itself,
/// which must not be answered or two servers could talk for ever).
pub fn answer(snapshot: &Snapshot, packet: &[u8], over: Transport, out: &mut Vec<u8>) -> bool {
    let mut decoder = BinDecoder::new(packet);
    let Ok(header) = Header::read(&mut decoder) else {
        return false;
    };
    if header.message_type == MessageType::Response {
        return false;
    }
    let asked = read(&mut decoder, header);
    let answer = decide(snapshot, &asked);
    encode(&asked, &answer, over, out).is_ok()
}

/// Reads as far as it goes.
fn read(decoder: &mut BinDecoder<'_>, header: Header) -> Asked {
    let mut asked = Asked {
        metadata: header.metadata,
        query: None,
        edns: None,
        whole: false,
    };
    // Exactly one question (RFC 9619).
    if header.counts.queries == 1 {
        asked.query = Query::read(decoder).ok();
    }
    // Other operations are not for us to parse any further.
    if header.op_code != OpCode::Query || asked.query.is_none() {
        return asked;
    }
    for (count, is_additional) in [
        (header.counts.answers, false),
        (header.counts.authorities, false),
        (header.counts.additionals, true),
    ] {
        match Message::read_records(decoder, count.into(), is_additional, header.op_code) {
            Ok((_, edns, _)) => asked.edns = edns,
            Err(_) => return asked,
        }
    }
    asked.whole = decoder.is_empty();
    asked
}

fn decide<'a>(snapshot: &'a Snapshot, asked: &Asked) -> Answer<'a> {
    if asked.metadata.op_code != OpCode::Query {
        return Answer::code(ResponseCode::NotImp);
    }
    let Some(query) = asked.query.as_ref().filter(|_| asked.whole) else {
        return Answer::code(ResponseCode::FormErr);
    };
    if asked.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Answer::code(ResponseCode::BADVERS);
    }
    if query.query_class() != DNSClass::IN {
        return Answer::code(ResponseCode::Refused);
    }
    match u16::from(query.query_type()) {
        // IXFR and AXFR.
        251 | 252 => Answer::code(ResponseCode::Refused),
        // The other meta types of RFC 6895 section 3.1 (255 is ANY), and OPT.
        41 | 128..=254 => Answer::code(ResponseCode::NotImp),
        _ => look_up(snapshot, LowerName::new(query.name()), query.query_type()),
    }
}

/// RFC 1034 section 4.3.2, without delegations. The code is that of the last name in a chain (RFC 6604 section 3).
fn look_up(snapshot: &Snapshot, mut name: LowerName, kind: Type) -> Answer<'_> {
    let Some(mut zone) = snapshot.zone_of(&name) else {
        return Answer::code(ResponseCode::Refused);
    };
    let mut answer = Answer {
        authoritative: true,
        ..Answer::default()
    };
    let mut seen: Vec<LowerName> = Vec::new();
    loop {
        match zone.find(&name, kind) {
            Found::Set(set) => answer.answers.extend(&set.records),
            Found::Cname(set, target) => {
                answer.answers.extend(&set.records);
                seen.push(name);
                let ends = seen.len() >= CHAIN_MAX || seen.contains(&target);
                if let Some(next) = snapshot.zone_of(&target).filter(|_| !ends) {
                    (zone, name) = (next, target);
                    continue;
                }
            }
            Found::NoData => answer.soa = Some(&zone.negative_soa),
            Found::NoName => {
                answer.code = ResponseCode::NXDomain;
                answer.soa = Some(&zone.negative_soa);
            }
        }
        return answer;
    }
}

impl Answer<'_> {
    fn code(code: ResponseCode) -> Self {
        Answer {
            code,
            ..Answer::default()
        }
    }
}

/// Whole, or truncated to nothing but the question: a part of an answer is of no use to anybody, and the OPT record
/// must be there either way (RFC 6891 section 7).
fn encode(
    asked: &Asked,
    answer: &Answer<'_>,
    over: Transport,
    out: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    let edns = asked.edns.as_ref().map(|theirs| {
        let mut ours = Edns::new();
        ours.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
        ours.set_dnssec_ok(theirs.flags().dnssec_ok);
        ours
    });
    // Never larger than what passes unfragmented, whatever the client could take (the 2020 flag day's 1,232).
    let limit = match (over, &asked.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_MIN,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_MIN, DEFAULT_MAX_PAYLOAD_LEN),
    };
    let mut metadata = Metadata::response_from_request(&asked.metadata);
    metadata.response_code = answer.code;
    metadata.authoritative = answer.authoritative;
    let mut write = |metadata: &Metadata, answers: &[&Record], soa: Option<&Record>| {
        out.clear();
        let mut encoder = BinEncoder::new(out);
        encoder.set_max_size(limit);
        emit_message_parts(
            metadata,
            &mut asked.query.iter(),
            &mut answers.iter().copied(),
            &mut soa.into_iter(),
            &mut std::iter::empty::<&Record>(),
            edns.as_ref(),
            None,
            &mut encoder,
        )
    };
    if write(&metadata, &answer.answers, answer.soa)?.truncation {
        metadata.truncation = true;
        write(&metadata, &[], None)?;
    }
    Ok(())
}

/// For `fuzz`: any reply is a message, to this question, and no longer than its way allows.
#[cfg(test)]
pub(crate) fn hostile(snapshot: &Snapshot, packet: &[u8]) {
    for (over, most) in [
        (Transport::Udp, DEFAULT_MAX_PAYLOAD_LEN),
        (Transport::Tcp, u16::MAX),
    ] {
        let mut out = Vec::new();
        if answer(snapshot, packet, over, &mut out) {
            assert!(
                out.len() <= usize::from(most),
                "{} bytes over {over:?}",
                out.len()
            );
            let reply = Message::from_vec(&out).expect("a reply can be read");
            assert_eq!(reply.metadata.message_type, MessageType::Response);
            assert_eq!(reply.metadata.id.to_be_bytes(), packet[..2]);
        }
    }
}
