//! hafog: multi-cloud standby stacks. The modules in reading order.

pub mod error; // Fault and Trouble: what went wrong, and what that means for the world
pub mod exit; // documented exit codes
pub mod clock; // time as a port

pub mod model; // nouns without I/O: Stack, Roles, RecordSet, names, units
pub mod spec; // hafog.yaml -> Spec -> Stack, every mistake with its place

pub mod shell; // a server seen through a shell: commands, files, services
pub mod state; // state stores: journals and small documents
pub mod probe; // eyes: http, tcp and dns from outside
pub mod cloud; // clouds: servers and images
pub mod db; // database engines
pub mod dns; // DNS hosts, and the TTL clock

pub mod plan; // Stack + Facts -> Plan, pure
pub mod run; // Plan -> Journal
pub mod agent; // the loop on a database server: beats, renews, opens and fences

pub mod ui; // the only place that writes to a terminal
