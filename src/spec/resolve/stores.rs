//! Where the state is kept.

use crate::model::stack::*;

use super::Resolver;
use crate::spec::spot::Spot;
use crate::spec::types::*;

impl<'a> Resolver<'a, '_> {
    pub(super) fn stores(&mut self) -> Vec<Store> {
        let list = self.root.key("state");
        let only = self.spec.state.len() == 1;
        let mut stores: Vec<Store> = Vec::new();
        for (index, store) in self.spec.state.iter().enumerate() {
            let spot = list.nth(index);
            let (place, arbiter) = store.parts();
            let at = [spot.key("folder"), spot.key("url")]
                .into_iter()
                .find(|at| at.is_written())
                .unwrap_or(spot);
            let (folder, remote) = self.store_place(at, store, place);
            if index == 0 && remote.is_some() {
                let message = "the first store is a folder of this machine, such as `./.hafog`";
                self.complain(at, message);
            }
            let same = |other: &Store| {
                clean_path(&other.folder) == clean_path(&folder)
                    && other.remote.as_ref().map(|at| &at.host)
                        == remote.as_ref().map(|at| &at.host)
            };
            if at.sound && stores.iter().any(same) {
                self.complain(at, format!("there is a store `{place}` already"));
            }
            if arbiter && spot.sound && stores.iter().any(|other| other.arbiter) {
                self.complain(
                    spot.key("arbiter"),
                    "there is an arbiter already; exactly one store is it",
                );
            }
            stores.push(Store {
                folder,
                arbiter: arbiter || only,
                remote,
            });
        }
        let marks_sound = (0..stores.len())
            .all(|index| list.nth(index).sound && list.nth(index).key("arbiter").sound);
        if stores.len() > 1 && marks_sound && !stores.iter().any(|store| store.arbiter) {
            let hint = format!("write `{{ folder: {}, arbiter: true }}`", stores[0].folder);
            let message = "none of these stores is the arbiter; exactly one must be";
            self.complain_hinted(list, message, [hint]);
        }
        stores
    }

    /// The folder, and the machine that keeps it.
    fn store_place(
        &mut self,
        at: Spot,
        store: &StoreSpec,
        place: &str,
    ) -> (String, Option<Remote>) {
        let folder = place.strip_prefix("file:").unwrap_or(place).to_owned();
        let Some((scheme, _)) = place.split_once("://") else {
            return (folder, None);
        };
        if scheme != "ssh" {
            let message = format!(
                "state stores at `{scheme}://` are not built yet, expected a folder such as `./.hafog`, or \
                 `ssh://user@host/folder`"
            );
            self.complain(at, message);
            return (folder, None);
        }
        match remote(place, store.host_key()) {
            Some((folder, remote)) => (folder, Some(remote)),
            None => {
                let message =
                    format!("expected a URL such as `ssh://user@host:22/folder`, found `{place}`");
                self.complain(at, message);
                (folder, None)
            }
        }
    }
}

/// `ssh://user@host:port/folder`, without a password.
fn remote(text: &str, host_key: Option<&str>) -> Option<(String, Remote)> {
    let url = url::Url::parse(text).ok()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-._:@".contains(c);
    let host = url
        .host_str()?
        .trim_start_matches('[')
        .trim_end_matches(']');
    let plain = url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let plain = plain && !text.contains(char::is_control);
    let folder = text.splitn(4, '/').nth(3)?.trim_end_matches('/');
    let word = |text: &str| text.chars().all(good) && !text.starts_with('-');
    // Agents come as this user too, whoever they run as.
    let user = url.username();
    (plain && !folder.is_empty() && word(host) && word(user) && !user.is_empty()).then(|| {
        let remote = Remote {
            host: host.to_owned(),
            user: user.to_owned(),
            port: url.port(),
            host_key: host_key.map(str::to_owned),
        };
        (format!("/{folder}"), remote)
    })
}

/// Two spellings of one folder are one store.
fn clean_path(path: &str) -> std::path::PathBuf {
    std::path::Path::new(path)
        .components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect()
}
