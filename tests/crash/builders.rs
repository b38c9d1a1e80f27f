//! Clouds that take their time: the builders of both sites are at work at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hafog::cloud::{Cloud, Firewall, Image, OnceKey, Power, Server, ServerWant};
use hafog::db::keys::Keys;
use hafog::error::{Fault, Trouble};
use hafog::journal::Silent;
use hafog::model::id::{ImageName, ServerName, SiteName};
use hafog::model::stack::Stack;
use hafog::plan;
use hafog::run::open::{self, OpenOptions};
use hafog::run::runner::{End, Stop};
use hafog::shell::{Command, File, Host, Ran, ServiceChange, ServiceState, Shell};
use hafog::sim::{SimWorld, stacks};
use tokio::time::{Instant, sleep};

use super::simulated::open_world;
use super::starting_world;
use super::verbs::{COPIED, east, stack_of, verb, west};

/// Seconds that one call takes: to boot, to run one command of a recipe, to make an image, to remove a server, to ask.
#[derive(Clone, Copy)]
struct Pace {
    boot: u64,
    command: u64,
    seal: u64,
    remove: u64,
    ask: u64,
}

const SLOW: Pace = Pace {
    boot: 60,
    command: 90,
    seal: 180,
    remove: 20,
    ask: 1,
};
const FASTER: Pace = Pace {
    boot: 40,
    command: 80,
    seal: 120,
    remove: 10,
    ask: 1,
};

async fn takes(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

struct Slow {
    cloud: Arc<dyn Cloud>,
    pace: Pace,
}

#[async_trait]
impl Cloud for Slow {
    async fn ping(&self) -> Result<(), Fault> {
        takes(self.pace.ask).await;
        self.cloud.ping().await
    }
    async fn servers(&self) -> Result<Vec<Server>, Fault> {
        takes(self.pace.ask).await;
        self.cloud.servers().await
    }
    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        takes(self.pace.boot).await;
        self.cloud.create_server(want, key).await
    }
    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        self.cloud.power(name, to).await
    }
    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble> {
        takes(self.pace.remove).await;
        self.cloud.delete_server(name).await
    }
    async fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        takes(self.pace.seal).await;
        self.cloud.seal(builder, name, tags).await
    }
    async fn images(&self) -> Result<Vec<Image>, Fault> {
        takes(self.pace.ask).await;
        self.cloud.images().await
    }
    async fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        takes(self.pace.ask).await;
        self.cloud.tag_image(name, tags).await
    }
    async fn delete_image(&self, name: &ImageName) -> Result<(), Trouble> {
        self.cloud.delete_image(name).await
    }
    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        self.cloud.tag_server(name, tags).await
    }
    async fn change_image(&self, name: &ServerName, image: &ImageName) -> Result<(), Trouble> {
        self.cloud.change_image(name, image).await
    }
    async fn firewall(&self) -> Result<Option<Firewall>, Fault> {
        self.cloud.firewall().await
    }
    async fn allow(&self, firewall: &Firewall) -> Result<(), Trouble> {
        self.cloud.allow(firewall).await
    }
    async fn remove_site(&self) -> Result<(), Trouble> {
        self.cloud.remove_site().await
    }
    fn shell(&self) -> Arc<dyn Shell> {
        Arc::new(SlowShell {
            shell: self.cloud.shell(),
            pace: self.pace,
        })
    }
}

struct SlowShell {
    shell: Arc<dyn Shell>,
    pace: Pace,
}

#[async_trait]
impl Shell for SlowShell {
    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble> {
        takes(self.pace.command).await;
        self.shell.run(on, command).await
    }
    async fn put(&self, on: &Host, file: &File) -> Result<(), Trouble> {
        takes(self.pace.ask).await;
        self.shell.put(on, file).await
    }
    async fn get(&self, on: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        takes(self.pace.ask).await;
        self.shell.get(on, path).await
    }
    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble> {
        self.shell.remove(on, path).await
    }
    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault> {
        self.shell.services(on).await
    }
    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble> {
        self.shell.service(on, name, change).await
    }
}

/// How long `hafog build SITES...` takes, from nothing, and again when there is nothing to do: how many steps.
async fn build(sites: &[SiteName]) -> (Duration, usize) {
    let stack = Arc::new(stacks::small());
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = SimWorld::new("2026-11-21T03:00:00Z".parse().expect("a time"), &stack);
    let began = Instant::now();
    let mut again = 0;
    for _ in 0..2 {
        let mut world = open_world(&sim, &stack, &keys);
        for (site, pace) in [(east(), SLOW), (west(), FASTER)] {
            let cloud = world.clouds[&site].clone();
            world.clouds.insert(site, Arc::new(Slow { cloud, pace }));
        }
        let options = OpenOptions {
            assume_down: Default::default(),
            lock_timeout: Duration::from_secs(60),
            reason: None,
            verb: "build".to_owned(),
            take_lease: true,
        };
        let session = open::open(world, &options).await.expect("a session");
        let plan = plan::build::build(&stack, &session.facts, sites);
        again = plan.steps.len();
        if again > 0 {
            let (listener, stop) = (Arc::new(Silent), Stop::default());
            // What the command runs at the same time, unless it is told otherwise.
            let (_, end) = session.execute(&plan, &[], listener, &stop, 10).await;
            assert!(matches!(end, End::Done), "{end:?}");
        }
        session.close().await.expect("it closes");
        if again == 0 {
            break;
        }
    }
    (began.elapsed(), again)
}

#[tokio::test(start_paused = true)]
async fn two_clouds_build_in_the_time_of_the_slower_one() {
    let (alone, steps) = build(&[east()]).await;
    assert_eq!(steps, 0, "an image that is there is made again");
    let (other, _) = build(&[west()]).await;
    let (both, _) = build(&[east(), west()]).await;
    let ratio = both.as_secs_f64() / alone.as_secs_f64();
    let said =
        format!("builds: {alone:?} and {other:?} alone, both {both:?}, {ratio:.3} of the slower\n");
    let _ = std::io::stderr().write_all(said.as_bytes());
    assert!(other < alone && alone > Duration::from_secs(300));
    assert!(ratio <= 1.2, "{ratio:.3}");
}

/// The kinds of steps that `hafog clone west` has for images after `hafog up`.
async fn steps_of_clone(change: fn(&mut Stack), happens: fn(&SimWorld)) -> BTreeSet<String> {
    let mut stack = stack_of(verb(COPIED)).as_ref().clone();
    change(&mut stack);
    let stack = Arc::new(stack);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = starting_world(&stack, &keys, verb(COPIED)).await;
    happens(&sim);
    let world = open_world(&sim, &stack, &keys);
    let facts = hafog::observe::facts(&world).await.expect("facts");
    let plan = plan::up::clone(&stack, &facts, &west());
    let names = plan.steps.iter().map(|step| step.name.as_str());
    let kinds = names.filter_map(|name| name.split(' ').next());
    let kinds = kinds.filter(|kind| kind.contains("image") || kind.contains("builder"));
    kinds.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_site_gets_its_images_from_another_host_of_its_cloud() {
    let copied = BTreeSet::from(["copy-image", "try-image"].map(str::to_owned));
    let made = [
        "create-builder",
        "delete-builder",
        "seal-image",
        "try-image",
    ];
    let made = BTreeSet::from(made.map(str::to_owned));
    let nothing: fn(&SimWorld) = |_| {};
    assert_eq!(steps_of_clone(|_| {}, nothing).await, copied);
    // Another cloud, one that cannot, and one host that is two sites.
    let change: [fn(&mut Stack); 3] = [
        |stack| stack.sites[1].cloud = "elsewhere".to_owned(),
        |stack| stack.sites.iter_mut().for_each(|site| site.copies = false),
        |stack| stack.sites[0].region = stack.sites[1].region.clone(),
    ];
    for change in change {
        assert_eq!(steps_of_clone(change, nothing).await, made);
    }
    // Nobody is asked who does not answer.
    let dark: fn(&SimWorld) = |sim| sim.set_cloud_answers(&east(), false);
    assert_eq!(steps_of_clone(|_| {}, dark).await, made);
}
