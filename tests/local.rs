//! The local cloud: what every cloud must do, and what is its own. All through real supervisors and real processes.

#![expect(clippy::print_stdout, reason = "a failed test shows what there is")]

#[path = "battery/cloud.rs"]
mod cloud;
#[path = "harness/eventually.rs"]
mod eventually;
mod harness {
    #[expect(dead_code, reason = "only what the stacks need is missing there")]
    pub mod skip;
}

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloud::*;
use eventually::eventually;
use hafog::cloud::local::processes::{Process, Search};
use hafog::cloud::local::shell::LocalShell;
use hafog::cloud::local::supervisor::MARKER_PORT;
use hafog::cloud::local::user::service_user;
use hafog::cloud::{Cloud, Power, ServerState, SiteSettings, local};
use hafog::model::id::{ImageName, ServerName, SiteName, StackName};
use hafog::shell::{Command, Host, ServiceChange, Shell, StopSignal};
use harness::skip::skipped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A site in a home of its own. It is destroyed also when a test fails.
struct LocalSite {
    settings: SiteSettings,
    cloud: Arc<dyn Cloud>,
    base: PathBuf,
    _home: Arc<tempfile::TempDir>,
}

fn settings(home: &Path, site: &str) -> SiteSettings {
    SiteSettings {
        stack: StackName::from("shop"),
        site: SiteName::from(site),
        network: None,
        region: None,
        hosts: Vec::new(),
        home: home.join(".hafog"),
    }
}

impl LocalSite {
    fn at(home: Arc<tempfile::TempDir>, site: &str) -> LocalSite {
        hafog::program::set(env!("CARGO_BIN_EXE_hafog"));
        let settings = settings(home.path(), site);
        LocalSite {
            cloud: (local::ABOUT.open)(&settings).unwrap(),
            base: local::base_folder(&settings).unwrap(),
            settings,
            _home: home,
        }
    }

    fn cloud(&self) -> &dyn Cloud {
        self.cloud.as_ref()
    }

    /// As another command would open it.
    fn again(&self) -> Arc<dyn Cloud> {
        (local::ABOUT.open)(&self.settings).unwrap()
    }

    fn folder(&self, server: &str) -> PathBuf {
        self.base.join("servers").join(server)
    }

    fn processes(&self) -> Vec<Process> {
        let folders = vec![self.base.clone()];
        Search {
            folders,
            ..Search::default()
        }
        .find()
    }

    async fn end(&self) {
        destroy(self.cloud()).await;
        assert_eq!(self.processes(), Vec::new());
        for folder in [&self.base, self.base.parent().unwrap()] {
            assert!(
                !folder.exists() || folder == self.settings.home.as_path(),
                "{}",
                folder.display()
            );
        }
        assert!(!self.settings.home.exists() || names(&self.settings.home).is_empty());
    }
}

impl Drop for LocalSite {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A failed test says what the servers said.
            for server in names(&self.base.join("servers")) {
                let folder = self.folder(&server).join("log");
                for log in names(&folder) {
                    let text = std::fs::read(folder.join(&log)).unwrap_or_default();
                    println!("{server} {log}: {}", String::from_utf8_lossy(&text));
                }
            }
            println!("{:?}", self.processes());
        }
        let cloud = self.cloud.clone();
        let destroyed = std::thread::spawn(move || {
            tokio::runtime::Runtime::new()
                .unwrap()
                .block_on(destroy(cloud.as_ref()));
        });
        let _ = destroyed.join();
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn local_site() -> LocalSite {
    LocalSite::at(Arc::new(tempfile::tempdir().unwrap()), "east")
}

fn supervisor_of(site: &LocalSite, server: &str) -> Pid {
    let record = std::fs::read(site.folder(server).join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    Pid::from_raw(record["pid"].as_i64().unwrap() as i32)
}

cloud_battery!(some_site);

fn some_site() -> Option<LocalSite> {
    Some(local_site())
}

#[tokio::test]
async fn power_off_finds_what_hides() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    // A session of its own, an empty environment, another folder, and an orphan: each alone, and all together.
    let hide = "env -i setsid sh -c 'cd /; echo $$ > $0; exec sleep 601' $PWD/all & \
                (setsid sh -c 'echo $$ > session; exec sleep 602' &) ; \
                sh -c 'cd /; echo $$ > $0; exec sleep 603' $PWD/folder & wait";
    install(site.cloud(), &host, script("hide", hide)).await;
    let pid = |file: &str| {
        let text = std::fs::read_to_string(site.folder("one").join("data").join(file));
        text.unwrap_or_default().trim().parse::<i32>().ok()
    };
    let files = ["all", "session", "folder"];
    eventually("all three run", || async {
        files.iter().all(|file| pid(file).is_some())
    })
    .await;
    let pids: Vec<Pid> = files
        .iter()
        .map(|file| Pid::from_raw(pid(file).unwrap()))
        .collect();
    assert!(pids.iter().all(|pid| kill(*pid, None).is_ok()));
    site.cloud().power(&host.name, Power::Off).await.unwrap();
    let alive = |pid: &Pid| {
        hafog::cloud::local::processes::look(pid.as_raw()).is_some_and(|p| !p.is_gone())
    };
    assert_eq!(pids.iter().filter(|pid| alive(pid)).count(), 0);
    assert_eq!(server(site.cloud(), "one").await.state, ServerState::Off);
    site.end().await;
}

#[tokio::test]
async fn a_killed_supervisor_is_seen_and_a_boot_ends_what_it_left() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    install(site.cloud(), &host, script("beat", BEAT)).await;
    comes_to_beat(site.cloud(), &host).await;
    let old = state(site.cloud(), &host, "beat").await.pid.unwrap() as i32;
    kill_supervisor(&site, "one").await;
    // Not "off": its service still works.
    assert!(kill(Pid::from_raw(old), None).is_ok());
    let trouble = site.cloud().shell().services(&host).await.unwrap_err();
    assert_eq!(trouble.message(), "server `one` is off");
    site.cloud().power(&host.name, Power::On).await.unwrap();
    assert!(hafog::cloud::local::processes::look(old).is_none_or(|process| process.is_gone()));
    comes_to_beat(site.cloud(), &host).await;
    // And off, the same way.
    kill(supervisor_of(&site, "one"), Signal::SIGKILL).unwrap();
    site.cloud().power(&host.name, Power::Off).await.unwrap();
    assert_eq!(server(site.cloud(), "one").await.state, ServerState::Off);
    assert_eq!(site.processes(), Vec::new());
    kill_supervisor_then_delete(&site).await;
    site.end().await;
}

/// Returns when it is seen that it is gone, and that its services are not.
async fn kill_supervisor(site: &LocalSite, name: &str) {
    kill(supervisor_of(site, name), Signal::SIGKILL).unwrap();
    eventually("it is seen", || async {
        matches!(
            server(site.cloud(), name).await.state,
            ServerState::Failed(_)
        )
    })
    .await;
}

async fn kill_supervisor_then_delete(site: &LocalSite) {
    let name = ServerName::from("one");
    site.cloud().power(&name, Power::On).await.unwrap();
    kill(supervisor_of(site, "one"), Signal::SIGKILL).unwrap();
    site.cloud().delete_server(&name).await.unwrap();
    assert_eq!(site.processes(), Vec::new());
    assert!(names(&site.base.join("servers")).is_empty());
}

#[tokio::test]
async fn nothing_of_the_caller_reaches_a_server() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    let secrets = format!("{}/secrets", host.dirs.etc);
    let file = hafog::shell::File {
        path: secrets.clone(),
        bytes: b"# ours\n\nPASSWORD=a=b c\n".to_vec(),
        mode: 0o600,
        for_service_user: false,
    };
    site.cloud().shell().put(&host, &file).await.unwrap();
    let mut service = script(
        "tell",
        "env -0 > told; mv told env; ls -l /proc/$$/fd > fds; exec sleep 600",
    );
    service.env.insert("PORT".to_owned(), "8080".to_owned());
    service.env_file = Some(secrets);
    install(site.cloud(), &host, service).await;
    eventually("it told", || async {
        names(Path::new(&host.dirs.data)).contains("fds")
    })
    .await;
    let told = std::fs::read(Path::new(&host.dirs.data).join("env")).unwrap();
    let told = String::from_utf8(told).unwrap();
    let told: BTreeMap<&str, &str> = told
        .split_terminator('\0')
        .map(|e| e.split_once('=').unwrap())
        .collect();
    let keys: Vec<&str> = told
        .keys()
        .copied()
        .filter(|key| !["_", "OLDPWD"].contains(key))
        .collect();
    assert_eq!(
        keys,
        [
            "HAFOG_SERVER",
            "HOME",
            "LANG",
            "PASSWORD",
            "PATH",
            "PORT",
            "PWD"
        ]
    );
    assert_eq!((told["PASSWORD"], told["PORT"]), ("a=b c", "8080"));
    let told = output(
        site.cloud(),
        &host,
        "env | cut -d= -f1 | sort | tr '\\n' ' '",
    )
    .await;
    assert_eq!(
        told.replace("_ ", ""),
        "HAFOG_COMMAND HAFOG_SERVER HOME LANG PATH PWD ".replace("_ ", "")
    );
    // Its own session, and no terminal.
    let pid = supervisor_of(&site, "one");
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
    assert!(
        !hafog::cloud::local::processes::look(pid.as_raw())
            .unwrap()
            .terminal
    );
    site.end().await;
}

#[tokio::test]
async fn a_supervisor_reaps_what_others_forgot() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    let orphans = "for i in 1 2 3 4 5; do (sh -c 'exit 0' &) ; done; touch done; exec sleep 600";
    install(site.cloud(), &host, script("orphans", orphans)).await;
    eventually("they were made", || async {
        names(Path::new(&host.dirs.data)).contains("done")
    })
    .await;
    let supervisor = supervisor_of(&site, "one").as_raw();
    let corpses = || {
        let all = hafog::cloud::local::processes::all();
        all.iter()
            .filter(|p| p.parent == supervisor && p.state == 'Z')
            .count()
    };
    eventually("none is left", || async { corpses() == 0 }).await;
    assert!(state(site.cloud(), &host, "orphans").await.running);
    // Asked to end, it stops its services in order.
    kill(Pid::from_raw(supervisor), Signal::SIGTERM).unwrap();
    eventually("all is stopped", || async {
        server(site.cloud(), "one").await.state == ServerState::Off
    })
    .await;
    site.end().await;
}

#[tokio::test]
async fn a_supervisor_goes_with_its_folder() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    install(site.cloud(), &host, script("sleep", "exec sleep 600")).await;
    assert!(!site.processes().is_empty());
    std::fs::remove_dir_all(&site.base).unwrap();
    eventually("nothing runs", || async { site.processes().is_empty() }).await;
    site.end().await;
}

#[tokio::test]
async fn a_seal_that_was_cut_off_is_completed() {
    let site = local_site();
    let host = booted(site.cloud(), &want("builder")).await;
    output(site.cloud(), &host, "echo 12345 > ../tree/file").await;
    // Killed between the rename and the record.
    let image = site.base.join("images/web-1");
    std::fs::create_dir_all(&image).unwrap();
    std::fs::rename(site.folder("builder").join("tree"), image.join("tree")).unwrap();
    assert_eq!(site.cloud().images().await.unwrap(), Vec::new());
    let name = ImageName::from("web-1");
    let mut one = want("one");
    one.image = Some(name.clone());
    site.cloud()
        .create_server(&one, &key("a"))
        .await
        .unwrap_err();
    let sealed = site
        .cloud()
        .seal(&host.name, &name, &BTreeMap::new())
        .await
        .unwrap();
    assert_eq!(sealed.bytes, 6);
    assert_eq!(site.cloud().images().await.unwrap(), vec![sealed]);
    for path in [image.join("tree"), image.join("tree/file")] {
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o222, 0);
    }
    booted(site.cloud(), &one).await;
    site.end().await;
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_completed_or_deleted() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    let record = site.folder("one").join("server.json");
    let cut_off = || {
        // Only the record is there.
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(&record, text.replace("\"made\": true", "\"made\": false")).unwrap();
        for part in names(&site.folder("one")) {
            if part != "server.json" {
                hafog::durable::remove(&site.folder("one").join(part)).unwrap();
            }
        }
    };
    site.cloud().power(&host.name, Power::Off).await.unwrap();
    cut_off();
    assert_eq!(
        server(site.cloud(), "one").await.state,
        ServerState::Pending
    );
    site.cloud()
        .create_server(&want("one"), &key("other"))
        .await
        .unwrap_err();
    let made = site
        .cloud()
        .create_server(&want("one"), &key("one"))
        .await
        .unwrap();
    assert_eq!(
        (made.state, made.host),
        (ServerState::Running, Some(host.clone()))
    );
    output(site.cloud(), &host, "touch here").await;
    site.cloud().power(&host.name, Power::Off).await.unwrap();
    cut_off();
    site.cloud().delete_server(&host.name).await.unwrap();
    assert_eq!(site.cloud().servers().await.unwrap(), Vec::new());
    // What was being made or removed without a name is no server, and goes with the next change.
    booted(site.cloud(), &want("two")).await;
    let servers = site.base.join("servers");
    std::fs::rename(servers.join("two"), servers.join(".gone-two")).unwrap();
    std::fs::create_dir(servers.join(".new-three")).unwrap();
    assert_eq!(site.cloud().servers().await.unwrap(), Vec::new());
    site.cloud()
        .delete_server(&ServerName::from("two"))
        .await
        .unwrap();
    assert_eq!(names(&servers), BTreeSet::new());
    assert_eq!(site.processes(), Vec::new());
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_commands_and_two_sites_do_not_collide() {
    let home = Arc::new(tempfile::tempdir().unwrap());
    let (east, west) = (
        LocalSite::at(home.clone(), "east"),
        LocalSite::at(home, "west"),
    );
    let mut commands = tokio::task::JoinSet::new();
    for round in 0..2 {
        for name in ["a", "b", "c"] {
            for site in [&east, &west] {
                let cloud = site.again();
                commands.spawn(async move {
                    // Both rounds have the same key: the same run, twice.
                    let made = cloud.create_server(&want(name), &key(name)).await.unwrap();
                    (round, made.host.unwrap())
                });
            }
        }
    }
    let mut hosts: Vec<Host> = Vec::new();
    while let Some(made) = commands.join_next().await {
        hosts.push(made.unwrap().1);
    }
    let addresses: BTreeSet<_> = hosts.iter().map(|host| host.address).collect();
    assert_eq!((hosts.len(), addresses.len()), (12, 6));
    let block = |host: &Host| {
        host.address
            .to_string()
            .rsplit_once('.')
            .unwrap()
            .0
            .to_owned()
    };
    let blocks: BTreeSet<_> = hosts
        .iter()
        .map(|host| (host.site.clone(), block(host)))
        .collect();
    assert_eq!(blocks.len(), 2);
    for host in &hosts {
        let taken = std::net::UdpSocket::bind((host.address, MARKER_PORT));
        assert!(taken.is_err(), "{} is held by its supervisor", host.address);
    }
    // Two boots and two deletions at once.
    let name = ServerName::from("a");
    east.cloud().power(&name, Power::Off).await.unwrap();
    let (first, second) = (east.again(), east.again());
    let (first, second) = tokio::join!(
        first.power(&name, Power::On),
        second.power(&name, Power::On)
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
    let (first, second) = (east.again(), east.again());
    let (first, second) = tokio::join!(first.delete_server(&name), second.delete_server(&name));
    assert_eq!((first, second), (Ok(()), Ok(())));
    destroy(east.cloud()).await;
    destroy(west.cloud()).await;
    for host in &hosts {
        std::net::UdpSocket::bind((host.address, MARKER_PORT)).unwrap();
    }
    west.end().await;
}

/// Not a test by itself: what `killed_anywhere_…` starts and kills.
#[tokio::test]
async fn works_until_it_is_killed() {
    let Some(home) = std::env::var_os("HAFOG_TEST_HOME") else {
        return;
    };
    hafog::program::set(env!("CARGO_BIN_EXE_hafog"));
    let cloud = (local::ABOUT.open)(&settings(Path::new(&home), "east")).unwrap();
    let says = |what: &str| writeln!(std::io::stdout(), "begins: {what}").unwrap();
    loop {
        says("image");
        image(cloud.as_ref(), "web-1", "one").await;
        let mut one = want("one");
        one.image = Some(ImageName::from("web-1"));
        says("boot");
        let host = booted(cloud.as_ref(), &one).await;
        says("install");
        install(cloud.as_ref(), &host, script("beat", BEAT)).await;
        for power in [Power::Freeze, Power::Off, Power::On] {
            says("power");
            cloud.power(&host.name, power).await.unwrap();
        }
        says("destroy");
        destroy(cloud.as_ref()).await;
    }
}

/// Calls of one round of [`works_until_it_is_killed`].
const CALLS: u64 = 7;

#[tokio::test]
async fn killed_anywhere_the_same_call_goes_on() {
    let site = local_site();
    for round in 0..25 {
        let mut worker = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "works_until_it_is_killed", "--nocapture"])
            .env("HAFOG_TEST_HOME", site.settings.home.parent().unwrap())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Each call is cut where it begins, a little later, and later still: that is the fault, and no condition.
        let into_the_call = Duration::from_millis(9 * (round / CALLS));
        let lines = std::io::BufReader::new(worker.stdout.take().unwrap()).lines();
        let mut begins =
            lines.filter(|line| line.as_ref().is_ok_and(|line| line.contains("begins: ")));
        let nth = (round % CALLS) as usize;
        assert!(begins.nth(nth).is_some(), "round {round}: no call {nth}");
        tokio::time::sleep(into_the_call).await;
        assert_eq!(
            worker.try_wait().unwrap(),
            None,
            "it went wrong before it was killed"
        );
        worker.kill().unwrap();
        worker.wait().unwrap();
        let images = site.cloud().images().await.unwrap();
        for name in ["one", "builder-web-1"] {
            let mut want = want(name);
            want.image = images
                .first()
                .map(|image| image.name.clone())
                .filter(|_| name == "one");
            site.cloud().create_server(&want, &key(name)).await.unwrap();
            // The worker may have been cutting its power: that goes on for a moment.
            eventually("it runs", || async {
                if server(site.cloud(), name).await.state == ServerState::Frozen {
                    site.cloud().power(&want.name, Power::Off).await.unwrap();
                }
                let on = site.cloud().power(&want.name, Power::On).await;
                on.is_ok() && server(site.cloud(), name).await.state == ServerState::Running
            })
            .await;
        }
        site.end().await;
    }
}

/// HUP, INT and QUIT, of the signals that the process ignores.
fn ignored(status: &str) -> u64 {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 0b111
}

/// As `nohup hafog up &` in a script starts them.
#[tokio::test]
async fn a_service_hears_signals_that_its_starter_ignores() {
    const NAME: &str = "a_service_hears_signals_that_its_starter_ignores";
    if std::env::var_os("HAFOG_TEST_IGNORES").is_none() {
        let ran = std::process::Command::new("/bin/sh")
            .args(["-c", "trap '' HUP INT QUIT; exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(NAME)
            .env("HAFOG_TEST_IGNORES", "yes")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let here = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(ignored(&here), 0b111, "nothing is tried");
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    let tells = script("tell", "cat /proc/$$/status > told; exec sleep 600");
    install(site.cloud(), &host, tells).await;
    let told = Path::new(&host.dirs.data).join("told");
    eventually("it told", async || {
        std::fs::read_to_string(&told).is_ok_and(|text| text.contains("SigCgt"))
    })
    .await;
    assert_eq!(ignored(&std::fs::read_to_string(&told).unwrap()), 0);
    site.end().await;
}

#[tokio::test]
async fn the_folder_of_another_site_is_left_alone() {
    let site = local_site();
    booted(site.cloud(), &want("one")).await;
    let mut settings = site.settings.clone();
    settings.region = Some(site.base.display().to_string());
    settings.stack = StackName::from("other");
    let other = (local::ABOUT.open)(&settings).unwrap();
    let trouble = other
        .create_server(&want("two"), &key("two"))
        .await
        .unwrap_err();
    assert!(
        trouble
            .fault()
            .message()
            .ends_with("is the folder of site `east` of stack `shop`"),
        "{trouble}"
    );
    site.end().await;
}

#[tokio::test]
async fn a_program_on_the_server_needs_no_asking() {
    let site = local_site();
    let host = booted(site.cloud(), &want("one")).await;
    let shell = LocalShell::here(&host);
    site.cloud().power(&host.name, Power::Off).await.unwrap();
    let ran = shell
        .run(&host, &Command::new(["/bin/echo", "here"]))
        .await
        .unwrap();
    assert_eq!(ran.stdout, "here\n");
    shell.services(&host).await.unwrap_err();
    site.end().await;
}

/// PostgreSQL overwrites its environment, leaves its session, and refuses to run as root.
#[tokio::test]
async fn a_real_database_crashes_freezes_and_goes() {
    let Some(bin) = newest_postgres() else {
        let test = "a_real_database_crashes_freezes_and_goes";
        return skipped(test, "PostgreSQL is not installed");
    };
    let site = local_site();
    let host = booted(site.cloud(), &want("db")).await;
    let shell = site.cloud().shell();
    let data = format!("{}/pg", host.dirs.data);
    let initdb = Command::new([
        format!("{bin}/initdb"),
        "-N".into(),
        "-A".into(),
        "trust".into(),
        "-D".into(),
        data.clone(),
    ]);
    let ran = shell
        .run(
            &host,
            &initdb.service_user().limit(Duration::from_secs(300)),
        )
        .await
        .unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut service = script("postgres", "");
    service.argv = vec![
        format!("{bin}/postgres"),
        "-D".into(),
        data.clone(),
        "-k".into(),
        host.dirs.data.clone(),
    ];
    for setting in [
        format!("listen_addresses={}", host.address),
        "port=5432".into(),
    ] {
        service.argv.extend(["-c".to_owned(), setting]);
    }
    (service.as_service_user, service.stop_signal) = (true, StopSignal::Int);
    install(site.cloud(), &host, service).await;
    let answers = async || {
        let psql = format!(
            "{bin}/psql -h {} -U $(stat -c %U pg) postgres -Atc 'select 41 + 1'",
            host.address
        );
        let ran = shell
            .run(&host, &Command::new(["/bin/sh", "-c", &psql]))
            .await;
        ran.is_ok_and(|ran| ran.stdout == "42\n")
    };
    eventually("it answers", answers).await;
    let owner = std::fs::metadata(&data).unwrap().uid();
    assert_eq!(
        owner,
        service_user().map_or(nix::unistd::geteuid().as_raw(), |user| user.uid)
    );
    let postmaster = state(site.cloud(), &host, "postgres").await.pid.unwrap();
    kill(Pid::from_raw(postmaster as i32), Signal::SIGKILL).unwrap();
    eventually("it is another one", || async {
        let now = state(site.cloud(), &host, "postgres").await;
        now.running && now.pid != Some(postmaster)
    })
    .await;
    eventually("it answers again", answers).await;
    let port = (host.address, 5432);
    site.cloud().power(&host.name, Power::Freeze).await.unwrap();
    assert!(site.processes().iter().all(Process::is_still));
    site.cloud().power(&host.name, Power::Thaw).await.unwrap();
    eventually("it answers after the thaw", answers).await;
    // The supervisor goes; the orphaned database is ended by the boot.
    kill_supervisor(&site, "db").await;
    site.cloud().power(&host.name, Power::On).await.unwrap();
    eventually("it answers after the boot", answers).await;
    site.cloud().power(&host.name, Power::Off).await.unwrap();
    assert!(std::net::TcpStream::connect(port).is_err());
    assert_eq!(site.processes(), Vec::new());
    site.cloud().power(&host.name, Power::On).await.unwrap();
    eventually("it recovers from the power cut", answers).await;
    shell
        .service(&host, "postgres", ServiceChange::Stop { signal: None })
        .await
        .unwrap();
    assert!(std::net::TcpStream::connect(port).is_err());
    let log = shell
        .get(&host, &format!("{}/postgres.log", host.dirs.log))
        .await
        .unwrap()
        .unwrap();
    assert!(String::from_utf8_lossy(&log).contains("database system is shut down"));
    site.end().await;
}

fn newest_postgres() -> Option<String> {
    let versions = names(Path::new("/usr/lib/postgresql"));
    let newest = versions
        .iter()
        .filter_map(|version| version.parse::<u32>().ok())
        .max()?;
    Some(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// What the battery asks of every cloud in weaker words, because others boot and end more than they are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_ended_counted_or_started_on_the_way() {
    let site = local_site();
    let cloud = site.cloud();
    image(cloud, "web-1", "#!/bin/sh\necho one; exec sleep 600").await;
    image(cloud, "web-2", "two").await;
    let images = cloud.images().await.unwrap();
    let two = images.iter().find(|image| image.name.as_str() == "web-2");
    assert_eq!(two.unwrap().bytes, 3);
    image(cloud, "web-3", "#!/bin/sh\necho two; exec sleep 600").await;
    let mut one = want("one");
    one.image = Some(ImageName::from("web-1"));
    let host = booted(cloud, &one).await;
    let left = Command::new(["/bin/sh", "-c", "sleep 300 & echo $! > left"]);
    assert_eq!(cloud.shell().run(&host, &left).await.unwrap().code, 0);
    output(cloud, &host, "kill $(cat left)").await;
    install_app(cloud, &host).await;
    let said = async |text: &str| app_said(cloud, &host, text).await;
    said("one\n").await;
    let next = ImageName::from("web-3");
    for _ in 0..2 {
        cloud.change_image(&host.name, &next).await.unwrap();
    }
    let restart = ServiceChange::Restart;
    cloud.shell().service(&host, "app", restart).await.unwrap();
    said("one\ntwo\n").await;
    site.end().await;
}
