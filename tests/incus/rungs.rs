//! The rungs of the fence on real machines, each where no stronger one can be had: what the cloud is told to refuse it
//! refuses, everything else is real. The proof of each is looked at in the world, and the old primary comes back.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hafog::cloud::{Cloud, Firewall, Image, OnceKey, Power, Server, ServerWant};
use hafog::cmd::{Call, open};
use hafog::error::{Fault, Trouble};
use hafog::journal::Silent;
use hafog::model::id::{ImageName, ServerName, SiteName};
use hafog::plan::failover::{self, Options};
use hafog::run::open::OpenOptions;
use hafog::run::runner::{End, Stop};
use hafog::shell::Shell;
use hafog::ui::print::{Colour, Ui};

use crate::lab::{Pair, cloud, incus, lab, on_server};

/// What the process that fails over is told.
const TO: &str = "HAFOG_TEST_TO";
const REFUSES: &str = "HAFOG_TEST_REFUSES";
/// How the old primary is when it is fenced: it answers, and writes.
const HEALTHY: &str = "primary-healthy";
const DATABASE: u16 = 5432;
const SHORT: Duration = Duration::from_secs(2);

#[test]
fn each_rung_of_the_fence_holds_where_no_stronger_one_can_be_had() {
    let Some(pair) = Pair::small() else {
        return;
    };
    let before = lab(&["inventory"]);
    pair.must("up --yes");
    pair.must("clone west --yes");
    pair.until_ready("the standby is ready", "preflight");

    let said = fail_over(&pair, "west", &[]);
    assert!(said.contains("shop-east-db-1 is powered off"), "{said}");
    assert_eq!(status("east"), "STOPPED");
    comes_back(&pair, "east", "west");

    let address = address(&pair, "west");
    assert!(answers(&address, DATABASE), "it is on the network");
    assert!(east_reaches(&address), "and reachable from the other cloud");
    let said = fail_over(&pair, "east", &["Off"]);
    assert!(
        said.contains("shop-west-db-1 is cut off from the network"),
        "{said}"
    );
    assert_eq!(status("west"), "RUNNING");
    assert!(!answers(&address, DATABASE) && !answers(&address, 22));
    assert!(!east_reaches(&address));
    let (_, links) = on_server("west", "shop-west-db-1", &["ls", "/sys/class/net"]);
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["lo"]);
    let facts = pair.json("show facts");
    let seen = &facts["sites"]["west"]["servers"]["shop-west-db-1"];
    assert_eq!(seen["state"], "isolated", "{seen}");
    assert_eq!(seen["host"]["address"], address.as_str(), "{seen}");
    comes_back(&pair, "west", "east");
    assert_eq!(self::address(&pair, "west"), address);
    assert!(answers(&address, DATABASE) && east_reaches(&address));

    let said = fail_over(&pair, "west", &["Off", "Isolate"]);
    assert!(
        said.contains("the database on shop-east-db-1 is stopped"),
        "{said}"
    );
    assert_eq!(status("east"), "RUNNING");
    let (found, which) = on_server("east", "shop-east-db-1", &["pgrep", "-a", "postgres"]);
    assert!(!found, "{which}");
    comes_back(&pair, "east", "west");

    pair.must("destroy --yes");
    assert_eq!(lab(&["inventory"]), before);
}

/// Fails over from a primary that is alive; what the run wrote of it.
fn fail_over(pair: &Pair, to: &str, refuses: &[&str]) -> String {
    let like = pair.command("status");
    let environment = like.get_envs();
    let me = std::env::current_exe().expect("this test");
    let ran = Program::new(me)
        .args(["rungs::in_a_process_of_its_own", "--exact", "--nocapture"])
        .env_clear()
        .envs(environment.filter_map(|(key, value)| Some((key, value?))))
        .env(TO, to)
        .env(REFUSES, refuses.join(" "))
        .current_dir(pair.home.path())
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&ran.stdout);
    let why = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "to {to}: {said}\n{why}");
    pair.until_writer(&format!("shop-{to}-db-1"));
    pair.must("show journal").stdout
}

/// The old primary's site is a standby again, and has what was written meanwhile.
fn comes_back(pair: &Pair, site: &str, primary: &str) {
    let there = pair.address(primary);
    let order = format!("while-{site}-was-fenced");
    pair.until("an order at the new primary", || pair.order(&there, &order));
    pair.must("commit --yes");
    pair.must(&format!("failback {site} --rejoin-only --yes"));
    pair.until_ready(&format!("{site} is ready again"), "preflight");
    let here = pair.address(site);
    assert!(pair.orders(&here).contains(&order));
}

fn address(pair: &Pair, site: &str) -> String {
    let facts = pair.json("show facts");
    let server = &facts["sites"][site]["servers"][format!("shop-{site}-db-1")];
    let address = server["host"]["address"].as_str();
    address.expect("the node has an address").to_owned()
}

/// Whether something listens there, as seen from this machine.
fn answers(address: &str, port: u16) -> bool {
    let at = format!("{address}:{port}").parse().expect("an address");
    TcpStream::connect_timeout(&at, SHORT).is_ok()
}

/// The same, as seen from a server of the other cloud.
fn east_reaches(address: &str) -> bool {
    let script = format!("timeout 2 bash -c 'echo > /dev/tcp/{address}/{DATABASE}'");
    on_server("east", "shop-east-web-1", &["sh", "-c", &script]).0
}

/// What Incus says of a site's first node.
fn status(site: &str) -> String {
    let (project, name) = (format!("shop-{site}"), format!("shop-{site}-db-1"));
    let listed = ["list", "--project", &project, &name, "-c", "s", "-f", "csv"];
    let (done, said) = incus(cloud(site), &listed);
    assert!(done, "{said}");
    said.trim().to_owned()
}

/// The other half of [`fail_over`], in the environment that a command has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_process_of_its_own() {
    let (Ok(to), Ok(refuses)) = (std::env::var(TO), std::env::var(REFUSES)) else {
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    hafog::program::set(env!("CARGO_BIN_EXE_hafog"));
    let call = Call {
        file: "hafog.yaml".into(),
        ui: Ui::new(Colour::Never, false, false, true),
    };
    let (mut world, _) = open::world(&call, &open::Without::images())
        .await
        .expect("a world");
    let stack = world.stack.clone();
    for cloud in world.clouds.values_mut() {
        *cloud = Arc::new(Refusing {
            inner: cloud.clone(),
            refuses: refuses.clone(),
        });
    }
    let options = OpenOptions {
        assume_down: Default::default(),
        lock_timeout: Duration::from_secs(60),
        reason: None,
        verb: "failover".to_owned(),
        take_lease: true,
    };
    let session = hafog::run::open::open(world, &options).await;
    let session = session.expect("a session");
    let accept = vec![HEALTHY.to_owned()];
    let how = Options {
        accept: accept.clone(),
        ..Options::default()
    };
    let plan = failover::failover(&stack, &session.facts, &SiteName::new(to), &how);
    let others = plan.refusals.iter().filter(|one| one.name != HEALTHY);
    assert_eq!(
        others.collect::<Vec<_>>(),
        Vec::<&hafog::plan::safety::Refusal>::new()
    );
    let (_, end) = session
        .execute(&plan, &accept, Arc::new(Silent), &Stop::default(), 4)
        .await;
    let _ = session.close().await;
    assert!(matches!(end, End::Done | End::DoneBut(_)), "{end:?}");
}

/// A cloud that refuses some words of [`Power`].
struct Refusing {
    inner: Arc<dyn Cloud>,
    refuses: String,
}

#[async_trait]
impl Cloud for Refusing {
    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        let word = format!("{to:?}");
        match self.refuses.split(' ').any(|refused| refused == word) {
            true => Err(Trouble::NothingChanged(Fault::new("refused, as told"))),
            false => self.inner.power(name, to).await,
        }
    }

    async fn ping(&self) -> Result<(), Fault> {
        self.inner.ping().await
    }
    async fn servers(&self) -> Result<Vec<Server>, Fault> {
        self.inner.servers().await
    }
    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        self.inner.create_server(want, key).await
    }
    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble> {
        self.inner.delete_server(name).await
    }
    async fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        self.inner.seal(builder, name, tags).await
    }
    async fn images(&self) -> Result<Vec<Image>, Fault> {
        self.inner.images().await
    }
    async fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        self.inner.tag_image(name, tags).await
    }
    async fn delete_image(&self, name: &ImageName) -> Result<(), Trouble> {
        self.inner.delete_image(name).await
    }
    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        self.inner.tag_server(name, tags).await
    }
    async fn change_image(&self, name: &ServerName, image: &ImageName) -> Result<(), Trouble> {
        self.inner.change_image(name, image).await
    }
    async fn firewall(&self) -> Result<Option<Firewall>, Fault> {
        self.inner.firewall().await
    }
    async fn allow(&self, firewall: &Firewall) -> Result<(), Trouble> {
        self.inner.allow(firewall).await
    }
    async fn remove_site(&self) -> Result<(), Trouble> {
        self.inner.remove_site().await
    }
    fn shell(&self) -> Arc<dyn Shell> {
        self.inner.shell()
    }
}
