//! The real binary on the local cloud: real PostgreSQL, real HAProxy, real DNS. What is judged is the world.
//!
//! These start dozens of processes each, so they take turns.

mod aside;
mod asked;
mod balancer;
mod cache;
mod cron;
mod dead;
mod deploy;
mod files;
mod heal;
mod image;
mod lab;
mod secrets;
mod story;
mod within;
