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
pub mod world; // every port, the clock and the stack, built once per command
pub mod run; // Plan -> Journal

#[path = "stubs/agent.rs"]
pub mod agent; // STUB(lead)
#[path = "stubs/image.rs"]
pub mod image; // STUB(lead)
#[path = "stubs/serve.rs"]
pub mod serve; // STUB(lead)

pub mod sim; // the simulated world: every port in memory, with scripted faults

pub mod ui; // the only place that writes to a terminal
pub mod cmd; // one file a subcommand
pub mod cli; // the command line as types, and one match
#[path = "stubs/demo.rs"]
pub mod demo; // STUB(lead)
