//! `hafog dns`: the names of the stack, their TTLs, and when the last cache has moved.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::drive::{Change, Job, drive};
use super::interrupt::Interrupts;
use super::{Call, Ended, look};
use crate::dns::ttl::effective_at;
use crate::error::Fault;
use crate::exit;
use crate::model::id::*;
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::TtlLease;
use crate::model::stack::Stack;
use crate::model::units::{Span, human};
use crate::plan;
use crate::plan::facts::{Facts, Seen};
use crate::serve::{self, ServeOptions};
use crate::ui::table::Table;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Show what is published, and what the DNS hosts serve
    Show,
    /// Lower the TTLs ahead of a planned move
    Lower {
        /// For how long; `hafog status` complains when it is over
        #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = Span::parse)]
        window: Span,
        /// Wait until the old TTLs have run out
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Bring the normal TTLs back
    Restore {
        #[command(flatten)]
        change: Change,
    },
    /// Show the instant after which no honest cache can hold an old answer
    Clock,
    /// Serve zones: the name server that moves at once
    Serve {
        /// Where the zones are kept; one server a folder
        #[arg(long, value_name = "FOLDER")]
        folder: PathBuf,
        /// Where to listen, UDP and TCP; may be repeated
        #[arg(long, value_name = "ADDRESS:PORT", required = true)]
        listen: Vec<SocketAddr>,
    },
}

pub async fn run(call: &Call, verb: &Verb) -> Ended {
    match verb {
        Verb::Show => show(call).await,
        Verb::Clock => clock(call).await,
        Verb::Serve { folder, listen } => serve(call, folder, listen).await,
        Verb::Lower {
            window,
            wait,
            change,
        } => {
            let (window, wait) = (*window, *wait);
            let planner = move |stack: &Stack, facts: &Facts| {
                Ok(plan::ttl::lower(stack, facts, window, wait))
            };
            drive(call, change, Job::new("dns lower", Box::new(planner))).await
        }
        Verb::Restore { change } => {
            let planner = |stack: &Stack, facts: &Facts| Ok(plan::ttl::restore(stack, facts));
            drive(call, change, Job::new("dns restore", Box::new(planner))).await
        }
    }
}

async fn serve(call: &Call, folder: &PathBuf, listen: &[SocketAddr]) -> Ended {
    let folder = std::path::absolute(folder).map_err(|error| {
        Fault::new(format!("cannot find `{}`", folder.display())).because(error)
    })?;
    let interrupts = Interrupts::listen(&call.ui);
    let options = ServeOptions {
        folder,
        listen: listen.to_vec(),
    };
    serve::run(options, interrupts.asked()).await?;
    Ok(exit::DONE)
}

#[derive(Serialize)]
struct Shown {
    host: HostName,
    target: HostName,
    zone: ZoneName,
    dns_host: String,
    /// Whether the zone is served.
    open: Seen<bool>,
    published: Option<RecordSet>,
    served: Option<RecordSet>,
    /// The CNAME by which users come to the target.
    published_alias: Option<RecordSet>,
    served_alias: Option<RecordSet>,
    ttl_lease: Option<TtlLease>,
}

async fn show(call: &Call) -> Ended {
    let session = look::session(call, "dns show").await?;
    let shown = shown(&session.world.stack, &session.facts);
    call.ui.result(&shown, || show_text(&shown));
    look::done(session, exit::DONE).await
}

fn shown(stack: &Stack, facts: &Facts) -> Vec<Shown> {
    let one = |name: &crate::model::stack::Name| {
        let zone = facts.zones.get(&name.zone);
        let served = zone.and_then(|zone| zone.record(&name.target, RecordType::A));
        Shown {
            host: name.host.clone(),
            target: name.target.clone(),
            zone: name.zone.clone(),
            dns_host: stack
                .zone(&name.zone)
                .map(|zone| zone.host.clone())
                .unwrap_or_default(),
            open: zone.map_or(Seen::Unknown("nobody looked".to_owned()), |zone| {
                zone.open.clone()
            }),
            published: facts
                .published
                .current(&name.target, RecordType::A)
                .cloned(),
            served: served.cloned(),
            published_alias: facts
                .published
                .current(&name.host, RecordType::Cname)
                .cloned(),
            served_alias: zone
                .and_then(|zone| zone.record(&name.host, RecordType::Cname))
                .cloned(),
            ttl_lease: facts.published.ttl_leases.get(&name.target).cloned(),
        }
    };
    stack.names.iter().map(one).collect()
}

fn show_text(shown: &[Shown]) -> String {
    let mut text = String::new();
    for name in shown {
        text.push_str(&format!(
            "{} (zone {} on {})\n",
            name.host, name.zone, name.dns_host
        ));
        let mut table = Table::plain();
        let mut row = |what: &str, said: String| table.row([what.to_owned(), said]);
        if name.host != name.target {
            let is_open = name.open == Seen::Known(true);
            let target = &name.target;
            row(
                "leads to",
                match &name.served_alias {
                    Some(served) if is_open && name.served_alias != name.published_alias => {
                        format!("{target}, but `{served}` is served")
                    }
                    None if is_open && name.published_alias.is_some() => {
                        format!("{target}, but no CNAME is served")
                    }
                    _ => target.to_string(),
                },
            );
        }
        let set = |set: &Option<RecordSet>| {
            set.as_ref()
                .map_or("nothing".to_owned(), RecordSet::to_string)
        };
        row("published", set(&name.published));
        row(
            "served",
            match &name.open {
                Seen::Known(true) => set(&name.served),
                Seen::Known(false) => "the zone is not served".to_owned(),
                Seen::Unknown(why) => format!("unknown: {}", crate::ui::snippet::clean(why)),
            },
        );
        if let Some(lease) = &name.ttl_lease {
            row(
                "ttl lease",
                format!(
                    "{} instead of {}, until {:.0}",
                    lease.lowered, lease.normal, lease.until
                ),
            );
        }
        text.push_str(&table.render("  "));
    }
    if text.is_empty() {
        "the stack publishes no names\n".to_owned()
    } else {
        text
    }
}

#[derive(Serialize)]
struct Tick {
    host: HostName,
    target: HostName,
    /// `None`: nothing was ever superseded.
    effective_at: Option<Timestamp>,
    seconds_left: f64,
}

async fn clock(call: &Call) -> Ended {
    let session = look::session(call, "dns clock").await?;
    let facts = &session.facts;
    let tick = |name: &crate::model::stack::Name| {
        // The whole chain: the CNAME that people ask for, and the addresses that it leads to.
        let at = effective_at(
            &facts.published,
            &name.host,
            RecordType::A,
            crate::dns::CACHING,
        );
        Tick {
            host: name.host.clone(),
            target: name.target.clone(),
            effective_at: at,
            seconds_left: at.map_or(0.0, |at| at.duration_since(facts.at).as_secs_f64().max(0.0)),
        }
    };
    let ticks: Vec<Tick> = session.world.stack.names.iter().map(tick).collect();
    call.ui.result(&ticks, || clock_text(&ticks));
    look::done(session, exit::DONE).await
}

fn clock_text(ticks: &[Tick]) -> String {
    let mut table = Table::plain();
    for tick in ticks {
        let left = Duration::from_secs_f64(tick.seconds_left);
        let said = match tick.effective_at {
            None => "nothing was superseded".to_owned(),
            Some(at) if left.is_zero() => format!("every cache has moved since {at:.0}"),
            Some(at) => format!("every cache has moved at {at:.0}, in {}", human(left)),
        };
        table.row([tick.host.to_string(), said]);
    }
    if table.is_empty() {
        "the stack publishes no names\n".to_owned()
    } else {
        table.render("")
    }
}
