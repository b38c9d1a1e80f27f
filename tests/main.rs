//! The real binary, from outside: arguments in, output and exit code out.

mod cli;
mod harness;
mod real;
