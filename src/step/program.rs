//! Where hafog is on a server. A whole machine gets it from here, below its own files, so that it survives a change of
//! image.

use std::time::Duration;

use tokio::sync::OnceCell;

use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::digest::sha256;
use crate::program;
use crate::shell::{Command, File, Host};
use crate::world::World;

/// On a machine, below its `etc`.
const PLACE: &str = "bin/hafog";

/// The program's path on the server.
pub(super) fn path(world: &World, host: &Host) -> Result<String, Fault> {
    match world.has_machines(&host.site) {
        true => Ok(format!("{}/{PLACE}", host.dirs.etc)),
        false => program::text(),
    }
}

struct Program {
    bytes: Vec<u8>,
    sha256: String,
}

/// Read once a command, however many machines get it.
async fn ours() -> Result<&'static Program, Fault> {
    static OURS: OnceCell<Program> = OnceCell::const_new();
    let read = || async {
        let cannot = |error| Fault::new("cannot read the hafog program").because(error);
        let path = program::path().map_err(cannot)?;
        let bytes = tokio::fs::read(path).await.map_err(cannot)?;
        let sha256 = sha256(&bytes);
        Ok::<_, Fault>(Program { bytes, sha256 })
    };
    OURS.get_or_try_init(read).await
}

/// Puts this program on a machine that has another one, or none, and lets it say its version there.
pub(super) async fn bring(world: &World, host: &Host) -> Result<(), Trouble> {
    if !world.has_machines(&host.site) {
        return Ok(());
    }
    let shell = world.shell(&host.site).nothing_changed()?;
    let ours = ours().await.nothing_changed()?;
    let path = path(world, host).nothing_changed()?;
    let mark = File {
        path: format!("{path}.sha256"),
        bytes: ours.sha256.clone().into_bytes(),
        mode: 0o644,
        for_service_user: false,
    };
    let there = shell.get(host, &mark.path).await.nothing_changed()?;
    if there.as_deref() == Some(&mark.bytes) {
        return Ok(());
    }
    // It is not in the old one's place before it has run here.
    let new = format!("{path}.new");
    let program = File {
        path: new.clone(),
        bytes: ours.bytes.clone(),
        mode: 0o755,
        for_service_user: false,
    };
    shell.put(host, &program).await?;
    let command = Command::new([new.as_str(), "--version"]).limit(Duration::from_secs(30));
    let ran = shell.run(host, &command).await?;
    if ran.code != 0 {
        let message = format!("this hafog does not run on `{}`", host.name);
        let fault = Fault::new(message).because(ran.stderr.trim());
        return Err(Trouble::Partial(fault));
    }
    shell.remove(host, &mark.path).await?;
    let moved = shell
        .run(host, &Command::new(["mv", "-T", &new, &path]))
        .await?;
    if moved.code != 0 {
        let message = format!("cannot put hafog into its place on `{}`", host.name);
        return Err(Trouble::Partial(
            Fault::new(message).because(moved.stderr.trim()),
        ));
    }
    shell.put(host, &mark).await
}
