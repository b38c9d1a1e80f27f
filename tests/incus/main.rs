//! The cloud `incus`: what every cloud must do, and the whole story, on real machines. Two clouds and a third place on
//! this computer (tests/lab/clouds).

#![expect(clippy::print_stdout, reason = "a failed test shows what there is")]

mod cache;
#[path = "../battery/cloud.rs"]
mod cloud;
#[path = "../harness/eventually.rs"]
mod eventually;
mod files;
#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod harness;
mod lab;
mod network;
mod partition;
mod php;
#[path = "../torture/random.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod random;
mod registered;
mod rungs;
mod story;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard};

use hafog::cloud::{Cloud, SiteSettings, incus};
use hafog::model::id::{SiteName, StackName};

use lab::LAB;

/// A site of a stack of its own. It is destroyed also when a test fails.
struct IncusSite {
    cloud: Arc<dyn Cloud>,
    _turn: MutexGuard<'static, ()>,
    _home: tempfile::TempDir,
}

impl IncusSite {
    fn cloud(&self) -> &dyn Cloud {
        self.cloud.as_ref()
    }

    async fn end(&self) {
        cloud::destroy(self.cloud()).await;
    }
}

impl Drop for IncusSite {
    fn drop(&mut self) {
        let cloud = self.cloud.clone();
        let destroyed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(cloud::destroy(cloud.as_ref()));
        });
        let ended = destroyed.join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn fresh() -> Option<IncusSite> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let lab = LAB.as_ref()?;
    let home = tempfile::tempdir().expect("a folder");
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    let cloud = number as usize % 2;
    let (turn, remote) = (lab::turn(cloud), ["a", "b"][cloud]);
    let settings = SiteSettings {
        stack: StackName::from(format!("t{}x{number}", std::process::id()).as_str()),
        site: SiteName::from("east"),
        network: None,
        region: Some(remote.to_owned()),
        hosts: Vec::new(),
        home: home.path().join(".hafog"),
    };
    let cloud = incus::open_with(&settings, &lab.join("conf")).expect("a cloud");
    Some(IncusSite {
        cloud,
        _turn: turn,
        _home: home,
    })
}

cloud_battery!(fresh);
