//! Files in step: who has them, who follows, and `hafog sync`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::action::*;
use super::facts::{Facts, FilesFact, Seen};
use super::safety::{Refusal, lost_writer, not_up, refusal};
use super::{Action, Intent, Plan, PlanKind, Step, step};
use crate::cloud::ServerState;
use crate::model::id::*;
use crate::model::stack::{Files, Server, Stack};
use crate::model::units;

/// A copy may be of everything that there is.
const COPY_LIMIT: u64 = 7 * 24 * 60 * 60;
/// Of a move's last copy, while nobody may write: it is of what changed during the one before.
const LAST_LIMIT: u64 = 5 * 60;

/// What a person may want of a copy.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these files.
    pub only: Option<FilesName>,
    /// Compare contents.
    pub verify: bool,
    pub most_deleted: Option<u64>,
}

/// Lets every server that runs copy the files now.
pub fn sync(stack: &Stack, facts: &Facts, options: &Options) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::Sync);
    if facts.roles.is_none() {
        plan.refusals.push(not_up());
        return plan;
    }
    if let Some(lost) = lost_writer(stack, facts) {
        plan.refusals.push(lost);
        return plan;
    }
    keep(&mut plan, stack, facts, None);
    let primary = facts.primary(&stack.primary).clone();
    for files in &stack.files {
        if options
            .only
            .as_ref()
            .is_some_and(|only| only != &files.name)
        {
            continue;
        }
        let Some(first) = stack.first_of(&primary, files) else {
            continue;
        };
        if !facts.runs(first) {
            let why = format!("{} has `{}` and does not run", first.name, files.name);
            plan.refusals.push(refusal("no-source", why, "hafog up"));
            continue;
        }
        for server in all(stack, files).filter(|server| server.name != first.name) {
            if !facts.runs(server) {
                let name = &server.name;
                plan.forecast
                    .notes
                    .push(format!("{name} does not run and copies nothing"));
                continue;
            }
            let before: Vec<StepName> = own_steps(&plan);
            let mut copy = sync_step(files, server);
            if let Action::SyncFiles(copy) = &mut copy.action {
                copy.verify = options.verify;
                copy.most_deleted = options.most_deleted;
            }
            plan.push(copy.after(before));
        }
    }
    plan
}

/// Steps that must come before any copy.
fn own_steps(plan: &Plan) -> Vec<StepName> {
    let steps = plan.steps.iter();
    let before = steps.filter(|step| match &step.action {
        Action::ConnectFiles(_) | Action::FoundFiles(_) => true,
        Action::SyncFiles(copy) => copy.restore.is_some(),
        _ => false,
    });
    before.map(|step| step.name.clone()).collect()
}

fn all<'a>(stack: &'a Stack, files: &'a Files) -> impl Iterator<Item = &'a Server> {
    let sites = stack.sites.iter();
    sites.flat_map(|site| stack.group_at(&site.name, &files.on))
}

fn sync_step(files: &Files, server: &Server) -> Step {
    let copy = SyncFiles {
        files: files.name.clone(),
        server: server.name.clone(),
        verify: false,
        most_deleted: None,
        restore: None,
    };
    let name = format!("sync-files {} {}", files.name, server.name);
    let about = format!("copy `{}` to {}", files.name, server.name);
    step(name, about, copy.into()).limit(COPY_LIMIT)
}

/// After everything else of a plan: servers that are new, or that do not know one another, are told; and the first one
/// of the primary site is the one that has the files. `fresh` is a standby that is to have them when the plan is done.
pub(super) fn keep(plan: &mut Plan, stack: &Stack, facts: &Facts, fresh: Option<&SiteName>) {
    let primary = facts.primary(&stack.primary).clone();
    let mut groups: Vec<&GroupName> = Vec::new();
    for files in &stack.files {
        if groups.contains(&&files.on) {
            continue;
        }
        groups.push(&files.on);
        connect(plan, stack, facts, files);
    }
    for files in &stack.files {
        let first = stack.first_of(&primary, files);
        let Some(first) = first.filter(|first| will_run(plan, facts, first)) else {
            continue;
        };
        origin(plan, stack, facts, files, first);
        let followers = all(stack, files).filter(|server| server.name != first.name);
        for server in followers.filter(|server| Some(&server.site) == fresh) {
            let was = facts.copy(&files.name, &server.name, &first.name);
            if was.is_none() && will_run(plan, facts, server) {
                let before = own_steps(plan);
                plan.push(sync_step(files, server).after(before));
            }
        }
    }
}

/// It runs, or does when the plan is done.
fn will_run(plan: &Plan, facts: &Facts, server: &Server) -> bool {
    let made = plan.steps.iter().any(|step| match &step.action {
        Action::CreateServer(create) => create.want.name == server.name,
        Action::PowerOn(on) => on.server == server.name,
        _ => false,
    });
    made || facts.runs(server)
}

fn connect(plan: &mut Plan, stack: &Stack, facts: &Facts, files: &Files) {
    let of_group = |name: &ServerName| {
        let server = stack.server(name);
        server.is_some_and(|server| server.group == files.on)
    };
    let changes = |step: &&Step| match &step.action {
        Action::CreateServer(create) => of_group(&create.want.name),
        Action::ConfigureServer(one) => of_group(&one.server),
        Action::PowerOn(on) => of_group(&on.server),
        _ => false,
    };
    let changed: Vec<StepName> = plan
        .steps
        .iter()
        .filter(changes)
        .map(|step| step.name.clone())
        .collect();
    let runs = all(stack, files).any(|server| facts.runs(server));
    if changed.is_empty() && (facts.connected.contains(&files.on) || !runs) {
        return;
    }
    let connect = ConnectFiles {
        group: files.on.clone(),
    };
    let about = format!(
        "let the servers of `{}` copy files from one another",
        files.on
    );
    plan.push(step(format!("connect-files {}", files.on), about, connect.into()).after(changed));
}

/// The first server of the primary site has the files: since its birth, or because it gets them back from one that has
/// them.
fn origin(plan: &mut Plan, stack: &Stack, facts: &Facts, files: &Files, first: &Server) {
    let seen = |server: &Server| facts.files(&files.name, &server.name);
    let marked =
        |seen: Option<&Seen<FilesFact>>| seen.and_then(Seen::known).is_some_and(|fact| fact.marked);
    // One that is made anew by this plan has nothing any more.
    let anew = plan.steps.iter().any(|step| {
        matches!(&step.action, Action::CreateServer(create) if create.want.name == first.name)
    });
    if !anew && marked(seen(first)) {
        return;
    }
    if !anew && matches!(seen(first), Some(Seen::Unknown(_))) {
        return;
    }
    let before = own_steps(plan);
    if let Some(from) = newest_copy(stack, facts, files, first) {
        let mut copy = sync_step(files, first);
        copy.about = format!(
            "copy `{}` back to {}, from {}",
            files.name, first.name, from.name
        );
        if let Action::SyncFiles(copy) = &mut copy.action {
            copy.restore = Some(from.name.clone());
        }
        plan.push(copy.after(before));
        return;
    }
    let others = || all(stack, files).filter(|server| server.name != first.name);
    let silent = others().filter(|server| {
        let seen = facts
            .server(&server.site, &server.name)
            .map(|seen| &seen.state);
        let gone = matches!(seen, None | Some(ServerState::Pending)) && facts.answers(&server.site);
        let known = facts.files(&files.name, &server.name).and_then(Seen::known);
        !gone && known.is_none_or(|fact| fact.marked)
    });
    let silent: Vec<&str> = silent.map(|server| server.name.as_str()).collect();
    if !silent.is_empty() && facts.roles.is_some() {
        plan.forecast.notes.push(format!(
            "nobody knows whether {} has `{}`, which {} has not: it is not copied until somebody does",
            silent.join(" or "),
            files.name,
            first.name
        ));
        return;
    }
    let found = FoundFiles {
        files: files.name.clone(),
        server: first.name.clone(),
    };
    let name = format!("found-files {}", files.name);
    let about = format!("{} is the one that has `{}`", first.name, files.name);
    plan.push(step(name, about, found.into()).after(before));
}

/// The server that has the newest whole copy of what another one has.
fn newest_copy<'a>(
    stack: &'a Stack,
    facts: &Facts,
    files: &'a Files,
    of: &Server,
) -> Option<&'a Server> {
    let fact = |server: &Server| facts.files(&files.name, &server.name).and_then(Seen::known);
    let whole = |server: &&Server| {
        let marked = fact(server).is_some_and(|fact| fact.marked);
        server.name != of.name && marked && facts.runs(server)
    };
    let newest = |server: &&Server| {
        let report = fact(server).and_then(|fact| fact.report.as_ref());
        let whole = report.and_then(|report| report.whole.as_ref());
        whole.map(|whole| (whole.epoch, whole.began))
    };
    all(stack, files).filter(whole).max_by_key(newest)
}

/// The files that are copied from a server, as far as it is not known to have none.
fn given_by<'a>(
    stack: &'a Stack,
    facts: &'a Facts,
    server: &'a Server,
) -> impl Iterator<Item = &'a Files> {
    let primary = facts.primary(&stack.primary);
    stack.files_of(server).filter(move |files| {
        let is_first = stack
            .first_of(primary, files)
            .is_some_and(|first| first.name == server.name);
        let known = facts.files(&files.name, &server.name).and_then(Seen::known);
        is_first && known.is_none_or(|fact| fact.marked)
    })
}

/// Before a server is removed that works no more and still runs: what it has goes where it will be copied back from.
pub(super) fn save(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    server: &Server,
) -> Vec<StepName> {
    let given: Vec<&Files> = given_by(stack, facts, server).collect();
    let saved = given.into_iter().filter_map(|files| {
        let to = newest_copy(stack, facts, files, server)?;
        let mut copy = sync_step(files, to);
        copy.name = StepName::new(format!("save-files {}", files.name));
        copy.about = format!(
            "copy `{}` of {} to {} once more",
            files.name, server.name, to.name
        );
        Some(plan.push(copy))
    });
    saved.collect()
}

/// What it alone has goes with it. One that still runs (`saves`) is copied once more before, to whoever has a copy.
pub(super) fn alone(
    stack: &Stack,
    facts: &Facts,
    server: &Server,
    saves: bool,
    verb: &str,
    what: &str,
) -> Option<Refusal> {
    let mut given = given_by(stack, facts, server);
    let files = given.find(|files| !saves || newest_copy(stack, facts, files, server).is_none())?;
    let copy = newest_copy(stack, facts, files, server);
    let newest = copy.and_then(|copy| facts.copy(&files.name, &copy.name, &server.name));
    let newest = match newest {
        None => "nobody has a whole copy of them".to_owned(),
        Some(whole) => format!(
            "the newest copy, on {}, is of {:.0}",
            copy?.name, whole.began
        ),
    };
    let why = format!(
        "{} {what} and has the files `{}`: {newest}",
        server.name, files.name
    );
    let hint = format!(
        "hafog up, or hafog {verb} {} --accept files-alone",
        server.site
    );
    Some(refusal("files-alone", why, hint))
}

/// What a server has of some files, as `status` shows it.
#[derive(Debug, Serialize)]
pub struct Copy {
    pub files: FilesName,
    pub server: ServerName,
    pub site: SiteName,
    pub level: Level,
    /// How long ago the last whole copy began.
    pub age: Option<f64>,
    /// How many files there are.
    pub count: Option<u64>,
    pub state: String,
    /// Folders with what was put aside, on the server.
    pub aside: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All others follow it.
    Source,
    Fine,
    Warn,
    Critical,
    Unknown,
}

/// Of every server that is there and is to have files.
pub fn copies(stack: &Stack, facts: &Facts) -> Vec<Copy> {
    let all = stack
        .files
        .iter()
        .flat_map(|files| all(stack, files).map(move |server| (files, server)));
    let there = all.filter(|(_, server)| facts.server(&server.site, &server.name).is_some());
    there
        .map(|(files, server)| copy(stack, facts, files, server))
        .collect()
}

/// What one server has of some files.
pub(super) fn copy(stack: &Stack, facts: &Facts, files: &Files, server: &Server) -> Copy {
    let primary = facts.primary(&stack.primary);
    let source = stack.first_of(primary, files);
    let is_source = source.is_some_and(|source| source.name == server.name);
    let mut copy = Copy {
        files: files.name.clone(),
        server: server.name.clone(),
        site: server.site.clone(),
        level: Level::Unknown,
        age: None,
        count: None,
        state: "nobody looked".to_owned(),
        aside: Vec::new(),
    };
    let fact = match facts.files(&files.name, &server.name) {
        _ if !facts.runs(server) => {
            copy.state = "the server does not run".to_owned();
            return copy;
        }
        None => return copy,
        Some(Seen::Unknown(why)) => {
            copy.state.clone_from(why);
            return copy;
        }
        Some(Seen::Known(fact)) => fact,
    };
    let report = fact.report.as_ref();
    copy.aside = report
        .map(|report| report.aside.clone())
        .unwrap_or_default();
    if is_source {
        (copy.level, copy.state) = match fact.marked {
            true => (Level::Source, "all others follow it".to_owned()),
            false => (Level::Critical, "the files are not there".to_owned()),
        };
        return copy;
    }
    let trouble = report.and_then(|report| report.trouble.as_ref());
    let whole = source.and_then(|source| facts.copy(&files.name, &server.name, &source.name));
    let Some(whole) = whole else {
        copy.level = Level::Critical;
        let never = match source {
            Some(source) => format!("never had a whole copy of what {} has", source.name),
            None => "nobody has them".to_owned(),
        };
        copy.state = trouble.map_or(never.clone(), |trouble| format!("{never}: {}", trouble.why));
        return copy;
    };
    let age = Duration::try_from(facts.at.duration_since(whole.began)).unwrap_or_default();
    (copy.age, copy.count) = (Some(age.as_secs_f64()), Some(whole.files));
    copy.level = match age {
        age if age > files.lag_critical.0 => Level::Critical,
        age if age > files.lag_warn.0 => Level::Warn,
        _ => Level::Fine,
    };
    copy.state = format!("follows {}", whole.source);
    if let Some(trouble) = trouble {
        // What is held back is for a person to decide, however young the copy is.
        if trouble.would_delete.is_some() || copy.level == Level::Fine {
            copy.level = copy.level.max_of(Level::Warn);
        }
        copy.state = trouble.why.clone();
    }
    copy
}

impl Level {
    fn max_of(self, other: Level) -> Level {
        match self {
            Level::Critical | Level::Unknown => self,
            _ => other,
        }
    }
}

/// Before a planned move, while everything is in use.
pub(super) fn before_a_move(
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
) -> Vec<Step> {
    moved(stack, facts, from, to, "copy", COPY_LIMIT)
}

/// Once more while nobody may write, so that nothing is missing.
pub(super) fn in_a_move(stack: &Stack, facts: &Facts, from: &SiteName, to: &SiteName) -> Vec<Step> {
    moved(stack, facts, from, to, "last", LAST_LIMIT)
}

fn moved(
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
    verb: &str,
    limit: u64,
) -> Vec<Step> {
    let copies = stack.files.iter().filter_map(|files| {
        let (source, server) = (stack.first_of(from, files)?, stack.first_of(to, files)?);
        let has = facts.files(&files.name, &source.name).and_then(Seen::known);
        has.is_some_and(|fact| fact.marked)
            .then_some((files, server))
    });
    let steps = copies.map(|(files, server)| {
        let mut copy = sync_step(files, server);
        copy.name = StepName::new(format!("{verb}-files {}", files.name));
        // One that fails hurts nobody: the way back leaves what it copied, and opens what was stopped.
        copy.limit(limit).reversible()
    });
    steps.collect()
}

/// A planned move loses nothing, and nobody knows what the server has that the files are copied from.
pub(super) fn unseen<'a>(
    stack: &'a Stack,
    facts: &Facts,
    from: &'a SiteName,
    to: &'a SiteName,
) -> Option<(&'a Server, String)> {
    stack.files.iter().find_map(|files| {
        let (source, _) = (stack.first_of(from, files)?, stack.first_of(to, files)?);
        let name = &source.name;
        let why = match facts.files(&files.name, name) {
            _ if !facts.runs(source) => "it does not run",
            Some(Seen::Known(_)) => return None,
            Some(Seen::Unknown(why)) => why.as_str(),
            None => "nobody looked",
        };
        let why = format!(
            "{name} cannot be asked for the files `{}`: {why}",
            files.name
        );
        Some((source, why))
    })
}

/// How long nobody may write because of the files.
pub(super) fn last_copy_of_a_move(
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
) -> Option<String> {
    let copies = in_a_move(stack, facts, from, to);
    let names = copies.iter().filter_map(|step| match &step.action {
        Action::SyncFiles(copy) => Some(format!("`{}`", copy.files)),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    let limit = copies.first()?.limit;
    Some(format!(
        "nobody can write while {} is copied a last time, {limit} at most; what takes longer is taken back",
        names.join(" and ")
    ))
}

/// What the new site has not of the files, a line each.
pub(super) fn left_by_a_move(
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
    planned: bool,
) -> Vec<String> {
    let left = stack.files.iter().filter_map(|files| {
        let (source, server) = (stack.first_of(from, files)?, stack.first_of(to, files)?);
        let (name, at) = (&files.name, &server.name);
        let known = facts.files(name, at).and_then(Seen::known);
        let Some(whole) = facts.copy(name, at, &source.name) else {
            return Some(match known {
                Some(_) => format!("{at} never had a whole copy of `{name}`"),
                None => format!("whether {at} has a whole copy of `{name}` is unknown"),
            });
        };
        let age = Duration::try_from(facts.at.duration_since(whole.began)).unwrap_or_default();
        let age = units::human(age);
        (!planned).then(|| {
            format!(
                "{at} has `{name}` as it was {age} ago; what came to {} since stays there",
                source.name
            )
        })
    });
    left.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::failover;
    use crate::plan::preflight::tests::{fine, with_files};
    use crate::plan::{heal, up};
    use crate::sim::stacks::small;

    const EAST: &str = "shop-east-web-1";
    const WEST: &str = "shop-west-web-1";

    fn world() -> (Stack, Facts) {
        let mut stack = small();
        let mut facts = fine(&stack);
        with_files(&mut stack, &mut facts);
        let servers = stack.servers.iter();
        facts.configured = servers.map(|server| server.name.clone()).collect();
        (stack, facts)
    }

    fn forget(facts: &mut Facts, server: &str) {
        let copies = facts.files.get_mut(&"uploads".into()).unwrap();
        let none = FilesFact {
            marked: false,
            report: None,
        };
        copies.insert(server.into(), Seen::Known(none));
    }

    /// The steps that are about files, with those that restore or follow.
    fn steps(plan: &Plan) -> Vec<String> {
        let about = plan.steps.iter().filter_map(|step| match &step.action {
            Action::ConnectFiles(_) | Action::FoundFiles(_) => Some(step.name.to_string()),
            Action::SyncFiles(copy) => Some(match &copy.restore {
                Some(from) => format!("{} from {from}", step.name),
                None => step.name.to_string(),
            }),
            _ => None,
        });
        assert_eq!(plan.flaws(), Vec::<String>::new());
        about.collect()
    }

    #[test]
    fn what_is_in_step_needs_nothing() {
        let (stack, facts) = world();
        assert_eq!(steps(&up::up(&stack, &facts)), Vec::<String>::new());
        let west = "west".into();
        assert_eq!(
            steps(&up::clone(&stack, &facts, &west)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_first_server_has_them_since_its_birth_and_never_again() {
        let (stack, mut facts) = world();
        for server in [EAST, "shop-east-web-2", WEST, "shop-west-web-2"] {
            forget(&mut facts, server);
        }
        assert_eq!(steps(&up::up(&stack, &facts)), ["found-files uploads"]);
        // Somebody has a copy: it is that.
        let (_, whole) = world();
        let copy = whole
            .files(&"uploads".into(), &WEST.into())
            .unwrap()
            .clone();
        let copies = facts.files.get_mut(&"uploads".into()).unwrap();
        copies.insert(WEST.into(), copy);
        let restored = format!("sync-files uploads {EAST} from {WEST}");
        assert_eq!(steps(&up::up(&stack, &facts)), [restored]);
        // Whoever might have one says nothing: nobody guesses.
        let copies = facts.files.get_mut(&"uploads".into()).unwrap();
        copies.insert(WEST.into(), Seen::Unknown("no route".to_owned()));
        let plan = up::up(&stack, &facts);
        assert_eq!(steps(&plan), Vec::<String>::new());
        let said = plan.forecast.notes.join("\n");
        assert!(
            said.contains(&format!("nobody knows whether {WEST} has `uploads`")),
            "{said}"
        );
    }

    #[test]
    fn a_standby_has_them_when_it_is_made() {
        let (stack, mut facts) = world();
        forget(&mut facts, WEST);
        let plan = up::clone(&stack, &facts, &"west".into());
        assert_eq!(steps(&plan), [format!("sync-files uploads {WEST}")]);
    }

    #[test]
    fn a_sick_source_is_copied_once_more_and_gets_back_what_it_had() {
        let (stack, mut facts) = world();
        for site in facts.sites.values_mut() {
            for server in site.servers.values_mut() {
                server.image = Some("web-1".into());
                server.tags.insert(CONFIG_TAG.to_owned(), "1".to_owned());
            }
        }
        facts.sick.insert(EAST.into(), "500".to_owned());
        let plan = heal::heal(&stack, &facts, &["east".into()]);
        let found = steps(&plan);
        assert_eq!(found[..2], ["save-files uploads", "connect-files web"]);
        let to = plan.steps.iter().find_map(|step| match &step.action {
            Action::SyncFiles(copy) if copy.restore.is_none() => Some(copy.server.clone()),
            _ => None,
        });
        // It is copied back from where it was saved.
        assert_eq!(
            found[2],
            format!("sync-files uploads {EAST} from {}", to.unwrap())
        );
        let deleted = StepName::new(format!("delete-server {EAST}"));
        let after = &plan.step(&deleted).unwrap().after;
        assert!(
            after.contains(&StepName::new("save-files uploads")),
            "{after:?}"
        );
    }

    /// What somebody agreed to is found again a moment later, also by `--plan DIGEST`.
    #[test]
    fn a_plan_that_copies_is_the_same_at_the_next_look() {
        let (stack, facts) = world();
        let mut later = facts.clone();
        later.at += Duration::from_secs(1);
        let west = "west".into();
        let options = failover::Options {
            planned: true,
            ..failover::Options::default()
        };
        let moved = |facts: &Facts| failover::failover(&stack, facts, &west, &options).digest();
        let synced = |facts: &Facts| sync(&stack, facts, &Options::default()).digest();
        assert_eq!(moved(&facts), moved(&later));
        assert_eq!(synced(&facts), synced(&later));
    }

    #[test]
    fn a_planned_move_copies_twice_and_a_forced_one_says_what_it_leaves() {
        let (stack, facts) = world();
        let west = "west".into();
        let options = failover::Options {
            planned: true,
            ..failover::Options::default()
        };
        let plan = failover::failover(&stack, &facts, &west, &options);
        assert_eq!(steps(&plan), ["copy-files uploads", "last-files uploads"]);
        let at = |name: &str| {
            plan.steps
                .iter()
                .position(|step| step.name.as_str() == name)
        };
        assert!(at("stop-writes main") < at("last-files uploads"));
        assert!(at("last-files uploads") < at("promote-standby main"));
        let options = failover::Options::default();
        let plan = failover::failover(&stack, &facts, &west, &options);
        assert_eq!(steps(&plan), Vec::<String>::new());
        let line = format!(
            "{WEST} has `uploads` as it was 12.0s ago; what came to {EAST} since stays there"
        );
        assert!(
            plan.forecast.notes.contains(&line),
            "{:?}",
            plan.forecast.notes
        );
    }
}
