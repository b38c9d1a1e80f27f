//! A failover within a site: a passive node of the primary's site takes over. The users stay where they are, so no
//! record changes and nothing is provisional.

use std::cmp::Reverse;

use super::{Flip, Move, Options, after, before, review};
use crate::model::id::*;
use crate::model::stack::{Server, Stack};
use crate::model::units::Bytes;
use crate::plan::action::*;
use crate::plan::facts::Facts;
use crate::plan::safety::{lost_writer, not_up};
use crate::plan::{Intent, Plan, PlanKind, step};

/// Opens `node` in place of the one that writes its database. `None`: it is no node of a database.
pub fn takeover(stack: &Stack, facts: &Facts, node: &Server, options: &Options) -> Option<Plan> {
    let databases = &stack.databases;
    let is_of = |database: &&_| stack.nodes_at(&node.site, database).any(|one| one == node);
    let database = databases.iter().find(is_of)?;
    let old = facts
        .writer_node(&database.name)
        .or_else(|| Some(&facts.head_at(stack, &node.site, database)?.name))?
        .clone();
    let one = Move {
        database,
        old,
        new: node,
        epoch: facts.epoch(&database.name) + 1,
    };
    let flip = Flip {
        stack,
        facts,
        from: &node.site,
        to: &node.site,
        moves: vec![one],
        options,
        is_within: true,
    };
    Some(plan(&flip, &flip.moves[0]))
}

fn plan(flip: &Flip, one: &Move) -> Plan {
    let intent = Intent::Takeover {
        site: flip.to.clone(),
        from: one.old.clone(),
        to: one.new.name.clone(),
        planned: flip.options.planned,
    };
    let mut plan = Plan::new(PlanKind::Directional, intent);
    if flip.facts.roles.is_none() {
        plan.refusals.push(not_up());
        return plan;
    }
    if let Some(lost) = lost_writer(flip.stack, flip.facts) {
        plan.refusals.push(lost);
        return plan;
    }
    plan.push(before::vet_standby(flip, one));
    before::point_of_no_return(&mut plan, flip);
    lead(&mut plan, flip, one);
    for (from, replica) in followers(flip, one) {
        let again = after::recreate(one.database, &from.name, replica);
        plan.push(again.may_fail(flip.mend(&replica.site)));
    }
    plan.push(after::at_the_old_site(
        flip,
        after::reverse_replication(flip, one),
    ));
    review::moved(&mut plan, flip, one);
    plan.forecast.notes.extend(further(flip, one));
    plan
}

/// Everybody learns who it is now, in the order of who waits for it.
fn lead(plan: &mut Plan, flip: &Flip, one: &Move) {
    let (site, new) = (flip.to, &one.new.name);
    let lead = LeadApps { site: site.clone() };
    let about = format!("servers of {site} use {new}");
    plan.push(
        step(format!("lead-apps {site}"), about, lead.into())
            .limit(120)
            .may_fail("hafog up"),
    );
    let about = format!("{new} is the first of {site} from now on");
    plan.push(step("set-roles", about, heads(flip, one).into()));
    let smoke = SmokeTest { site: site.clone() };
    let about = format!("{site} passes its health checks");
    plan.push(
        step("smoke-test", about, smoke.into())
            .limit(60)
            .may_fail(format!("hafog heal {site}")),
    );
}

fn heads(flip: &Flip, one: &Move) -> SetRoles {
    let roles = flip.facts.roles.as_ref();
    let roles = roles.expect("a stack that is not up was refused");
    let beside = flip.nodes_at(flip.to, one);
    let is_beside = |head: &&ServerName| beside.iter().any(|node| node.name == **head);
    let is_there = |head: &&ServerName| flip.stack.server(head).is_some();
    let others = roles.heads.iter().filter(is_there);
    let others = others.filter(|head| !is_beside(head));
    let heads = others.chain([&one.new.name]).cloned().collect();
    SetRoles {
        primary: roles.primary.clone(),
        standbys: roles.standbys.clone(),
        left_behind: roles.left_behind.clone(),
        heads: Some(heads),
        provisional: crate::plan::commit::still_provisional(flip.stack, roles),
    }
}

/// Who follows whom: the others of the site and the first of each standby the new one, the others of a standby its
/// first.
fn followers<'a>(flip: &Flip<'a>, one: &Move<'a>) -> Vec<(&'a Server, &'a Server)> {
    let here = flip.nodes_at(flip.to, one).into_iter();
    let here = here.map(|node| (one.new, node));
    let standbys = flip.facts.roles.iter().flat_map(|roles| &roles.standbys);
    let there = standbys.flat_map(|site| {
        let site = flip.stack.site(site);
        let nodes = site.map_or(Vec::new(), |site| flip.nodes_at(&site.name, one));
        let first = nodes.first().copied();
        let from = |node| match first {
            Some(first) if first != node => first,
            _ => one.new,
        };
        nodes
            .into_iter()
            .map(|node| (from(node), node))
            .collect::<Vec<_>>()
    });
    here.chain(there)
        .filter(|(_, node)| node.name != one.new.name && node.name != one.old)
        .filter(|(_, node)| flip.facts.nodes.contains_key(&node.name))
        .collect()
}

/// Whoever received more than the one that is chosen: what only that one has would be lost.
fn further(flip: &Flip, one: &Move) -> Option<String> {
    if flip.options.planned {
        return None;
    }
    let behind = |node: &ServerName| flip.facts.nodes.get(node)?.behind;
    let ours = behind(&one.new.name)?;
    let ahead = followers(flip, one).into_iter().filter_map(|(_, node)| {
        let more = ours.checked_sub(behind(&node.name)?)?;
        Some((u64::try_from(more).ok().filter(|more| *more > 0)?, node))
    });
    let (more, node) = ahead.min_by_key(|(more, _)| Reverse(*more))?;
    let how = match node.site == *flip.to {
        true => format!("hafog failover {}", node.name),
        false => format!("hafog failover {}", node.site),
    };
    Some(format!(
        "{} has received {} more than {}; `{how}` would lose less",
        node.name,
        Bytes(more),
        one.new.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::ServerState;
    use crate::plan::facts::Seen;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;
    use insta::assert_snapshot;

    const NODE: &str = "shop-east-db-2";

    fn planned(stack: &Stack, facts: &Facts, planned: bool) -> Plan {
        let options = Options {
            planned,
            ..Options::default()
        };
        let node = stack.server(&NODE.into()).unwrap();
        let plan = takeover(stack, facts, node, &options).unwrap();
        assert_eq!(plan.flaws(), [""; 0]);
        plan
    }

    fn text(plan: &Plan) -> String {
        let line = |step: &crate::plan::Step| match &step.skip {
            Some(why) => format!("{}: skipped: {why}\n", step.name),
            None => format!("{}: {}\n", step.name, step.about),
        };
        let steps = plan.steps.iter().map(line);
        let notes = plan.forecast.notes.iter();
        steps
            .chain(notes.map(|note| format!("note: {note}\n")))
            .collect()
    }

    #[test]
    fn planned_the_old_primary_follows() {
        let stack = small();
        let plan = planned(&stack, &fine(&stack), true);
        assert_snapshot!(text(&plan), @"
        vet-standby main: shop-east-db-2 can take over
        stop-writes main: shop-east-db-1 stops cleanly, with everything sent to shop-east-db-2
        await-replay main: shop-east-db-2 has everything that shop-east-db-1 had
        promote-standby main: open shop-east-db-2 for writes
        lead-apps east: servers of east use shop-east-db-2
        set-roles: shop-east-db-2 is the first of east from now on
        smoke-test: east passes its health checks
        recreate-replica shop-west-db-1: shop-west-db-1 follows shop-east-db-2 again
        recreate-replica shop-west-db-2: shop-west-db-2 follows shop-west-db-1 again
        reverse-replication main: shop-east-db-1 follows shop-east-db-2
        ");
        assert_eq!(plan.refusals, []);
    }

    #[test]
    fn forced_it_is_left_and_who_has_more_is_named() {
        let stack = small();
        let mut facts = fine(&stack);
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        let primary = east.servers.get_mut(&"shop-east-db-1".into()).unwrap();
        primary.state = ServerState::Off;
        let node = facts.nodes.get_mut(&"shop-east-db-1".into()).unwrap();
        node.status = Seen::Unknown("refused".to_owned());
        for (name, behind) in [
            (NODE, 2048),
            ("shop-west-db-1", 0),
            ("shop-west-db-2", 1024),
        ] {
            facts.nodes.get_mut(&name.into()).unwrap().behind = Some(behind);
        }
        let plan = planned(&stack, &facts, false);
        assert_snapshot!(text(&plan), @"
        vet-standby main: shop-east-db-2 can take over
        stop-writes main: fence shop-east-db-1, with proof
        await-replay main: skipped: forced: what had not arrived is lost
        promote-standby main: open shop-east-db-2 for writes
        lead-apps east: servers of east use shop-east-db-2
        set-roles: shop-east-db-2 is the first of east from now on
        smoke-test: east passes its health checks
        recreate-replica shop-west-db-1: shop-west-db-1 follows shop-east-db-2 again
        recreate-replica shop-west-db-2: shop-west-db-2 follows shop-west-db-1 again
        reverse-replication main: skipped: it is left as it is; `hafog heal east` takes it back
        note: shop-west-db-1 has received 2KiB more than shop-east-db-2; `hafog failover west` would lose less
        ");
        assert_eq!(plan.refusals, []);
    }

    #[test]
    fn a_site_has_one_first_node_a_database() {
        let stack = small();
        let mut facts = fine(&stack);
        // The spec has the last one no longer.
        let before = ["shop-west-db-2", "shop-east-db-1", "shop-west-db-3"];
        facts.roles.as_mut().unwrap().heads = before.map(ServerName::new).into();
        let plan = planned(&stack, &facts, true);
        let heads = plan.steps.iter().find_map(|step| match &step.action {
            Action::SetRoles(set) => set.heads.clone(),
            _ => None,
        });
        let heads: Vec<String> = heads.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(heads, ["shop-west-db-2", NODE]);
        // The applications are given their secrets anew.
        assert!(plan.secrets(&stack).contains("DATABASE_PASSWORD"));
    }
}
