//! hafog: multi-cloud standby stacks. The modules in reading order.

pub mod clock;
pub mod error; // Fault and Trouble: what went wrong, and what that means for the world
pub mod exit; // documented exit codes // time as a port

pub mod durable; // files that survive a crash and a second writer
pub mod model; // nouns without I/O: Stack, Roles, RecordSet, names, units
pub mod spec; // hafog.yaml -> Spec -> Stack, every mistake with its place

pub mod cloud; // clouds: servers and images
pub mod db; // database engines
pub mod dns;
pub mod probe; // eyes: http, tcp and dns from outside
pub mod shell; // a server seen through a shell: commands, files, services
pub mod state; // state stores: journals and small documents // DNS hosts, and the TTL clock

pub mod image; // recipes and templates
pub mod serve; // the authoritative DNS server

pub mod agent;
pub mod observe; // World -> Facts
pub mod plan; // Stack + Facts -> Plan, pure
pub mod run; // Plan -> Journal, with lease and sessions
pub mod step; // what each action does: check, act, undo
pub mod world; // every port together, built once per command // the loop on a database server: beats, renews, opens and fences

pub mod sim; // the simulated world: every port in memory, with scripted faults

pub mod cli;
pub mod cmd; // one file a subcommand
pub mod ui; // the only place that writes to a terminal // the command line as types, and one match

pub mod demo; // the whole story on this machine

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz; // hostile bytes against every reader
