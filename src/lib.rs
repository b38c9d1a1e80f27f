//! hafog: multi-cloud standby stacks. The modules in reading order.

// Small things that everybody uses: what went wrong and what that means for the world, the documented exit codes,
// time as a port, waiting with a limit, files that survive a crash, where this program is, control sockets, a client
// for the APIs of providers.
pub mod clock;
pub mod control;
pub mod durable;
pub mod error;
pub mod exit;
pub mod http;
pub mod program;
pub mod wait;

// Debug builds only: the process ends at an exact line of its journal.
#[cfg(debug_assertions)]
pub mod cut;

// Nouns without I/O, and hafog.yaml -> Spec -> Stack with every mistake at its place.
pub mod model;
pub mod spec;

// Ports: clouds, database engines, DNS hosts with the TTL clock, eyes from outside, a server seen through a shell,
// stores of journals and small documents.
pub mod cloud;
pub mod db;
pub mod dns;
pub mod probe;
pub mod shell;
pub mod state;

// Recipes and templates; the authoritative DNS server.
pub mod image;
pub mod serve;

// The road: every port together (`world`), World -> Facts (`observe`), Stack + Facts -> Plan (`plan`, pure), what each
// action does (`step`), what was begun and done (`journal`), Plan -> Journal under a lease (`run`).
pub mod journal;
pub mod observe;
pub mod plan;
pub mod run;
pub mod step;
pub mod world;

// The loop on a database server: beats, renews, opens and fences.
pub mod agent;

// The loop on an application server: copies the files that follow the primary site.
pub mod files;

// The simulated world: every port in memory, with scripted faults.
pub mod sim;

// The command line as types, one file a subcommand, and the only place that writes to a terminal.
pub mod cli;
pub mod cmd;
pub mod ui;

// The whole story on this machine.
pub mod demo;

// Hostile bytes against every reader.
#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
