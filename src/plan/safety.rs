//! Refusals: named reasons why a plan may not run as it stands. `--accept NAME` waives that one and is journaled.
//! A bare `--force` does not exist.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::{Action, Plan};
use crate::model::id::ImageName;
use crate::model::stack::Stack;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// One of [`REFUSALS`].
    pub name: String,
    pub why: String,
    pub hint: String,
    /// Some refusals nobody may waive.
    pub waivable: bool,
}

/// A kind of refusal, for `hafog explain` and the docs.
pub struct About {
    pub name: &'static str,
    pub waivable: bool,
    pub about: &'static str,
}

pub const REFUSALS: &[About] = &[
    About {
        name: "no-standby",
        waivable: false,
        about: "There is no site to move to: the stack has no standby, or `hafog clone` has not made it.",
    },
    About {
        name: "not-up",
        waivable: false,
        about: "The stack has never been brought up, so there is nothing to clone, move or roll back.",
    },
    About {
        name: "provisional",
        waivable: false,
        about: "An earlier flip is still provisional. `hafog commit` ends that phase, `hafog rollback` goes back.",
    },
    About {
        name: "standby-behind",
        waivable: true,
        about: "The standby's newest heartbeat is older than `lag.critical`. Moving now loses at least that much.",
    },
    About {
        name: "standby-unknown",
        waivable: true,
        about: "How far the standby is behind cannot be said. Unknown never passes for zero.",
    },
    About {
        name: "standby-unreachable",
        waivable: false,
        about: "The standby's database does not answer or is no replica of this stack, or another node of its site is on a newer history; it is not to be promoted.",
    },
    About {
        name: "primary-healthy",
        waivable: true,
        about: "The primary's database answers and is writable. A failover would stop it; `hafog switchover` moves without loss.",
    },
    About {
        name: "primary-unreachable",
        waivable: false,
        about: "A switchover needs the primary: it stops writes there and waits for the last position. `hafog failover` does not.",
    },
    About {
        name: "unfenced-primary",
        waivable: true,
        about: "Nothing proves that the old primary cannot write: two nodes might acknowledge writes. Only a person may accept this. A cloud that answers and shows no server of the site at all proves nothing either: the spec may name another region, project or folder by now than the one in which the servers are. Where nobody can look, the end of the write lease is a proof under `self_fence: strict` while commits wait for the node that is promoted; `hafog preflight` says whether they do.",
    },
    About {
        name: "old-primary-not-following",
        waivable: false,
        about: "A rollback is a switchover back, and the old primary does not follow the new one. `hafog failback` rejoins it first.",
    },
    About {
        name: "nothing-provisional",
        waivable: false,
        about: "There is no flip to commit or to roll back.",
    },
    About {
        name: "site-is-primary",
        waivable: true,
        about: "The site to be destroyed is the primary: it serves the users.",
    },
    About {
        name: "site-silent",
        waivable: true,
        about: "The cloud of a site that is to be destroyed does not answer, so nobody can say what is left there. Accepted: everything else is removed, and what is there stays, unknown to hafog.",
    },
    About {
        name: "left-behind",
        waivable: true,
        about: "A failover left the site behind, and its database has data. `hafog failback SITE --rejoin-only` compares them with the primary's and rejoins it. Accepted: it is copied anew, and what it had is set aside on its server.",
    },
    About {
        name: "no-servers",
        waivable: false,
        about: "The standby has no servers that the names could lead to: its tier is cold or pilot-light, or they are gone. A failover makes none.",
    },
    About {
        name: "all-sick",
        waivable: true,
        about: "Every server of a group runs and none does its work, or nobody at the site answers at all. That is seldom the servers' fault: look at the application, at its database, and at the way from here. Accepted: all of them are removed and made anew.",
    },
    About {
        name: "cannot-heal",
        waivable: false,
        about: "A server cannot be made anew: its site does not answer, nobody knows which image it ran, or it is a machine that hafog did not make. Or the one that writes its database does not work, and that is a failover's. Nothing is done by guess.",
    },
    About {
        name: "group-gone",
        waivable: true,
        about: "Servers belong to a group that the spec has no longer, so nobody can say what they hold. Accepted: they are removed with all that is on their disks.",
    },
    About {
        name: "removed-unseen",
        waivable: true,
        about: "A database node that the spec has no longer would be removed, and nobody sees it following: it may be an old primary with writes of its own. In the spec again, `hafog heal` or `hafog failback` says what it has. Accepted: it is removed with all that it has.",
    },
    About {
        name: "files-alone",
        waivable: true,
        about: "A server that is to be removed is the one that the files are copied from, and it does not run, or nobody has a whole copy of them: what was written there is nowhere else. `hafog up` boots one that is off; `hafog sync` copies. Accepted: it is made anew and gets the files back from the newest copy, if there is one.",
    },
    About {
        name: "files-unseen",
        waivable: true,
        about: "The server that the files are copied from cannot be asked for them, so a planned move would leave behind what was written there since the last copy. Accepted: the site moves without a last copy of the files; what stayed behind is put aside there when the servers follow.",
    },
    About {
        name: "no-source",
        waivable: false,
        about: "The server that the files are copied from does not run, so there is nothing to copy.",
    },
    About {
        name: "writer-not-in-spec",
        waivable: false,
        about: "The spec has the server no longer that writes a database. It has to be in the spec until another node is the one that writes.",
    },
    About {
        name: "image-revoked",
        waivable: true,
        about: "An image that somebody revoked would be made again, or a server started from it. `hafog image show IMAGE` says why it was. Change its recipe, or take newer packages with `hafog build --upgrade`, and it makes another one; `hafog image revoke IMAGE --lift` takes the word back. Accepted: it is used all the same.",
    },
    About {
        name: "standby-not-ready",
        waivable: true,
        about: "The standby has no healthy servers behind its balancer; users moved there would see errors. Accepted: its health checks are not waited for.",
    },
];

pub fn refusal(name: &'static str, why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    let about = REFUSALS
        .iter()
        .find(|about| about.name == name)
        .expect("every refusal is in REFUSALS");
    Refusal {
        name: name.to_owned(),
        why: why.into(),
        hint: hint.into(),
        waivable: about.waivable,
    }
}

pub(super) fn not_up() -> Refusal {
    refusal("not-up", "the stack is not up anywhere", "hafog up")
}

/// A spec that has lost a node that writes: nothing can be said of its database, and nothing done.
pub(super) fn lost_writer(stack: &Stack, facts: &Facts) -> Option<Refusal> {
    stack.databases.iter().find_map(|database| {
        let writer = facts.writer_node(&database.name)?;
        if stack.server(writer).is_some() {
            return None;
        }
        let why = format!(
            "{writer} writes the database `{}`, and the spec has that server no longer",
            database.name
        );
        let hint = format!(
            "hafog switchover NODE, to one that stays, when `servers.{}` has it again (`count`); then take it out",
            database.on
        );
        Some(refusal("writer-not-in-spec", why, hint))
    })
}

/// What would use images that are revoked.
pub fn revoked(plan: &Plan, facts: &Facts) -> Option<Refusal> {
    let steps = plan.steps.iter().filter(|step| step.skip.is_none());
    let images = steps.filter_map(|step| match &step.action {
        Action::CreateServer(action) => action.want.image.as_ref(),
        Action::ApplyRecipe(action) => Some(&action.image),
        Action::SealImage(action) => Some(&action.image),
        Action::CopyImage(action) => Some(&action.image),
        Action::TryImage(action) => Some(&action.image),
        Action::ChangeImage(action) => Some(&action.to),
        _ => None,
    });
    let images: BTreeSet<&ImageName> = images.collect();
    let mut revoked = images
        .into_iter()
        .filter_map(|image| Some((image, facts.revoked.get(image)?)));
    let (first, revocation) = revoked.next()?;
    let mut why = format!("{first} was revoked: {}", revocation.why);
    for (image, revocation) in revoked {
        why.push_str(&format!("; {image} was revoked: {}", revocation.why));
    }
    Some(refusal("image-revoked", why, "hafog image list"))
}

#[cfg(test)]
mod alone_tests;
