//! Templates: embedded when hafog is built, rendered with an error for anything undefined.

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::error::Fault;

/// HAProxy's configuration for a stack's balancer.
pub const HAPROXY: (&str, &str) = (
    "haproxy.cfg",
    include_str!("../../templates/haproxy/haproxy.cfg"),
);

/// Varnish's, for a stack's cache.
pub const VARNISH: (&str, &str) = (
    "cache.vcl",
    include_str!("../../templates/varnish/cache.vcl"),
);

pub fn render(template: (&str, &str), with: impl Serialize) -> Result<String, Fault> {
    let fault = |error: minijinja::Error| {
        Fault::new(format!("cannot render `{}`", template.0)).because(error)
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
        .add_template(template.0, template.1)
        .map_err(fault)?;
    // The engine drops the last line break, which HAProxy wants.
    environment
        .get_template(template.0)
        .and_then(|found| found.render(minijinja::value::Serde(&with)))
        .map(|text| format!("{}\n", text.trim_end()))
        .map_err(fault)
}
