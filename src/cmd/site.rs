//! The site that a person meant: the one that was named, or the only one that it can be.

use crate::error::{Fault, Kind};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan::facts::Facts;
use crate::spec::did_you_mean;
use crate::ui::print::list;

/// The site of that name.
pub fn named(stack: &Stack, name: &SiteName) -> Result<SiteName, Fault> {
    if stack.site(name).is_some() {
        return Ok(name.clone());
    }
    let names = stack.sites.iter().map(|site| site.name.as_str());
    let fault = Fault::of(Kind::Usage, format!("the spec has no site `{name}`"));
    Err(match did_you_mean(name.as_str(), names.clone()) {
        Some(hint) => fault.hint(hint),
        None => fault.hint(format!(
            "it has {}",
            list(&names.collect::<Vec<_>>(), "and")
        )),
    })
}

/// The named one, or the only one of `candidates`. `what` says what they are: "standby".
pub fn only(
    stack: &Stack,
    asked: Option<&SiteName>,
    candidates: &[SiteName],
    what: &str,
) -> Result<SiteName, Fault> {
    if let Some(name) = asked {
        return named(stack, name);
    }
    match candidates {
        [only] => Ok(only.clone()),
        [] => Err(Fault::of(Kind::Refused, format!("there is no {what}")).hint("hafog status")),
        many => Err(Fault::of(
            Kind::Usage,
            format!("there is more than one {what}: {}", list(many, "and")),
        )
        .hint("name the one that is meant")),
    }
}

/// Where the stack could move: its standbys; before it has any, every other site.
pub fn standbys(stack: &Stack, facts: &Facts) -> Vec<SiteName> {
    match &facts.roles {
        Some(roles) if !roles.standbys.is_empty() => roles.standbys.clone(),
        _ => others(stack, facts.primary(&stack.primary)),
    }
}

/// Every site but one.
pub fn others(stack: &Stack, site: &SiteName) -> Vec<SiteName> {
    stack.others(site).map(|other| other.name.clone()).collect()
}

/// The named ones, each once; all of them if none is named.
pub fn some_or_all(stack: &Stack, asked: &[SiteName]) -> Result<Vec<SiteName>, Fault> {
    if asked.is_empty() {
        return Ok(stack.sites.iter().map(|site| site.name.clone()).collect());
    }
    let mut sites = Vec::new();
    for name in asked {
        let name = named(stack, name)?;
        if !sites.contains(&name) {
            sites.push(name);
        }
    }
    Ok(sites)
}

/// `clone west`: the verb as a person typed it.
pub fn typed(verb: &str, asked: Option<&(impl std::fmt::Display + ?Sized)>) -> String {
    match asked {
        Some(to) => format!("{verb} {to}"),
        None => verb.to_owned(),
    }
}
