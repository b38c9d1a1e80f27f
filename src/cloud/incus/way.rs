//! The way into a server: SSH, and Incus's word for why it does not lead anywhere.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::api::Incus;
use super::server::STOPPED;
use crate::error::{Fault, Kind, Trouble};
use crate::shell::Host;
use crate::shell::ssh::Ssh;
use crate::shell::systemd::{Output, Wire};

pub(super) struct Way {
    pub(super) ssh: Ssh,
    pub(super) incus: Arc<Incus>,
    pub(super) project: String,
}

#[async_trait]
impl Wire for Way {
    fn is_sealed(&self, on: &Host) -> bool {
        self.ssh.is_sealed(on)
    }

    async fn exec(
        &self,
        on: &Host,
        argv: &[String],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, Trouble> {
        match self.ssh.exec(on, argv, input, limit).await {
            Err(Trouble::NothingChanged(fault)) if fault.kind() == Kind::Unavailable => {
                let path = format!("/1.0/instances/{}?project={}", on.name, self.project);
                let off = match self.incus.get(&path).await {
                    Ok(instance) => instance["status_code"] == STOPPED,
                    Err(_) => false,
                };
                Err(Trouble::NothingChanged(match off {
                    true => Fault::unavailable(format!("server `{}` is off", on.name)),
                    false => fault,
                }))
            }
            other => other,
        }
    }
}
