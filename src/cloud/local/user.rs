//! The unprivileged user that a server's services run as.

use crate::durable::Owner;

/// When we are root: `postgres` if there is one (its files may be there already), else `nobody`. `None`: ourselves.
pub fn service_user() -> Option<Owner> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some(Owner {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    })
}
