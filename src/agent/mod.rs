use serde::{Deserialize,Serialize};
use crate::model::id::*; use crate::model::stack::*; use crate::model::units::Span; use crate::shell::Host; use std::net::IpAddr;
#[derive(Clone,Debug,Serialize,Deserialize)] pub struct Peer{pub node:ServerName,pub site:SiteName,pub address:IpAddr,pub port:u16}
#[derive(Clone,Debug,Serialize,Deserialize)] pub struct AgentConfig{pub service:String,pub database:Database,pub peers:Vec<IpAddr>,pub arbiter:String,pub self_fence:SelfFence,pub every:Span,pub others:Vec<Peer>,pub host:Host}
