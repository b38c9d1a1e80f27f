//! hafog: multi-cloud standby stacks. The modules in reading order.

pub mod clock;
pub mod error; // Fault and Trouble: what went wrong, and what that means for the world
pub mod exit; // documented exit codes // time as a port

pub mod model; // nouns without I/O: Stack, Roles, RecordSet, names, units
pub mod probe; // eyes: http, tcp and dns from outside

pub mod shell; // a server seen through a shell: commands, files, services
pub mod state; // state stores: journals and small documents

pub mod dns; // DNS hosts, questions to name servers, the TTL clock
pub mod serve; // hafog's own authoritative name server
