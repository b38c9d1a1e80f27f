//! `hafog heal`: servers that do not do their work are removed and made anew, from the image that their group runs.
//!
//! Of a database, what a node has may be nowhere else, so none is removed: see [`nodes`].

mod nodes;

use super::action::{AwaitServer, CONFIG_TAG};
use super::facts::Facts;
use super::files;
use super::safety::{Refusal, lost_writer, not_up, refusal};
use super::{Action, Intent, Plan, PlanKind, scale, step};
use super::{database, entry, firewall, names, server};
use crate::cloud::ServerState;
use crate::model::id::*;
use crate::model::stack::{Job, Server, Stack};

/// What a server has.
enum Ailment {
    /// Its cloud says so.
    Seen(String),
    /// It runs, and does not do its work as far as one can see from here.
    Sick(String),
    /// It runs and was never told what to do: a run was cut behind its creation.
    Untold,
}

pub fn heal(stack: &Stack, facts: &Facts, sites: &[SiteName]) -> Plan {
    let sites = sites.to_vec();
    work(stack, facts, Intent::Heal { sites })
}

/// Also of [`super::scale`], which removes servers besides.
pub(super) fn work(stack: &Stack, facts: &Facts, intent: Intent) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, intent);
    if facts.roles.is_none() {
        plan.refusals.push(not_up());
        return plan;
    }
    if let Some(lost) = lost_writer(stack, facts) {
        plan.refusals.push(lost);
        return plan;
    }
    plan.forecast.apart = facts.apart.clone();
    let primary = facts.primary(&stack.primary);
    let mut serves = None;
    let mut refused = Vec::new();
    for site in plan.intent.sites().to_vec() {
        match one_site(&mut plan, stack, facts, &site, &mut refused) {
            Ok(healthy) if &site == primary => serves = Some(healthy),
            Ok(_) => {}
            Err(refusal) => plan.refusals.push(refusal),
        }
    }
    left_to_others(&mut plan, refused);
    database::tell_agents(&mut plan, stack, facts);
    files::keep(&mut plan, stack, facts, None);
    if let Some(healthy) = serves {
        lead_there(&mut plan, stack, facts, primary, healthy);
    }
    firewall::keep(&mut plan, stack, facts);
    let sites = plan.intent.sites().to_vec();
    entry::keep(&mut plan, stack, facts, &sites);
    plan
}

/// What cannot be healed does not stop the rest, and is said.
fn left_to_others(plan: &mut Plan, refused: Vec<Refusal>) {
    if plan.steps.is_empty() {
        plan.refusals.extend(refused);
        return;
    }
    let notes = refused.into_iter();
    let notes = notes.map(|one| format!("{}: {}", one.why, one.hint));
    plan.forecast.notes.extend(notes);
}

/// A server that is made anew may have another address: names lead to that.
fn lead_there(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    primary: &SiteName,
    healthy: Option<StepName>,
) {
    let mut without = facts.clone();
    for step in &plan.steps {
        if let Action::CreateServer(create) = &step.action
            && let Some(site) = without.sites.get_mut(&create.site)
        {
            site.servers.remove(&create.want.name);
        }
    }
    names::publish(plan, stack, &without, primary, healthy);
}

fn cannot(why: String, hint: &str) -> Refusal {
    refusal("cannot-heal", why, hint)
}

/// The step after which its front door answers, if anything was to be done for it.
fn one_site(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    refused: &mut Vec<Refusal>,
) -> Result<Option<StepName>, Refusal> {
    if !facts.answers(site) {
        let why = format!("{site} does not answer, so nobody can say which of its servers work");
        return Err(cannot(why, "hafog status"));
    }
    let scales = matches!(plan.intent, Intent::Scale { .. });
    let mut surplus = scale::surplus(stack, facts, site);
    if !scales {
        plan.forecast.notes.extend(scale::note(&surplus));
        surplus.clear();
    }
    plan.refusals.extend(scale::refuse(stack, facts, &surplus));
    let nodes = nodes::heal(plan, stack, facts, site)?;
    refused.extend(nodes.refused);
    // What a standby's tier does not run is not there, and nobody misses it.
    let is_primary = facts.primary(&stack.primary) == site;
    let tier = stack.site(site).map(|site| site.tier).unwrap_or_default();
    let stays = |server: &&Server| {
        let runs = is_primary || tier.runs(&server.job);
        let is_wanted = runs || facts.server(site, &server.name).is_some();
        is_wanted && !matches!(server.job, Job::Database(_))
    };
    let servers: Vec<&Server> = stack.servers_at(site).filter(stays).collect();
    let ailing = servers.iter().copied();
    let ailing = ailing.filter_map(|server| Some((server, ailment(stack, facts, server)?)));
    let mut ailing: Vec<(&Server, Ailment)> = ailing.collect();
    // Without its database no application works, and a database that says nothing lets no new server in.
    let explained = |ailing: &mut (&Server, Ailment)| {
        let is_sick = matches!(ailing.1, Ailment::Sick(_));
        ailing.0.job == Job::App && (nodes.is_closed || nodes.was_away && is_sick)
    };
    let waiting: Vec<(&Server, Ailment)> = ailing.extract_if(.., explained).collect();
    if nodes.is_closed {
        refused.extend(wait_for_it(site, &waiting));
    }
    let verb = plan.intent.verb();
    plan.refusals
        .extend(all_sick(verb, site, &servers, &ailing));
    for (server, ailment) in &ailing {
        let there = facts.server(site, &server.name).is_some() && stack.seals(site);
        let (saves, what) = match ailment {
            Ailment::Seen(what) => (false, what),
            Ailment::Sick(why) => (true, why),
            Ailment::Untold => continue,
        };
        if there {
            let alone = files::alone(stack, facts, server, saves, verb, what);
            plan.refusals.extend(alone);
        }
    }
    let followed = nodes.done.len();
    let mut made = nodes.done;
    for (server, ailment) in &ailing {
        made.extend(anew(plan, stack, facts, server, ailment)?);
    }
    let goes = surplus.iter().any(scale::Surplus::is_known_by_address);
    let is_changed = made.len() > followed || goes;
    made.extend(scale::take_out(plan, stack, facts, &surplus));
    // A balancer and a cache have the addresses of the servers behind them.
    let is_told = |server: &&Server| {
        let has_addresses = matches!(server.job, Job::Balancer | Job::Cache);
        let is_old = !facts.configured.contains(&server.name);
        has_addresses && (is_changed || is_old)
            || nodes.is_new && server.job == Job::App
            || ailing.iter().any(|(one, _)| one.name == server.name)
    };
    let told = servers.iter().copied().filter(is_told);
    let told: Vec<&Server> = told.collect();
    let configured = told.iter().copied();
    let configured: Vec<StepName> = configured
        .map(|server| plan.push(server::configure_server(server).after(made.clone())))
        .collect();
    // Balancers are asked for those behind them, so this is after all of them.
    let awaited: Vec<StepName> = told
        .into_iter()
        .map(|server| plan.push(await_server(server).after(configured.clone())))
        .collect();
    let after = match awaited.as_slice() {
        [] => &made,
        awaited => awaited,
    };
    if scales {
        scale::remove(plan, stack, facts, site, &surplus, after);
    }
    let is_changed = !awaited.is_empty();
    Ok(is_changed.then(|| plan.push(server::await_healthy(site).after(awaited))))
}

/// What is not done for applications before their database answers.
fn wait_for_it(site: &SiteName, waiting: &[(&Server, Ailment)]) -> Option<Refusal> {
    let names = waiting.iter().map(|(server, _)| server.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    let why = format!("left as they are until the database at {site} answers: {names}");
    (!waiting.is_empty()).then(|| cannot(why, "hafog status"))
}

/// The front door may be open without it.
fn await_server(server: &Server) -> super::Step {
    let action = AwaitServer {
        site: server.site.clone(),
        server: server.name.clone(),
    };
    let about = format!("wait until {} does its work", server.name);
    step(
        format!("await-server {}", server.name),
        about,
        action.into(),
    )
}

fn ailment(stack: &Stack, facts: &Facts, server: &Server) -> Option<Ailment> {
    let seen = |text: &str| Some(Ailment::Seen(text.to_owned()));
    let Some(found) = facts.server(&server.site, &server.name) else {
        let is_primary = facts.primary(&stack.primary) == &server.site;
        let tier = stack.site(&server.site).map(|site| site.tier);
        let runs = is_primary || tier.is_some_and(|tier| tier.runs(&server.job));
        return if runs { seen("is gone") } else { None };
    };
    match &found.state {
        ServerState::Running if !found.tags.contains_key(CONFIG_TAG) => Some(Ailment::Untold),
        ServerState::Running => {
            let why = facts.sick.get(&server.name)?;
            Some(Ailment::Sick(why.clone()))
        }
        ServerState::Off | ServerState::Frozen | ServerState::Isolated => {
            seen(&format!("is {}", found.state.word()))
        }
        ServerState::Pending => seen("was never finished"),
        ServerState::Failed(why) => Some(Ailment::Seen(format!("failed: {why}"))),
    }
}

/// Where everybody fails at once, the servers are seldom the reason.
fn all_sick(
    verb: &str,
    site: &SiteName,
    servers: &[&Server],
    ailing: &[(&Server, Ailment)],
) -> Option<Refusal> {
    let is_sick = |server: &&&Server| {
        ailing
            .iter()
            .any(|(one, ailment)| one.name == server.name && matches!(ailment, Ailment::Sick(_)))
    };
    let accept = format!("hafog {verb} {site} --accept all-sick");
    if servers.len() > 1 && servers.iter().all(|server| is_sick(&server)) {
        let why = format!(
            "none of the {} servers of {site} that were asked does its work",
            servers.len()
        );
        return Some(refusal("all-sick", why, accept));
    }
    servers
        .chunk_by(|one, other| one.group == other.group)
        .find_map(|group| {
            let all = group.len() > 1 && group.iter().all(|server| is_sick(&server));
            let name = &group[0].group;
            let why = format!(
                "all {} servers of `{name}` at {site} run, and none does its work",
                group.len()
            );
            all.then(|| refusal("all-sick", why, accept.clone()))
        })
}

/// Removes what is there of it and makes it again. The last of its steps.
fn anew(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    server: &Server,
    ailment: &Ailment,
) -> Result<Option<StepName>, Refusal> {
    let name = &server.name;
    let seen = facts.server(&server.site, name);
    let what = match ailment {
        Ailment::Untold => return Ok(None),
        // It exists already: it is configured again, and its services are started.
        Ailment::Sick(_) if !stack.seals(&server.site) => return Ok(None),
        Ailment::Sick(why) => format!("does not work: {why}"),
        Ailment::Seen(what) => what.clone(),
    };
    if !stack.seals(&server.site) {
        let why = format!(
            "{name} {what}, and hafog makes no servers at {}",
            server.site
        );
        let hint = "when its host never comes back, write `gone: true` there and list another: `hafog up`, or `hafog clone`, takes that";
        return Err(cannot(why, hint));
    }
    let image = image(stack, facts, server)?;
    let saved = match ailment {
        Ailment::Sick(_) => files::save(plan, stack, facts, server),
        _ => Vec::new(),
    };
    let gone = seen.map(|_| {
        let about = format!("remove {name}, which {what}");
        plan.push(server::delete_server(&server.site, name, about).after(saved))
    });
    Ok(Some(plan.push(
        server::create_server(stack, server, &image).after(gone),
    )))
}

/// The one that it ran, or the others of its group, here and elsewhere, or the only one that there is of its recipe: a
/// sick server is no reason for a new release.
fn image(stack: &Stack, facts: &Facts, server: &Server) -> Result<ImageName, Refusal> {
    let site = &server.site;
    let group = |site| stack.group_at(site, &server.group);
    let elsewhere = stack.others(site).flat_map(|other| group(&other.name));
    let ran = std::iter::once(server).chain(group(site)).chain(elsewhere);
    let mut ran = ran.filter_map(|one| facts.server(&one.site, &one.name)?.image.as_ref());
    let kept = facts
        .sites
        .get(site)
        .into_iter()
        .flat_map(|seen| &seen.images);
    let is_of_it = |image: &&ImageName| {
        let (recipe, _) = image.as_str().rsplit_once('-').unwrap_or_default();
        recipe == server.recipe.as_str()
    };
    let can = |image: &&ImageName| facts.has_image(site, image);
    let found = ran.find(can).or_else(|| {
        let mut kept = kept.filter(can).filter(is_of_it);
        let first = kept.next()?;
        kept.next().is_none().then_some(first)
    });
    found.cloned().ok_or_else(|| {
        let why = format!("nobody knows which image {} ran", server.name);
        cannot(
            why,
            "hafog up, or hafog clone, makes it from what the spec says",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::Seen;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;

    const WEB: &str = "shop-east-web-1";
    const BALANCER: &str = "shop-east-balancer-1";

    fn world() -> (Stack, Facts) {
        let mut stack = small();
        let mut facts = fine(&stack);
        // Where names lead has its own test.
        stack.names.clear();
        for server in &stack.servers {
            let site = facts.sites.get_mut(&server.site).unwrap();
            let found = site.servers.get_mut(&server.name).unwrap();
            found.image = Some(ImageName::new(format!("{}-1", server.recipe)));
            found.tags.insert(CONFIG_TAG.to_owned(), "1".to_owned());
            facts.configured.insert(server.name.clone());
        }
        (stack, facts)
    }

    fn found<'a>(facts: &'a mut Facts, name: &str) -> &'a mut crate::cloud::Server {
        let site = facts.sites.get_mut(&"east".into()).unwrap();
        site.servers.get_mut(&name.into()).unwrap()
    }

    fn planned(stack: &Stack, facts: &Facts) -> Plan {
        let plan = heal(stack, facts, &["east".into(), "west".into()]);
        assert_eq!(plan.flaws(), [""; 0]);
        plan
    }

    fn text(plan: &Plan) -> Vec<String> {
        let steps = plan.steps.iter();
        steps
            .map(|step| format!("{}: {}", step.name, step.about))
            .collect()
    }

    #[test]
    fn nobody_who_works_is_touched() {
        let (stack, facts) = world();
        let plan = planned(&stack, &facts);
        assert_eq!((text(&plan).len(), plan.refusals.len()), (0, 0));
    }

    #[test]
    fn a_sick_server_is_made_anew_from_what_it_ran_and_its_balancer_is_told() {
        let (stack, mut facts) = world();
        found(&mut facts, WEB).image = Some("web-0".into());
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.images.insert("web-0".into());
        facts.sick.insert(WEB.into(), "it answers 500".to_owned());
        // Whatever a database has is not to be lost.
        found(&mut facts, "shop-east-db-2").state = ServerState::Failed("burnt".to_owned());
        let plan = planned(&stack, &facts);
        assert!(plan.refusals.is_empty());
        let mut steps = text(&plan);
        let agents = steps.split_off(7);
        assert_eq!(
            steps,
            [
                "delete-server shop-east-web-1: remove shop-east-web-1, which does not work: it answers 500",
                "create-server shop-east-web-1: start shop-east-web-1 from web-0",
                "configure-server shop-east-web-1: configure shop-east-web-1 and start its services",
                "configure-server shop-east-balancer-1: configure shop-east-balancer-1 and start its services",
                "await-server shop-east-web-1: wait until shop-east-web-1 does its work",
                "await-server shop-east-balancer-1: wait until shop-east-balancer-1 does its work",
                "await-healthy east: wait until east answers its health checks",
            ]
        );
        assert!(
            agents.iter().all(|step| step.contains("agent")),
            "{agents:?}"
        );
        assert!(!agents.is_empty());
    }

    #[test]
    fn what_a_cut_run_left_is_finished() {
        let (stack, mut facts) = world();
        found(&mut facts, WEB).tags.clear();
        facts.configured.remove(&"shop-east-balancer-1".into());
        let names = |plan: Plan| -> Vec<String> {
            let steps = plan.steps.iter();
            steps.map(|step| step.name.to_string()).collect()
        };
        assert_eq!(
            names(planned(&stack, &facts)),
            [
                "configure-server shop-east-web-1",
                "configure-server shop-east-balancer-1",
                "await-server shop-east-web-1",
                "await-server shop-east-balancer-1",
                "await-healthy east",
            ]
        );
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.servers.remove(&WEB.into());
        let steps = names(planned(&stack, &facts));
        assert_eq!(steps[0], "create-server shop-east-web-1");
    }

    #[test]
    fn the_image_of_one_that_is_gone_is_that_of_its_likes_or_the_only_one() {
        let (stack, mut facts) = world();
        let made = |facts: &Facts| {
            let plan = heal(&stack, facts, &["east".into()]);
            match plan.refusals.first() {
                Some(refusal) => refusal.why.clone(),
                None => plan.steps[0].about.clone(),
            }
        };
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.servers.remove(&"shop-east-balancer-1".into());
        east.images.insert("haproxy-0".into());
        assert_eq!(made(&facts), "start shop-east-balancer-1 from haproxy-1");
        let west = facts.sites.get_mut(&"west".into()).unwrap();
        west.servers.remove(&"shop-west-balancer-1".into());
        assert_eq!(
            made(&facts),
            "nobody knows which image shop-east-balancer-1 ran"
        );
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.images.remove(&"haproxy-1".into());
        assert_eq!(made(&facts), "start shop-east-balancer-1 from haproxy-0");
    }

    #[test]
    fn names_lead_to_a_balancer_that_is_made_anew() {
        let (mut stack, mut facts) = world();
        stack.names = small().names;
        let lead = |facts: &Facts| {
            let plan = planned(&stack, facts);
            let steps = plan.steps.iter();
            steps
                .filter(|step| step.name.as_str().starts_with("set-record"))
                .count()
        };
        let name = &stack.names[0];
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        let balancer = east
            .servers
            .get_mut(&"shop-east-balancer-1".into())
            .unwrap();
        let zone = facts.zones.get_mut(&name.zone).unwrap();
        zone.records.retain(|set| set.host == name.target);
        let there = zone.records[0].values.first().unwrap().parse().unwrap();
        balancer.host = Some(crate::shell::Host {
            name: balancer.name.clone(),
            site: "east".into(),
            address: there,
            dirs: crate::shell::Dirs {
                image: String::new(),
                etc: String::new(),
                data: String::new(),
                log: String::new(),
            },
        });
        if name.host != name.target {
            zone.records.push(crate::model::record::RecordSet {
                host: name.host.clone(),
                kind: crate::model::record::RecordType::Cname,
                ttl: name.ttl,
                values: [name.target.to_string()].into(),
            });
        }
        assert_eq!(lead(&facts), 0);
        facts
            .sick
            .insert("shop-east-balancer-1".into(), "no answer".to_owned());
        assert_eq!(lead(&facts), 1);
    }

    #[test]
    fn where_nobody_answers_nothing_is_said_of_anybody() {
        let (stack, mut facts) = world();
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.answers = Seen::Unknown("no route".to_owned());
        let plan = planned(&stack, &facts);
        assert_eq!(plan.refusals[0].name, "cannot-heal");
        assert!(plan.steps.is_empty());
    }

    #[test]
    fn nodes_that_do_not_follow_are_brought_back_and_the_one_that_writes_stays() {
        let (stack, mut facts) = world();
        let names = |facts: &Facts| -> Vec<String> {
            let plan = planned(&stack, facts);
            assert_eq!(plan.refusals, []);
            let steps = plan.steps.iter();
            steps
                .map(|step| step.name.to_string())
                .filter(|name| !name.starts_with("start-agent"))
                .collect()
        };
        let beside: ServerName = "shop-east-db-2".into();
        found(&mut facts, "shop-east-db-2").state = ServerState::Off;
        let node = facts.nodes.get_mut(&beside).unwrap();
        node.status = Seen::Unknown("refused".to_owned());
        node.has_data = Seen::Unknown("refused".to_owned());
        for state in [ServerState::Isolated, ServerState::Off] {
            found(&mut facts, "shop-east-db-2").state = state;
            assert_eq!(
                names(&facts),
                ["power-on shop-east-db-2", "seed-replica shop-east-db-2"]
            );
        }
        // It may have been the primary, and have what nobody else has.
        let roles = facts.roles.as_mut().unwrap();
        roles.heads.push("shop-east-db-1".into());
        assert_eq!(
            names(&facts),
            ["power-on shop-east-db-2", "rejoin shop-east-db-2"]
        );
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.servers.remove(&beside);
        facts.nodes.remove(&beside);
        assert_eq!(
            names(&facts),
            ["create-server shop-east-db-2", "rejoin shop-east-db-2"]
        );
        facts.roles.as_mut().unwrap().heads.clear();
        assert_eq!(
            names(&facts),
            [
                "create-server shop-east-db-2",
                "seed-replica shop-east-db-2"
            ]
        );
    }

    #[test]
    fn a_closed_database_is_said_and_stops_nobody_else() {
        let (stack, mut facts) = world();
        let primary = facts.nodes.get_mut(&"shop-east-db-1".into()).unwrap();
        primary.status = Seen::Unknown("refused".to_owned());
        let plan = heal(&stack, &facts, &["east".into()]);
        assert_eq!(plan.refusals[0].name, "cannot-heal");
        assert_eq!(plan.refusals[0].hint, "hafog failover shop-east-db-2");
        found(&mut facts, BALANCER).state = ServerState::Off;
        let plan = heal(&stack, &facts, &["east".into()]);
        assert_eq!(plan.refusals, []);
        assert_eq!(
            plan.steps[0].name.as_str(),
            "delete-server shop-east-balancer-1"
        );
        assert_eq!(
            plan.forecast.notes,
            ["shop-east-db-1, the primary of `main`: refused: hafog failover shop-east-db-2"]
        );
    }

    #[test]
    fn nobody_makes_applications_that_their_database_cannot_let_in() {
        let (stack, facts) = world();
        for (site, mut facts) in [("east", facts.clone()), ("west", facts)] {
            let head = ServerName::new(format!("shop-{site}-db-1"));
            let node = facts.nodes.get_mut(&head).unwrap();
            node.status = Seen::Unknown("too busy".to_owned());
            let web = |one: &str| ServerName::new(format!("shop-{site}-{one}"));
            let [gone, sick] = ["web-1", "web-2"].map(web);
            let servers = &mut facts.sites.get_mut(&site.into()).unwrap().servers;
            servers.remove(&gone);
            facts.sick.insert(sick, "it answers 503".to_owned());
            let plan = heal(&stack, &facts, &[site.into()]);
            let steps = text(&plan);
            assert!(!steps.iter().any(|step| step.contains("web")), "{steps:?}");
            let waits = format!(
                "left as they are until the database at {site} answers: shop-{site}-web-1, shop-{site}-web-2: hafog status"
            );
            let refused = plan.refusals.iter();
            let refused = refused.map(|one| format!("{}: {}", one.why, one.hint));
            let said: Vec<String> = refused.chain(plan.forecast.notes.clone()).collect();
            assert!(said.contains(&waits), "{said:?}");
            assert_eq!(plan.steps.is_empty(), site == "east", "{steps:?}");
        }
    }

    #[test]
    fn a_standby_whose_database_answers_is_healed_while_the_primary_is_away() {
        let (stack, mut facts) = world();
        let writer = facts.nodes.get_mut(&"shop-east-db-1".into()).unwrap();
        writer.status = Seen::Unknown("no route to host".to_owned());
        let web: ServerName = "shop-west-web-1".into();
        let west = facts.sites.get_mut(&"west".into()).unwrap();
        west.servers.remove(&web);
        for node in ["shop-west-db-1", "shop-west-db-2"] {
            let node = facts.nodes.get_mut(&node.into()).unwrap();
            if let Seen::Known(status) = &mut node.status {
                status.link = None;
            }
        }
        let plan = heal(&stack, &facts, &["west".into()]);
        let steps = text(&plan);
        assert!(
            steps
                .iter()
                .any(|step| step.starts_with("create-server shop-west-web-1")),
            "{steps:?}"
        );
    }

    #[test]
    fn a_node_that_says_nothing_is_left_unless_its_services_do_not_run() {
        let (stack, mut facts) = world();
        let beside: ServerName = "shop-east-db-2".into();
        let node = facts.nodes.get_mut(&beside).unwrap();
        node.status = Seen::Unknown("too many clients".to_owned());
        let plan = planned(&stack, &facts);
        assert_eq!(plan.steps, []);
        assert_eq!(
            plan.forecast.notes,
            ["shop-east-db-2 runs and says nothing, and is left as it is: too many clients"]
        );
        let why = "its service `postgres-main` does not run";
        facts.sick.insert(beside, why.to_owned());
        let plan = planned(&stack, &facts);
        assert_eq!(plan.steps[0].name.as_str(), "seed-replica shop-east-db-2");
    }

    #[test]
    fn a_pilot_light_has_no_servers_that_are_missed() {
        let (mut stack, mut facts) = world();
        stack.sites[1].tier = crate::model::stack::Tier::PilotLight;
        let west = facts.sites.get_mut(&"west".into()).unwrap();
        west.servers
            .retain(|name, _| name.as_str().contains("-db-"));
        facts
            .configured
            .retain(|name| name.as_str().contains("east"));
        facts.doors.remove(&SiteName::new("west"));
        let plan = planned(&stack, &facts);
        let mut steps = text(&plan);
        steps.retain(|step| !step.contains("agent"));
        assert_eq!(steps, [""; 0]);
    }

    #[test]
    fn applications_whose_database_was_away_are_not_sick() {
        let (stack, mut facts) = world();
        let first: ServerName = "shop-west-db-1".into();
        let west = facts.sites.get_mut(&"west".into()).unwrap();
        west.servers.remove(&first);
        facts.nodes.remove(&first);
        for web in ["shop-west-web-1", "shop-west-web-2"] {
            facts.sick.insert(web.into(), "500".to_owned());
        }
        let plan = planned(&stack, &facts);
        assert_eq!(plan.refusals, []);
        let mut steps = text(&plan);
        steps.retain(|step| !step.contains("agent"));
        let steps = steps.iter().filter_map(|step| step.split(':').next());
        assert_eq!(
            steps.collect::<Vec<_>>(),
            [
                "create-server shop-west-db-1",
                "seed-replica shop-west-db-1",
                "seed-replica shop-west-db-2",
                "configure-server shop-west-web-1",
                "configure-server shop-west-web-2",
                "await-server shop-west-web-1",
                "await-server shop-west-web-2",
                "await-healthy west",
            ]
        );
    }

    #[test]
    fn where_no_servers_are_made_one_that_runs_is_configured_again() {
        let (mut stack, mut facts) = world();
        stack.sites[0].seals = false;
        facts.sick.insert(WEB.into(), "it answers 500".to_owned());
        let plan = planned(&stack, &facts);
        assert_eq!(
            plan.steps[0].name.as_str(),
            "configure-server shop-east-web-1"
        );
        found(&mut facts, WEB).state = ServerState::Failed("silent".to_owned());
        let refused = &planned(&stack, &facts).refusals[0];
        assert!(refused.why.contains("makes no servers"), "{}", refused.why);
    }
}
