//! For every plan and every change that it makes: cut before, during and after it, in the simulated world; then type
//! the command again. The world must end as in the uncut run, or as before it, and nobody may ever have seen two
//! writers. A move is also taken up by somebody who turns back, or fails in his turn.

#[path = "../harness/simulated.rs"]
mod simulated;

mod back;
mod builders;
mod copied;
mod elsewhere;
mod names;
mod silence;
mod stories;
mod table;
mod verbs;
mod waited;

use std::sync::Arc;
use std::time::Duration;

use hafog::cloud::{Cloud, Power};
use hafog::db::keys::Keys;
use hafog::journal::Silent;
use hafog::model::stack::Stack;
use hafog::plan;
use hafog::run::open::{self, OpenOptions};
use hafog::run::runner::{End, Stop};
use hafog::sim::SimWorld;
use simulated::open_world;
use verbs::*;

/// How one command ended.
#[derive(Debug)]
enum Ended {
    Done,
    /// Done, and these commands do what was left.
    But(Vec<String>),
    Not(String),
}

/// What a command that changes something opens with.
fn options(verb: &Verb, lock_timeout: Duration) -> OpenOptions {
    OpenOptions {
        assume_down: assumed(verb),
        lock_timeout,
        reason: None,
        verb: verb.name.to_owned(),
        take_lease: true,
    }
}

/// Types the verb: what `cmd::drive` does, without a terminal.
async fn command(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>, verb: &Verb) -> Ended {
    let world = open_world(sim, stack, keys);
    let options = options(verb, Duration::from_secs(60));
    let mut session = match open::open(world, &options).await {
        Ok(session) => session,
        Err(fault) => return Ended::Not(fault.to_string()),
    };
    if verb.name.contains("heal") || verb.name == "scale" {
        session.examine().await;
    }
    let stop = Stop::default();
    let listener = Arc::new(Silent);
    let unfinished = match session.unfinished().await {
        Ok(unfinished) => unfinished,
        Err(fault) => return Ended::Not(fault.to_string()),
    };
    let plan = (verb.plan)(stack, &session.facts);
    let end = match unfinished {
        Some(run) if plan.kind == plan::PlanKind::Directional => session
            .resume(&run, listener, &stop, 4)
            .await
            .map(|(_, end)| end),
        _ => {
            let refusals: Vec<&str> = plan
                .refusals
                .iter()
                .map(|refusal| refusal.name.as_str())
                .collect();
            if !refusals.is_empty() {
                let _ = session.close().await;
                return Ended::Not(format!("refused: {refusals:?}"));
            }
            Ok(session.execute(&plan, &[], listener, &stop, 4).await.1)
        }
    };
    let ended = match end {
        Ok(End::Done) => Ended::Done,
        Ok(End::DoneBut(left)) => Ended::But(left.into_iter().map(|left| left.mend).collect()),
        Ok(end) => Ended::Not(format!("{end:?}")),
        Err(fault) => Ended::Not(fault.to_string()),
    };
    let _ = session.close().await;
    ended
}

async fn happen(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>, what: &str) {
    match what {
        // It is in the stack that the last command is given.
        NEW_RELEASE | MORE_SERVICES | FEWER => {}
        LEASED => lease(sim, stack, 20),
        "(east dies)" => {
            sim.advance(Duration::from_secs(5));
            let cloud = sim.cloud(&east());
            for server in stack.servers_at(&east()) {
                cloud
                    .power(&server.name, Power::Off)
                    .await
                    .expect("the power goes off");
            }
        }
        "(a web server and a balancer die)" => {
            for (site, server) in [
                (east(), "shop-east-web-1"),
                (west(), "shop-west-balancer-1"),
            ] {
                let cloud = sim.cloud(&site);
                let name = server.into();
                let dies = cloud.power(&name, Power::Off);
                dies.await.expect("the power goes off");
            }
        }
        PRIMARY_DIES => {
            sim.advance(Duration::from_secs(5));
            let cloud = sim.cloud(&east());
            let primary = "shop-east-db-1".into();
            let dies = cloud.power(&primary, Power::Off);
            dies.await.expect("the power goes off");
        }
        REPLICAS_DIE => {
            let (east, west) = (sim.cloud(&east()), sim.cloud(&west()));
            let gone = "shop-east-db-2".into();
            east.delete_server(&gone).await.expect("it is removed");
            let off = "shop-west-db-1".into();
            let dies = west.power(&off, Power::Off);
            dies.await.expect("the power goes off");
        }
        "(east returns)" => {
            let cloud = sim.cloud(&east());
            for server in stack.servers_at(&east()) {
                cloud
                    .power(&server.name, Power::On)
                    .await
                    .expect("the power comes back");
            }
            sim.advance(Duration::from_secs(5));
        }
        name => match command(sim, stack, keys, verb(name)).await {
            Ended::Done => {}
            ended => panic!("`{name}` of the prologue: {ended:?}"),
        },
    }
}

async fn starting_world(stack: &Arc<Stack>, keys: &Arc<Keys>, verb: &Verb) -> SimWorld {
    let sim = SimWorld::new("2026-11-21T03:00:00Z".parse().expect("a time"), stack);
    sim.set_beats_alone(true);
    for what in verb.before {
        happen(&sim, stack, keys, what).await;
    }
    sim
}
