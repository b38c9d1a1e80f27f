//! hafog: multi-cloud standby stacks. The modules in reading order.

pub mod clock; // time as a port
pub mod error; // Fault and Trouble: what went wrong, and what that means for the world
pub mod exit; // documented exit codes

pub mod durable; // files that survive a crash and a second writer
pub mod model; // nouns without I/O: Stack, Roles, RecordSet, names, units
pub mod probe; // eyes: http, tcp and dns from outside

pub mod cloud; // who runs the machines
pub mod shell; // a server seen through a shell: commands, files, services
pub mod state; // state stores: journals and small documents
