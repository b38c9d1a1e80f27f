//! A simulated database engine.
//!
//! It goes straight to the simulated machines and not through the `Reach`, so that a call of an engine is one call in
//! the books. A call on two nodes is booked at both sites, and fails when one of them does not answer.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::SimWorld;
use super::call::{Call, Part};
use super::node::{Data, Mode, SimNode, Upstream, position, read_position};
use super::world::{SimServer, World};
use crate::db::{
    Certificate, Contents, Divergence, Engine, Follower, Heartbeat, Link, Node, NodeRole,
    NodeStatus, Position, Reach, Rejoined, Still, Verified,
};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{DatabaseName, ServerName};
use crate::shell::{Service, StopSignal};

pub struct SimEngine {
    world: SimWorld,
    name: String,
}

impl SimEngine {
    pub(super) fn new(world: SimWorld, name: String) -> SimEngine {
        SimEngine { world, name }
    }

    fn service(&self, node: &Node) -> String {
        format!("{}-{}", self.name, node.database.name)
    }
}

fn call(name: &'static str, node: &Node) -> Call {
    let argument = format!("{} {}", node.host.name, node.database.name);
    Call::new(name, argument).at(&node.host.site)
}

/// `first` is the node that the verb is about.
fn call_on_two(name: &'static str, first: &Node, second: &Node) -> Call {
    let (one, other) = (&first.host.name, &second.host.name);
    Call::new(name, format!("{one} {other} {}", first.database.name))
        .at(&first.host.site)
        .at(&second.host.site)
}

#[async_trait]
impl Engine for SimEngine {
    fn service(&self, database: &DatabaseName) -> String {
        format!("postgres-{database}")
    }

    async fn admit(&self, node: &Node, _: &Reach) -> Result<(), Trouble> {
        self.world
            .change(call("engine.admit", node), |world, _| {
                let machine = world.machine(&node.host).nothing_changed()?;
                if let Some(there) = machine.nodes.get_mut(&node.database.name) {
                    there.admit(node);
                }
                Ok(())
            })
            .await
    }

    async fn create(&self, node: &Node, _: Option<&str>, _: &Reach) -> Result<(), Trouble> {
        let call = call("engine.create", node).halves();
        self.world
            .change(call, |world, part| {
                let (system, branch, pid) = (world.next(), world.next(), world.next() as u32);
                let service = self.service(node);
                let machine = world.machine(&node.host).nothing_changed()?;
                machine.install_engine(&service);
                let there = machine
                    .nodes
                    .entry(node.database.name.clone())
                    .or_insert_with(|| {
                        SimNode::fresh(service.clone(), format!("system-{system}"), branch)
                    });
                there.admit(node);
                if part == Part::Half {
                    return Ok(());
                }
                let is_new = there.data == Data::Incomplete;
                there.data = Data::Complete;
                machine.start(&service, pid);
                if is_new {
                    // Its first life is a primary's, on the first timeline.
                    let there = node_on(machine, node).nothing_changed()?;
                    there.mode = Mode::Writable;
                }
                Ok(())
            })
            .await
    }

    async fn has_data(&self, node: &Node, _: &Reach) -> Result<bool, Fault> {
        self.world
            .look(call("engine.has_data", node), |world| {
                let there = world.machine(&node.host)?.nodes.get(&node.database.name);
                Ok(there.is_some_and(|there| there.data == Data::Complete))
            })
            .await
    }

    async fn status(&self, node: &Node, _: &Reach) -> Result<NodeStatus, Fault> {
        self.world
            .look(call("engine.status", node), |world| world.status(node))
            .await
    }

    async fn seed(&self, from: &Node, to: &Node, _: &Reach) -> Result<(), Trouble> {
        let call = call_on_two("engine.seed", to, from).halves();
        self.world
            .change(call, |world, part| {
                let source = world.running(from).nothing_changed()?.clone();
                world.machine(&to.host).nothing_changed()?;
                world.copy(from, &source, to, &self.service(to), part);
                Ok(())
            })
            .await
    }

    /// The simulator counts what was acknowledged itself, and keeps no folders.
    async fn kept(&self, _: &Node, _: &Reach) -> Result<Vec<String>, Fault> {
        Ok(Vec::new())
    }

    async fn follow(&self, replica: &Node, upstream: &Node, _: &Reach) -> Result<(), Trouble> {
        let call = call_on_two("engine.follow", replica, upstream);
        self.world
            .change(call, |world, _| {
                let above = world.running(upstream).nothing_changed()?.clone();
                let there = world.complete(replica).nothing_changed()?;
                if there.mode != Mode::Replica {
                    return refused(replica, "is a primary");
                }
                if there
                    .fork_from(&above)
                    .is_none_or(|fork| fork < there.received)
                {
                    let why = format!("has log that `{}` lacks", upstream.host.name);
                    return refused(replica, &why);
                }
                world.set_upstream(replica, upstream);
                Ok(())
            })
            .await
    }

    async fn stop_clean(&self, node: &Node, _: &Reach) -> Result<Position, Trouble> {
        let call = call("engine.stop_clean", node).halves();
        self.world
            .change(call, |world, part| {
                let there = world.complete(node).nothing_changed()?;
                let was_primary = there.mode != Mode::Replica;
                if part == Part::Half && was_primary {
                    there.mode = Mode::Barred;
                }
                if part == Part::Half {
                    return Ok(position(0));
                }
                if was_primary {
                    world.flush(&node.host.name, &node.database.name);
                }
                let machine = world.machine(&node.host).nothing_changed()?;
                machine.stop(&self.service(node));
                Ok(position(node_on(machine, node).nothing_changed()?.replayed))
            })
            .await
    }

    async fn stop_now(&self, node: &Node, _: &Reach) -> Result<(), Trouble> {
        self.world
            .change(call("engine.stop_now", node), |world, _| {
                let machine = world.machine(&node.host).nothing_changed()?;
                machine.stop(&self.service(node));
                Ok(())
            })
            .await
    }

    async fn is_stopped(&self, node: &Node, _: &Reach) -> Result<bool, Fault> {
        self.world
            .look(call("engine.is_stopped", node), |world| {
                let machine = world.machine(&node.host)?;
                Ok(!machine.runs(&self.service(node)))
            })
            .await
    }

    async fn confirm_by(&self, _: &Node, _: &[ServerName], _: &Reach) -> Result<(), Trouble> {
        let fault = Fault::new("agents set this, and they are not simulated");
        Err(Trouble::NothingChanged(fault))
    }

    async fn write_refused(&self, node: &Node, _: &Reach) -> Result<Option<String>, Fault> {
        self.world
            .look(call("engine.write_refused", node), |world| {
                let machine = world.machine(&node.host)?;
                let there = machine.nodes.get(&node.database.name);
                let Some(there) = there.filter(|there| machine.runs(&there.service)) else {
                    return Ok(Some("connection refused".to_owned()));
                };
                Ok(match there.mode {
                    Mode::Writable => None,
                    Mode::Barred => Some("the database does not accept connections".to_owned()),
                    Mode::Replica => Some("cannot write in a read-only transaction".to_owned()),
                })
            })
            .await
    }

    async fn start(&self, node: &Node, _: &Reach) -> Result<(), Trouble> {
        self.world
            .change(call("engine.start", node), |world, _| {
                let pid = world.next() as u32;
                world.complete(node).nothing_changed()?.admit(node);
                let machine = world.machine(&node.host).nothing_changed()?;
                machine.start(&self.service(node), pid);
                Ok(())
            })
            .await
    }

    async fn promote(&self, node: &Node, _: &Reach, still: Still<'_>) -> Result<u32, Trouble> {
        let call = call("engine.promote", node).halves();
        self.world
            .change(call, |world, part| {
                still().nothing_changed()?;
                world.must_be_named(node);
                let (branch, now) = (world.next(), world.now());
                let there = world.running(node).nothing_changed()?;
                there.admit(node);
                match (part, there.mode) {
                    (Part::Half, _) => there.replayed = there.received,
                    (Part::Whole, Mode::Replica) => there.open(branch, now),
                    (Part::Whole, Mode::Barred | Mode::Writable) => there.mode = Mode::Writable,
                }
                Ok(there.timeline)
            })
            .await
    }

    async fn divergence(&self, old: &Node, primary: &Node, _: &Reach) -> Result<Divergence, Fault> {
        self.world
            .look(call_on_two("engine.divergence", old, primary), |world| {
                let current = world.running(primary)?.clone();
                let there = world.complete(old)?.clone();
                let unknown = |why: String| Ok(Divergence::Unknown { why });
                if world.machine(&old.host)?.runs(&there.service) && there.mode != Mode::Replica {
                    return unknown(format!("`{}` is still a primary", old.host.name));
                }
                match there.fork_from(&current) {
                    None => unknown("they never had a common history".to_owned()),
                    Some(fork) if fork >= there.received => Ok(Divergence::None),
                    Some(fork) => Ok(Divergence::Diverged {
                        fork: position(fork),
                        extra: there.received - fork,
                    }),
                }
            })
            .await
    }

    async fn contents(
        &self,
        old: &Node,
        primary: &Node,
        _: &Position,
        _: &Reach,
    ) -> Result<Contents, Fault> {
        let call = call_on_two("engine.contents", old, primary);
        self.world.look(call, |_| Ok(Contents::default())).await
    }

    async fn rejoin(&self, old: &Node, primary: &Node, _: &Reach) -> Result<Rejoined, Trouble> {
        let call = call_on_two("engine.rejoin", old, primary).halves();
        self.world
            .change(call, |world, part| {
                let current = world.running(primary).nothing_changed()?.clone();
                world.machine(&old.host).nothing_changed()?;
                world.rejoin(old, primary, &current, &self.service(old), part)
            })
            .await
    }

    async fn verify(&self, primary: &Node, replica: &Node, _: &Reach) -> Result<Verified, Fault> {
        self.world
            .look(call_on_two("engine.verify", primary, replica), |world| {
                let above = world.running(primary)?.clone();
                let below = world.running(replica)?.clone();
                let at = above.replayed.min(below.replayed);
                let rows = |node: &SimNode| -> Vec<String> {
                    let known = node.log.iter().take_while(|entry| entry.end <= at);
                    known.filter_map(|entry| entry.write.clone()).collect()
                };
                let same = rows(&above) == rows(&below) && !above.corrupt && !below.corrupt;
                Ok(Verified {
                    at: position(at),
                    tables: 1,
                    rows: rows(&above).len() as u64,
                    different: if same {
                        vec![]
                    } else {
                        vec!["writes".to_owned()]
                    },
                    took: Duration::from_millis(10),
                })
            })
            .await
    }

    async fn forget(&self, primary: &Node, replica: &ServerName, _: &Reach) -> Result<(), Trouble> {
        let mut call = call("engine.forget", primary);
        call.argument.push_str(&format!(" {replica}"));
        self.world
            .change(call, |world, _| {
                let there = world.running(primary).nothing_changed()?;
                there.slots.remove(replica);
                Ok(())
            })
            .await
    }

    async fn certificates(&self, _: &Node, _: &Reach) -> Result<Vec<Certificate>, Fault> {
        Ok(Vec::new())
    }

    fn bytes_between(&self, ahead: &Position, behind: &Position) -> Option<i64> {
        let ahead = i64::try_from(read_position(ahead)?).ok()?;
        ahead.checked_sub(i64::try_from(read_position(behind)?).ok()?)
    }

    async fn beat(
        &self,
        node: &Node,
        seq: u64,
        at: Timestamp,
        _: &Reach,
    ) -> Result<(Position, Option<u64>), Fault> {
        let done = self
            .world
            .change(call("engine.beat", node), |world, _| {
                let there = world.running(node).nothing_changed()?;
                if there.mode != Mode::Writable {
                    return refused(node, "refuses to write");
                }
                there.heartbeat = Some(Heartbeat { seq, at });
                Ok((position(there.replayed), Some(there.rows().count() as u64)))
            })
            .await;
        done.map_err(|trouble| trouble.fault().clone())
    }
}

fn refused<T>(node: &Node, why: &str) -> Result<T, Trouble> {
    Err(Trouble::NothingChanged(unfit(node, why)))
}

fn unfit(node: &Node, why: &str) -> Fault {
    Fault::new(format!(
        "database `{}` on `{}` {why}",
        node.database.name, node.host.name
    ))
}

fn node_on<'a>(machine: &'a mut SimServer, node: &Node) -> Result<&'a mut SimNode, Fault> {
    machine
        .nodes
        .get_mut(&node.database.name)
        .ok_or_else(|| unfit(node, "has no data"))
}

impl World {
    /// A node is opened only while the writer record, where there is one, names it.
    fn must_be_named(&mut self, node: &Node) {
        let named = self
            .writers(&node.database.name)
            .map(|(_, writer)| writer.node);
        let wrong: Vec<_> = named
            .filter(|named| named.as_ref() != Some(&node.host.name))
            .collect();
        for named in wrong {
            let named = named.map_or("nobody".to_owned(), |named| named.to_string());
            let name = &node.host.name;
            self.violate(format!("`{name}` is opened while the record names {named}"));
        }
    }

    /// The node on a machine that answers, with complete data.
    fn complete(&mut self, node: &Node) -> Result<&mut SimNode, Fault> {
        let there = node_on(self.machine(&node.host)?, node)?;
        match there.data {
            Data::Complete => Ok(there),
            Data::Incomplete => Err(unfit(node, "has incomplete data")),
        }
    }

    /// The node, if its engine answers.
    fn running(&mut self, node: &Node) -> Result<&mut SimNode, Fault> {
        let machine = self.machine(&node.host)?;
        let service = node_on(machine, node)?.service.clone();
        if machine.runs(&service) {
            return node_on(machine, node);
        }
        let fault = unfit(node, "is not running");
        Err(fault.with_kind(crate::error::Kind::Unavailable))
    }

    fn status(&mut self, node: &Node) -> Result<NodeStatus, Fault> {
        let there = self.running(node)?.clone();
        let (name, database) = (&node.host.name, &node.database.name);
        let link = self.link(name, database).map(|link| match link {
            Ok(()) => Link::Up {
                from: there
                    .upstream
                    .as_ref()
                    .map_or_else(String::new, |above| above.name.to_string()),
            },
            Err(why) => Link::Down { why },
        });
        let streaming = self.followers(name, database);
        let keep = i64::try_from(node.database.keep_log.0).unwrap_or(i64::MAX);
        let follower = |slot: &ServerName| {
            let theirs = self
                .servers
                .get(slot)
                .and_then(|one| one.nodes.get(database));
            let replayed = theirs.map(|node| node.replayed);
            let behind = replayed.map(|at| there.received.saturating_sub(at) as i64);
            Follower {
                node: slot.clone(),
                streaming: streaming.contains(slot),
                replayed: replayed.filter(|_| streaming.contains(slot)).map(position),
                headroom: behind.map(|behind| keep - behind),
            }
        };
        let is_replica = there.mode == Mode::Replica;
        Ok(NodeStatus {
            role: if is_replica {
                NodeRole::Replica
            } else {
                NodeRole::Primary
            },
            writable: there.mode == Mode::Writable,
            timeline: there.timeline,
            system: there.system.clone(),
            version: "15.14".to_owned(),
            position: position(there.replayed),
            received: is_replica.then(|| position(there.received)),
            link,
            replaying: false,
            heartbeat: there.heartbeat.clone(),
            committed: None,
            transactions: Some(there.rows().count() as u64),
            followers: there.slots.iter().map(follower).collect(),
            confirmed_by: Vec::new(),
            confirming: false,
            seen: self.now(),
        })
    }

    fn set_upstream(&mut self, replica: &Node, upstream: &Node) {
        let database = &replica.database.name;
        let above = self.node_mut(&upstream.host.name, database);
        above.slots.insert(replica.host.name.clone());
        let below = self.node_mut(&replica.host.name, database);
        below.upstream = Some(Upstream {
            name: upstream.host.name.clone(),
            address: upstream.host.address,
        });
    }

    /// Both machines answer. What was on the target is gone from the first moment.
    fn copy(&mut self, from: &Node, source: &SimNode, to: &Node, service: &str, part: Part) {
        let (name, database) = (to.host.name.clone(), to.database.name.clone());
        if self.writable(&database).contains(&name) {
            self.violate(format!("a copy of `{database}` over the writable `{name}`"));
        }
        let pid = self.next() as u32;
        let machine = self.server_mut(&name);
        machine.stop(service);
        machine.install_engine(service);
        let target = machine.nodes.entry(database).or_insert_with(|| {
            SimNode::fresh(service.to_owned(), source.system.clone(), source.branch)
        });
        target.copy_contents(source);
        target.admit(to);
        if part == Part::Half {
            target.data = Data::Incomplete;
            return;
        }
        machine.start(service, pid);
        self.set_upstream(to, from);
    }

    fn rejoin(
        &mut self,
        old: &Node,
        primary: &Node,
        current: &SimNode,
        service: &str,
        part: Part,
    ) -> Result<Rejoined, Trouble> {
        let (name, database) = (&old.host.name, &old.database.name);
        let can_rewind = self.can_rewind;
        let pid = self.next() as u32;
        let machine = self.server_mut(name);
        let runs = machine.runs(service);
        let Some(there) = machine.nodes.get_mut(database) else {
            self.copy(primary, current, old, service, part);
            return Ok(copied("it had no data"));
        };
        if runs && there.mode != Mode::Replica {
            return refused(old, "is still a primary");
        }
        let fork = there.fork_from(current);
        let how = match fork {
            _ if there.data == Data::Incomplete => copied("its data is incomplete"),
            None => copied("it has another database"),
            Some(fork) if fork >= there.received => Rejoined::Followed,
            Some(_) if can_rewind => Rejoined::Rewound,
            Some(_) => copied("it cannot be rewound"),
        };
        there.admit(old);
        match (&how, fork) {
            (Rejoined::Followed, _) if part == Part::Half => return Ok(how),
            (Rejoined::Followed, _) => {}
            (Rejoined::Rewound, Some(fork)) => {
                there.rewind(fork, current);
                if part == Part::Half {
                    there.data = Data::Incomplete;
                    machine.stop(service);
                    return Ok(how);
                }
            }
            _ => {
                self.copy(primary, current, old, service, part);
                return Ok(how);
            }
        }
        machine.start(service, pid);
        self.set_upstream(old, primary);
        Ok(how)
    }
}

fn copied(because: &str) -> Rejoined {
    Rejoined::Reseeded {
        because: because.to_owned(),
    }
}

impl SimServer {
    fn install_engine(&mut self, service: &str) {
        self.install(Service {
            name: service.to_owned(),
            before: Vec::new(),
            argv: vec!["postgres".to_owned()],
            env: Default::default(),
            env_file: None,
            as_service_user: true,
            stop_signal: StopSignal::Int,
            stop_limit: Duration::from_secs(60),
            reload_signal: crate::shell::ReloadSignal::Hup,
            at_boot: true,
        });
    }
}
