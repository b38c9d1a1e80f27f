//! The servers of several sites through one shell: an engine that copies from one cloud to another has to do with both.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use super::tunnel::Stream;
use super::{Command, File, Host, Ran, ServiceChange, ServiceState, Shell};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::SiteName;

/// Each server is reached as its own site's servers are. A site that is not in it is not asked.
pub struct Sites(pub BTreeMap<SiteName, Arc<dyn Shell>>);

impl Sites {
    fn of(&self, host: &Host) -> Result<&Arc<dyn Shell>, Fault> {
        self.0.get(&host.site).ok_or_else(|| {
            let message = format!(
                "nothing is asked of `{}`, where `{}` is",
                host.site, host.name
            );
            Fault::unavailable(message)
        })
    }
}

#[async_trait]
impl Shell for Sites {
    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble> {
        self.of(on).nothing_changed()?.run(on, command).await
    }

    async fn prepare(&self, on: &Host) -> Result<(), Trouble> {
        self.of(on).nothing_changed()?.prepare(on).await
    }

    async fn put(&self, on: &Host, file: &File) -> Result<(), Trouble> {
        self.of(on).nothing_changed()?.put(on, file).await
    }

    async fn get(&self, on: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        self.of(on)?.get(on, path).await
    }

    async fn end_of(&self, on: &Host, path: &str, most: usize) -> Result<Vec<u8>, Fault> {
        self.of(on)?.end_of(on, path, most).await
    }

    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble> {
        self.of(on).nothing_changed()?.remove(on, path).await
    }

    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault> {
        self.of(on)?.services(on).await
    }

    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble> {
        let shell = self.of(on).nothing_changed()?;
        shell.service(on, name, change).await
    }

    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        let shell = self.of(on).map_err(io::Error::other)?;
        shell.dial(on, port).await
    }
}
