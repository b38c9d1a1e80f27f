//! What is let in at the sites that have a network of their own, kept in step with the servers that there are.

use std::collections::{BTreeMap, BTreeSet};

use super::action::SetFirewall;
use super::facts::Facts;
use super::{Action, Plan, Step, scale, step};
use crate::cloud::{Firewall, Server};
use crate::model::id::*;
use crate::model::stack::Stack;

/// Adds what the plan needs: servers that are made are let in before anybody connects to them or they to others, those
/// that go are not let in any longer, and what was left wrong is put right first. For plans that run as a graph.
pub(super) fn keep(plan: &mut Plan, stack: &Stack, facts: &Facts) {
    let sites: Vec<SiteName> = closed(plan, stack, facts);
    if sites.is_empty() {
        return;
    }
    let drifted = drifted(stack, facts, &sites);
    let mut steps: Vec<Step> = Vec::new();
    let mut made: Vec<StepName> = Vec::new();
    // What has to be let in first, of each step that others wait for.
    let mut before: BTreeMap<StepName, StepName> = BTreeMap::new();
    let mut let_in = |made: &mut Vec<StepName>, steps: &mut Vec<Step>| {
        let Some(first) = made.first() else { return };
        let name = first.as_str().replacen("create-server ", "", 1);
        let wall = set(&sites, format!("set-firewall {name}")).after(made.clone());
        before.extend(made.drain(..).map(|made| (made, wall.name.clone())));
        steps.push(wall);
    };
    for step in std::mem::take(&mut plan.steps) {
        match is_lasting(&step) {
            true => made.push(step.name.clone()),
            false => let_in(&mut made, &mut steps),
        }
        steps.push(step);
    }
    let_in(&mut made, &mut steps);
    for step in &mut steps {
        let walls = step.after.iter().filter_map(|name| before.get(name));
        let walls: Vec<StepName> = walls.filter(|wall| **wall != step.name).cloned().collect();
        step.after.extend(walls);
    }
    if drifted && before.is_empty() {
        let wall = set(&sites, "set-firewall".to_owned());
        for step in &mut steps {
            step.after.push(wall.name.clone());
        }
        steps.insert(0, wall);
    }
    plan.steps = steps;
    let gone = gone(plan);
    if !gone.is_empty() {
        plan.push(set(&sites, "set-firewall last".to_owned()).after(gone));
    }
}

/// The sites whose cloud encloses them, that answer, and that have servers, or will have.
fn closed(plan: &Plan, stack: &Stack, facts: &Facts) -> Vec<SiteName> {
    let gets = |site: &SiteName| {
        plan.steps.iter().any(
            |step| matches!(&step.action, Action::CreateServer(create) if create.site == *site),
        )
    };
    let goes = |site: &SiteName| {
        plan.steps
            .iter()
            .any(|step| matches!(&step.action, Action::RemoveSite(remove) if remove.site == *site))
    };
    let sites = stack.sites.iter().filter(|site| site.network.is_some());
    let sites = sites.map(|site| &site.name).filter(|site| {
        let seen = facts.sites.get(site);
        let has = seen.is_some_and(|seen| !seen.servers.is_empty());
        facts.answers(site) && (has || gets(site)) && !goes(site)
    });
    sites.cloned().collect()
}

fn drifted(stack: &Stack, facts: &Facts, sites: &[SiteName]) -> bool {
    let seen = facts.sites.iter().filter(|(site, _)| facts.answers(site));
    let servers: BTreeMap<SiteName, Vec<Server>> = seen
        .map(|(site, seen)| (site.clone(), seen.servers.values().cloned().collect()))
        .collect();
    sites.iter().any(|site| {
        let before = facts
            .sites
            .get(site)
            .and_then(|seen| seen.firewall.as_ref());
        let has = servers.get(site).is_some_and(|there| !there.is_empty());
        has && before != Some(&Firewall::of(stack, site, &servers, before))
    })
}

/// A server that is made to stay.
fn is_lasting(step: &Step) -> bool {
    matches!(&step.action, Action::CreateServer(create) if create.want.tags.contains_key(scale::GROUP_TAG))
}

/// Steps that remove servers which the plan does not make again.
fn gone(plan: &Plan) -> Vec<StepName> {
    let made = plan.steps.iter().filter_map(|step| match &step.action {
        Action::CreateServer(create) => Some(&create.want.name),
        _ => None,
    });
    let made: BTreeSet<&ServerName> = made.collect();
    let gone = plan.steps.iter().filter(|step| match &step.action {
        Action::DeleteServer(delete) => !made.contains(&delete.server),
        _ => false,
    });
    gone.map(|step| step.name.clone()).collect()
}

fn set(sites: &[SiteName], name: String) -> Step {
    let about = "let in the stack's own servers and what is open, and nothing else".to_owned();
    let set = SetFirewall {
        sites: sites.to_vec(),
    };
    step(name, about, set.into()).limit(120)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::preflight::tests::fine;
    use crate::plan::{heal, up};
    use crate::sim::stacks::small;

    fn walled() -> (Stack, Facts) {
        let mut stack = small();
        for (site, network) in stack.sites.iter_mut().zip(["10.1.0.0/24", "10.2.0.0/24"]) {
            site.network = Some(network.parse().unwrap());
        }
        let mut facts = fine(&stack);
        for seen in facts.sites.values_mut() {
            for (name, server) in &mut seen.servers {
                let group = stack.server(name).unwrap().group.to_string();
                server.tags.insert(scale::GROUP_TAG.to_owned(), group);
            }
        }
        let servers: BTreeMap<SiteName, Vec<Server>> = facts
            .sites
            .iter()
            .map(|(site, seen)| (site.clone(), seen.servers.values().cloned().collect()))
            .collect();
        for (site, seen) in &mut facts.sites {
            seen.firewall = Some(Firewall::of(&stack, site, &servers, None));
        }
        (stack, facts)
    }

    fn named<'a>(plan: &'a Plan, name: &str) -> &'a Step {
        let step = plan.step(&StepName::new(name));
        step.unwrap_or_else(|| panic!("no step `{name}`"))
    }

    #[test]
    fn what_is_as_it_should_be_needs_no_step_and_what_is_not_comes_first() {
        let (stack, mut facts) = walled();
        let sets = |step: &&Step| matches!(step.action, Action::SetFirewall(_));
        let plan = up::up(&stack, &facts);
        assert_eq!(plan.steps.iter().find(sets), None);
        let west = facts.sites.get_mut(&"west".into()).unwrap();
        let gone = "203.0.113.9".parse().unwrap();
        west.firewall.as_mut().unwrap().own.insert(gone);
        let plan = up::up(&stack, &facts);
        let (first, others) = plan.steps.split_first().unwrap();
        assert_eq!(first.name.as_str(), "set-firewall");
        assert!(!others.is_empty());
        for step in others {
            assert!(step.after.contains(&first.name), "{}", step.name);
        }
    }

    #[test]
    fn who_is_made_is_let_in_before_anybody_needs_it() {
        let (stack, mut facts) = walled();
        facts.sites.get_mut(&"west".into()).unwrap().servers.clear();
        let plan = up::clone(&stack, &facts, &"west".into());
        let wall = plan
            .steps
            .iter()
            .find(|step| step.name.as_str().starts_with("set-firewall"));
        let wall = wall.expect("a firewall");
        let made = plan.steps.iter().filter(|step| is_lasting(step));
        let made: Vec<&StepName> = made.map(|step| &step.name).collect();
        assert_eq!(wall.after.iter().collect::<Vec<_>>(), made);
        let seed = named(&plan, "seed-replica shop-west-db-1");
        assert!(seed.after.contains(&wall.name), "{:?}", seed.after);
    }

    #[test]
    fn heal_lets_in_each_that_is_made_anew() {
        let (stack, mut facts) = walled();
        for name in ["shop-east-web-1", "shop-east-web-2"] {
            let east = facts.sites.get_mut(&"east".into()).unwrap();
            east.servers.remove(&name.into());
        }
        let plan = heal::heal(&stack, &facts, &["east".into()]);
        let balancer = named(&plan, "configure-server shop-east-balancer-1");
        let walls = plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::SetFirewall(_)));
        let walls: Vec<&Step> = walls.collect();
        assert!(!walls.is_empty());
        for wall in walls {
            assert!(balancer.after.contains(&wall.name), "{:?}", balancer.after);
        }
    }
}
