//! The address at which visitors reach a site, led to the balancer that there is.

use super::action::SetEntry;
use super::facts::Facts;
use super::{Action, Plan, step};
use crate::cloud::Entry;
use crate::model::id::*;
use crate::model::stack::{BALANCER_GROUP, Stack};

/// Adds what the plan needs at the sites that have such an address: it leads to a balancer before anybody is sent there. For
/// plans that run as a graph.
pub(super) fn keep(plan: &mut Plan, stack: &Stack, facts: &Facts, sites: &[SiteName]) {
    for site in sites {
        one(plan, stack, facts, site);
    }
}

fn one(plan: &mut Plan, stack: &Stack, facts: &Facts, site: &SiteName) {
    let group = GroupName::from(BALANCER_GROUP);
    let Some(address) = stack.entry(site, &group) else {
        return;
    };
    let is_balancer = |name: &ServerName| stack.group_at(site, &group).any(|one| one.name == *name);
    let comes = |action: &Action| match action {
        Action::CreateServer(create) => is_balancer(&create.want.name),
        Action::PowerOn(on) => is_balancer(&on.server),
        _ => false,
    };
    let answers = |action: &Action| matches!(action, Action::ConfigureServer(configure) if is_balancer(&configure.server));
    let Some(seen) = facts.sites.get(site).filter(|_| facts.answers(site)) else {
        return;
    };
    let wanted = Entry::of(stack, site, seen.servers.values());
    let changes = plan.steps.iter().any(|step| comes(&step.action));
    if !changes && (wanted.is_none() || wanted == seen.entry) {
        return;
    }
    // Nobody is led to a balancer before it has its address and answers.
    let before = plan.steps.iter();
    let before = before.filter(|step| comes(&step.action) || answers(&step.action));
    let before: Vec<StepName> = before.map(|step| step.name.clone()).collect();
    let entry = step(
        format!("set-entry {site}"),
        format!("visitors of {address} reach the balancer of {site}"),
        SetEntry { site: site.clone() }.into(),
    );
    let waits = |action: &Action| match action {
        Action::AwaitHealthy(wait) => wait.site == *site,
        Action::SetRecord(_) => true,
        _ => false,
    };
    for step in plan.steps.iter_mut().filter(|step| waits(&step.action)) {
        step.after.push(entry.name.clone());
    }
    let at = plan.steps.iter().position(|step| waits(&step.action));
    let at = at.unwrap_or(plan.steps.len());
    plan.steps.insert(at, entry.after(before));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::record::RecordType;
    use crate::plan::action::WantedRecord;
    use crate::plan::preflight::tests::fine;
    use crate::plan::{Step, heal, up};
    use crate::shell::{Dirs, Host};
    use crate::sim::stacks::small;

    fn entered() -> (Stack, Facts) {
        let mut stack = small();
        for (site, last) in stack.sites.iter_mut().zip(1..) {
            site.address = Some([203, 0, 113, last].into());
        }
        let mut facts = fine(&stack);
        for (site, seen) in &mut facts.sites {
            for (number, server) in (1..).zip(seen.servers.values_mut()) {
                let dirs = ["image", "etc", "data", "log"].map(str::to_owned);
                let [image, etc, data, log] = dirs;
                server.host = Some(Host {
                    name: server.name.clone(),
                    site: site.clone(),
                    address: [10, 0, 0, number].into(),
                    dirs: Dirs {
                        image,
                        etc,
                        data,
                        log,
                    },
                });
            }
            seen.entry = Entry::of(&stack, site, seen.servers.values());
            assert!(seen.entry.is_some(), "{site}");
        }
        (stack, facts)
    }

    fn place(plan: &Plan, name: &str) -> usize {
        let place = plan
            .steps
            .iter()
            .position(|step| step.name.as_str() == name);
        place.unwrap_or_else(|| panic!("no step `{name}`"))
    }

    #[test]
    fn what_leads_where_it_should_needs_no_step() {
        let (stack, mut facts) = entered();
        let sets = |plan: &Plan| {
            let mut steps = plan.steps.iter();
            steps.any(|step| matches!(step.action, Action::SetEntry(_)))
        };
        assert!(!sets(&up::up(&stack, &facts)));
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.entry.as_mut().unwrap().to = [10, 9, 9, 9].into();
        assert!(sets(&up::up(&stack, &facts)));
        assert!(!sets(&up::clone(&stack, &facts, &"west".into())));
    }

    #[test]
    fn a_balancer_that_is_made_anew_is_led_to_before_visitors_are() {
        let (stack, mut facts) = entered();
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.servers.remove(&"shop-east-balancer-1".into());
        for zone in facts.zones.values_mut() {
            let records = zone.records.iter_mut();
            for set in records.filter(|set| set.kind == RecordType::A) {
                set.values = ["203.0.113.1".to_owned()].into();
            }
        }
        let plan = heal::heal(&stack, &facts, &["east".into()]);
        let entry = place(&plan, "set-entry east");
        let after = &plan.steps[entry].after;
        for name in ["create-server", "configure-server"] {
            let name = StepName::new(format!("{name} shop-east-balancer-1"));
            assert!(after.contains(&name), "{after:?}");
        }
        let healthy = &plan.steps[place(&plan, "await-healthy east")];
        assert!(healthy.after.contains(&plan.steps[entry].name));
        assert!(entry < place(&plan, "await-healthy east"));
        // Names lead to the address, which stays.
        let is_address = |one: &WantedRecord| matches!(one, WantedRecord::AddressesOf { .. });
        let moves = |step: &Step| match &step.action {
            Action::SetRecord(set) => set.records.iter().any(is_address),
            _ => false,
        };
        let published = BTreeSet::from(["203.0.113.1".to_owned()]);
        let group = GroupName::from(BALANCER_GROUP);
        let leads = facts.addresses(&stack, &"east".into(), &group);
        assert_eq!(leads, Some(published));
        assert!(!plan.steps.iter().any(moves));
    }
}
