//! HAProxy and Varnish: each has one file of configuration, and says which one it runs with.
//!
//! One that runs with what is wanted is left alone: a cache that is started again has forgotten everything. HAProxy
//! reads a new file without refusing anybody: new workers get the sockets, and the old ones answer what they are at
//! work on (management guide, section 4). Anything else is stopped and started.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::{balancer, cache, rotation};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::render;
use crate::model::digest::sha256;
use crate::model::stack::Server;
use crate::shell::{Command, File, Host, ReloadSignal, Service, ServiceChange};
use crate::wait;
use crate::world::World;

/// For a new worker that has read its file.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);

/// What a program was started with. As text, the two digests with a dot between them.
#[derive(Clone, Debug, PartialEq)]
struct Mark {
    /// Of its command line and all that a new file cannot change.
    way: String,
    file: String,
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}.{}", self.way, self.file)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Mark, ()> {
        let (way, file) = text.split_once('.').ok_or(())?;
        let [way, file] = [way, file].map(str::to_owned);
        Ok(Mark { way, file })
    }
}

fn digest(what: impl Serialize) -> String {
    let bytes = serde_json::to_vec(&what).expect("it serialises");
    let mut digest = sha256(&bytes);
    digest.truncate(16);
    digest
}

/// A template's values, and the mark that stands in the file.
#[derive(Serialize)]
struct Marked<V> {
    mark: String,
    #[serde(flatten)]
    values: V,
}

#[derive(Clone)]
pub(super) struct Proxy {
    pub file: File,
    pub service: Service,
    mark: Mark,
}

impl Proxy {
    /// `template` has a place for `mark`.
    pub fn new(
        template: (&'static str, &'static str),
        values: impl Serialize,
        path: String,
        service: Service,
    ) -> Result<Proxy, Fault> {
        let mark = Mark {
            way: digest(&service),
            file: digest((template.1, &values)),
        };
        let marked = Marked {
            mark: mark.to_string(),
            values,
        };
        let file = File {
            path,
            bytes: render::render(template, marked)?.into_bytes(),
            mode: 0o644,
            for_service_user: false,
        };
        Ok(Proxy {
            file,
            service,
            mark,
        })
    }

    /// What the running one says. Nobody, or one of an older hafog, says nothing.
    async fn at_work(&self, world: &World, server: &Server, host: &Host) -> Option<Mark> {
        let said = match self.service.name.as_str() {
            balancer::SERVICE => rotation::description(world, host).await,
            _ => cache::description(world, server).await,
        };
        said?.parse().ok()
    }

    /// Brings it to run with this file.
    pub async fn bring(&self, world: &World, server: &Server, host: &Host) -> Result<(), Trouble> {
        let shell = world.shell(&host.site).nothing_changed()?;
        let services = shell.services(host).await.nothing_changed()?;
        let mut services = services.iter();
        let runs = services.any(|one| one.name == self.service.name && one.running);
        let at_work = match runs {
            true => self.at_work(world, server, host).await,
            false => None,
        };
        self.judge(world, host).await?;
        shell.put(host, &self.file).await?;
        let install = ServiceChange::Install(Box::new(self.service.clone()));
        let change = |change| shell.service(host, &self.service.name, change);
        change(install).await.map_err(Trouble::after_a_change)?;
        match at_work {
            Some(mark) if mark == self.mark => Ok(()),
            Some(mark)
                if mark.way == self.mark.way
                    && self.service.reload_signal == ReloadSignal::Usr2 =>
            {
                let out = rotation::kept_out(world, host).await.partial()?;
                let reloaded = change(ServiceChange::Reload).await;
                reloaded.map_err(Trouble::after_a_change)?;
                self.await_worker(world, server, host).await?;
                rotation::keep_out(world, host, &out).await
            }
            _ => {
                let started = change(ServiceChange::Restart).await;
                started.map_err(Trouble::after_a_change)
            }
        }
    }

    async fn await_worker(
        &self,
        world: &World,
        server: &Server,
        host: &Host,
    ) -> Result<(), Trouble> {
        let what = format!(
            "the {} of {} runs with its new file",
            self.service.name, host.name
        );
        let reloaded = wait::until(world.clock.as_ref(), &what, RELOAD_LIMIT, || async {
            match self.at_work(world, server, host).await {
                Some(mark) if mark == self.mark => Ok(()),
                Some(_) => Err("it runs with the one before".to_owned()),
                None => Err("it does not say with which one it runs".to_owned()),
            }
        });
        reloaded.await.partial()
    }

    /// A file that its program does not understand never takes the place of one that works.
    async fn judge(&self, world: &World, host: &Host) -> Result<(), Trouble> {
        let shell = world.shell(&host.site).nothing_changed()?;
        for argv in &self.service.before {
            let beside = File {
                path: format!("{}.new", self.file.path),
                ..self.file.clone()
            };
            shell.put(host, &beside).await?;
            let words = argv.iter().map(|word| match word == &self.file.path {
                true => beside.path.clone(),
                false => word.clone(),
            });
            let ran = shell.run(host, &Command::new(words)).await?;
            shell.remove(host, &beside.path).await?;
            if ran.code != 0 {
                let message = format!(
                    "{} does not accept the configuration for `{}`",
                    self.service.name, host.name
                );
                let lines = ran.stderr.lines().filter(|line| !line.trim().is_empty());
                let fault = Fault::new(message).because_last(5, lines);
                return Err(Trouble::NothingChanged(fault));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_file_changes_with_its_values_and_that_of_the_way_with_the_service() {
        let proxy = |port: u16, word: &str| {
            let service = Service::new("x", vec![word.to_owned()], Duration::from_secs(1));
            let template = ("x", "{{ port }} {{ mark }}");
            let values = std::collections::BTreeMap::from([("port", port)]);
            Proxy::new(template, values, "/x".to_owned(), service).unwrap()
        };
        let one = proxy(1, "run");
        let text = String::from_utf8(one.file.bytes.clone()).unwrap();
        let said = text.trim().strip_prefix("1 ").unwrap();
        assert_eq!(said.parse(), Ok(one.mark.clone()));
        let [other_file, other_way] = [proxy(2, "run"), proxy(1, "go")];
        assert_eq!(other_file.mark.way, one.mark.way);
        assert_ne!(other_file.mark.file, one.mark.file);
        assert_ne!(other_way.mark.way, one.mark.way);
    }
}
