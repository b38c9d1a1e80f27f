//! Whether users who are led to a site would be served there.

use crate::cloud::ServerState;
use crate::model::id::SiteName;
use crate::model::stack::{Name, Server, Site, Stack, Tier};
use crate::plan::facts::{Facts, Seen};

/// Why there is nothing that the names could lead to, and what to type. Nobody may accept this one: the records could
/// not be written, and that would turn up behind the point of no return.
pub(in crate::plan) fn no_servers(
    stack: &Stack,
    facts: &Facts,
    to: &SiteName,
) -> Option<(String, String)> {
    // Somebody was led there, so there is something to lead to.
    if facts.serves(to) {
        return None;
    }
    let answers = facts.sites.get(to).map(|site| &site.answers);
    if let Some(why) = answers.and_then(Seen::why_unknown) {
        let name = stack.names.first()?;
        let why = format!(
            "nobody could look at the servers of {to} that {} would lead to: {why}",
            name.host
        );
        return Some((why, "hafog status".to_owned()));
    }
    let is_there = |server: &Server| {
        let seen = facts.server(to, &server.name).map(|seen| &seen.state);
        !matches!(
            seen,
            None | Some(ServerState::Pending | ServerState::Failed(_))
        )
    };
    let lacks = |name: &&Name| {
        let mut servers = stack.group_at(to, &name.to).peekable();
        servers.peek().is_none() || servers.any(|server| !is_there(server))
    };
    let host = &stack.names.iter().find(lacks)?.host;
    let word = match stack.site(to).map(|site| site.tier).unwrap_or_default() {
        Tier::Cold => "cold",
        Tier::PilotLight => "pilot-light",
        Tier::Warm | Tier::Hot => {
            let why = format!("servers of {to} that {host} leads to are not there");
            return Some((why, format!("hafog clone {to}")));
        }
    };
    let why = format!(
        "{to} is `{word}` and has no servers that {host} could lead to, and a failover makes none; \
         after `tier: warm`, `hafog clone {to}` makes them"
    );
    Some((why, format!("hafog clone {to}")))
}

/// Why users who are moved to `to` would not be served, or nobody knows whether they would.
pub(super) fn not_ready(stack: &Stack, facts: &Facts, to: &SiteName) -> Option<String> {
    let serves = |site: &Site| matches!(site.tier, Tier::Warm | Tier::Hot);
    match facts.doors.get(to) {
        Some(Seen::Known(200)) => None,
        Some(Seen::Known(status)) => Some(format!(
            "{to} does not pass its health check: {status}, not 200"
        )),
        Some(Seen::Unknown(why)) => Some(format!("{to} does not answer its health check: {why}")),
        None if stack.balancer.is_none() || !stack.site(to).is_some_and(serves) => None,
        None => {
            let answers = facts.sites.get(to).map(|site| &site.answers);
            let why = answers.and_then(Seen::why_unknown);
            Some(match why {
                Some(why) => format!("nobody could look at the servers of {to}: {why}"),
                None => format!("{to} has no servers"),
            })
        }
    }
}
