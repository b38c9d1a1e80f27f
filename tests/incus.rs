//! The cloud `incus`: what every cloud must do, on real machines. Two daemons on this computer (tests/lab/clouds).

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

#[path = "battery/cloud.rs"]
mod cloud;
#[path = "harness/eventually.rs"]
mod eventually;
#[path = "harness/skip.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod skip;

use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use hafog::cloud::{Cloud, SiteSettings, incus};
use hafog::model::id::{SiteName, StackName};

/// The lab of this run, or why there is none.
static LAB: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let lab = lab();
    if let Err(why) = &lab {
        skip::skipped("incus", why);
    }
    lab.ok()
});

fn lab() -> Result<PathBuf, String> {
    if std::env::var_os("HAFOG_LAB").is_none() {
        return Err("`make lab` prepares two clouds, and HAFOG_LAB=1 asks for them".to_owned());
    }
    let missing = clouds(&["missing"]);
    if !missing.0 {
        return Err(missing.1.trim().replace('\n', ", "));
    }
    let folder = PathBuf::from("/tmp/hafog-lab");
    let up = clouds(&["up", "/tmp/hafog-lab"]);
    assert!(up.0, "the lab does not start: {}", up.1);
    let lab: serde_json::Value = serde_json::from_str(&up.1).expect("the lab says where it is");
    configure(&folder.join("conf"), &lab["clouds"]).expect("a client's folder");
    Ok(folder)
}

fn clouds(arguments: &[&str]) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/clouds");
    let ran = Program::new(script)
        .args(arguments)
        .env("HAFOG_LAB_TMPFS", "8G")
        .stdin(Stdio::null())
        .output()
        .expect("the lab's script is there");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let text = match text.is_empty() {
        true => String::from_utf8_lossy(&ran.stderr).into_owned(),
        false => text,
    };
    (ran.status.success(), text)
}

/// What `incus remote add` would write.
fn configure(folder: &Path, clouds: &serde_json::Value) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join("servercerts"))?;
    let mut remotes = String::from("remotes:\n");
    for (name, cloud) in clouds.as_object().expect("clouds") {
        let text = |key: &str| cloud[key].as_str().expect("text").to_owned();
        remotes.push_str(&format!("  {name}: {{ addr: \"{}\" }}\n", text("url")));
        std::fs::copy(text("client_certificate"), folder.join("client.crt"))?;
        std::fs::copy(text("client_key"), folder.join("client.key"))?;
        let pinned = folder.join("servercerts").join(format!("{name}.crt"));
        std::fs::copy(text("server_certificate"), pinned)?;
    }
    std::fs::write(folder.join("config.yml"), remotes)
}

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
        destroy(self.cloud()).await;
    }
}

impl Drop for IncusSite {
    fn drop(&mut self) {
        let cloud = self.cloud.clone();
        let destroyed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(destroy(cloud.as_ref()));
        });
        let ended = destroyed.join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

async fn destroy(cloud: &dyn Cloud) {
    for server in cloud.servers().await.unwrap() {
        cloud.delete_server(&server.name).await.unwrap();
    }
    for image in cloud.images().await.unwrap() {
        cloud.delete_image(&image.name).await.unwrap();
    }
    cloud.remove_site().await.unwrap();
}

fn fresh() -> Option<IncusSite> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let lab = LAB.as_ref()?;
    let home = tempfile::tempdir().expect("a folder");
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    // Incus lets a name be once on a bridge, whatever the project.
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let turn = number as usize % 2;
    let remote = ["a", "b"][turn];
    let turn = TURNS[turn].lock().unwrap_or_else(PoisonError::into_inner);
    let settings = SiteSettings {
        stack: StackName::from(format!("t{}x{number}", std::process::id()).as_str()),
        site: SiteName::from("east"),
        region: Some(remote.to_owned()),
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
