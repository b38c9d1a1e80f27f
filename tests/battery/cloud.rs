//! What every cloud must do. One list of behaviours; a cloud earns trust by one line: `cloud_battery!(open_site)`,
//! where `open_site()` gives a fresh site with `cloud()`, and `end().await`, which destroys it and looks for leftovers; or
//! `None`, having said why, where it cannot be had.

use std::collections::BTreeMap;
use std::time::Duration;

use hafog::cloud::{Cloud, OnceKey, Power, Server, ServerState, ServerWant};
use hafog::error::{Fault, Kind, Trouble};
use hafog::model::id::{ImageName, ServerName};
use hafog::model::stack::Size;
use hafog::model::units::Bytes;
use hafog::shell::{Command, File, Host, Service, ServiceChange, ServiceState, StopSignal};

use crate::eventually::eventually;
use crate::harness::skip::skipped;

#[macro_export]
macro_rules! cloud_battery {
    ($open:path) => {
        $crate::cloud_battery! { $open =>
            creation_is_idempotent_by_its_key
            unknown_images_and_servers_are_faults
            servers_have_addresses_of_their_own
            a_service_that_crashes_is_started_again
            a_service_that_cannot_start_says_why
            services_are_stopped_changed_and_removed
            commands_end_or_are_killed
            files_are_put_as_a_whole_and_only_where_they_belong
            power_off_ends_everything_and_a_boot_starts_afresh
            a_frozen_server_holds_still
            an_isolated_server_is_silent_goes_on_and_comes_back_as_it_was
            an_image_is_sealed_once_and_stays_as_it_is
            servers_change_their_image
            tags_are_kept
            gone_already_is_success
        }
    };
    ($open:path => $($behaviour:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $behaviour() {
            let Some(site) = $open() else { return };
            cloud::$behaviour(site.cloud()).await;
            site.end().await;
        }
    )*};
}

pub fn want(name: &str) -> ServerWant {
    ServerWant {
        name: ServerName::from(name),
        image: None,
        base: "debian-12".to_owned(),
        size: Size {
            cpu: 1,
            memory: Bytes(1 << 30),
        },
        disk: None,
        open: Vec::new(),
        tags: BTreeMap::new(),
    }
}

pub fn key(text: &str) -> OnceKey {
    OnceKey(text.to_owned())
}

/// A service that is a shell script, working in the server's data folder.
pub fn script(name: &str, script: &str) -> Service {
    Service {
        name: name.to_owned(),
        before: Vec::new(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        env_file: None,
        as_service_user: false,
        stop_signal: StopSignal::Term,
        stop_limit: Duration::from_secs(20),
        reload_signal: Default::default(),
        at_boot: true,
    }
}

pub const BEAT: &str = "while :; do echo x >> beat; sleep 0.02; done";

pub async fn server(cloud: &dyn Cloud, name: &str) -> Server {
    let servers = cloud.servers().await.unwrap();
    let found = servers
        .into_iter()
        .find(|server| server.name.as_str() == name);
    found.unwrap_or_else(|| panic!("there is no `{name}`"))
}

pub async fn booted(cloud: &dyn Cloud, want: &ServerWant) -> Host {
    cloud
        .create_server(want, &key(want.name.as_str()))
        .await
        .unwrap();
    let name = want.name.as_str();
    eventually("the server runs", || async {
        server(cloud, name).await.state == ServerState::Running
    })
    .await;
    server(cloud, name).await.host.unwrap()
}

pub async fn install(cloud: &dyn Cloud, host: &Host, service: Service) {
    let (shell, name) = (cloud.shell(), service.name.clone());
    let change = ServiceChange::Install(Box::new(service));
    shell.service(host, &name, change).await.unwrap();
    shell
        .service(host, &name, ServiceChange::Start)
        .await
        .unwrap();
}

/// The service whose program is in the image.
pub async fn install_app(cloud: &dyn Cloud, host: &Host) {
    let mut service = script("app", "");
    service.argv = vec![format!("{}/srv/app", host.dirs.image)];
    install(cloud, host, service).await;
}

/// Waits until it has said just this.
pub async fn app_said(cloud: &dyn Cloud, host: &Host, text: &str) {
    eventually("the app said it", || async {
        output(cloud, host, "cat ../log/app.log").await == text
    })
    .await;
}

/// Everything that a site has.
pub async fn destroy(cloud: &dyn Cloud) {
    for server in cloud.servers().await.unwrap() {
        cloud.delete_server(&server.name).await.unwrap();
    }
    for image in cloud.images().await.unwrap() {
        cloud.delete_image(&image.name).await.unwrap();
    }
    cloud.remove_site().await.unwrap();
}

pub async fn state(cloud: &dyn Cloud, host: &Host, name: &str) -> ServiceState {
    let states = cloud.shell().services(host).await.unwrap();
    states.into_iter().find(|state| state.name == name).unwrap()
}

/// What a command wrote, when it ended with 0.
pub async fn output(cloud: &dyn Cloud, host: &Host, script: &str) -> String {
    let command = Command::new(["/bin/sh", "-c", script]);
    let ran = cloud.shell().run(host, &command).await.unwrap();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    ran.stdout
}

async fn beats(cloud: &dyn Cloud, host: &Host) -> usize {
    let path = format!("{}/beat", host.dirs.data);
    let bytes = cloud.shell().get(host, &path).await.unwrap();
    bytes.map_or(0, |bytes| bytes.len())
}

pub async fn comes_to_beat(cloud: &dyn Cloud, host: &Host) {
    let old = beats(cloud, host).await;
    eventually("the service works", || async {
        beats(cloud, host).await > old
    })
    .await;
}

fn unchanged(trouble: Trouble) -> Fault {
    match trouble {
        Trouble::NothingChanged(fault) => fault,
        other => panic!("expected that nothing changed: {other}"),
    }
}

pub async fn creation_is_idempotent_by_its_key(cloud: &dyn Cloud) {
    cloud.ping().await.unwrap();
    assert_eq!(cloud.servers().await.unwrap(), Vec::new());
    let mut one = want("one");
    one.tags.insert("group".to_owned(), "web".to_owned());
    let first = cloud.create_server(&one, &key("run/step")).await.unwrap();
    let again = cloud.create_server(&one, &key("run/step")).await.unwrap();
    assert_eq!((&first.id, &first.host), (&again.id, &again.host));
    assert_eq!(first.tags["group"], "web");
    let fault = unchanged(cloud.create_server(&one, &key("other")).await.unwrap_err());
    assert!(fault.message().contains("`one`"), "{fault}");
    assert_eq!(cloud.servers().await.unwrap().len(), 1);
}

pub async fn unknown_images_and_servers_are_faults(cloud: &dyn Cloud) {
    let mut one = want("one");
    one.image = Some(ImageName::from("none"));
    let fault = unchanged(cloud.create_server(&one, &key("a")).await.unwrap_err());
    assert!(fault.message().contains("no image `none`"), "{fault}");
    let name = ServerName::from("one");
    let fault = unchanged(cloud.power(&name, Power::Off).await.unwrap_err());
    assert!(fault.message().contains("no server `one`"), "{fault}");
    unchanged(cloud.tag_server(&name, &BTreeMap::new()).await.unwrap_err());
    unchanged(
        cloud
            .seal(&name, &ImageName::from("i"), &BTreeMap::new())
            .await
            .unwrap_err(),
    );
    for bad in ["", "..", "a/b", ".hidden"] {
        unchanged(
            cloud
                .create_server(&want(bad), &key("a"))
                .await
                .unwrap_err(),
        );
    }
    assert_eq!(cloud.servers().await.unwrap(), Vec::new());
    assert_eq!(cloud.images().await.unwrap(), Vec::new());
}

pub async fn servers_have_addresses_of_their_own(cloud: &dyn Cloud) {
    let (one, two) = (
        booted(cloud, &want("one")).await,
        booted(cloud, &want("two")).await,
    );
    assert_ne!(one.address, two.address);
    if output(cloud, &one, "command -v perl || true")
        .await
        .is_empty()
    {
        let test = "servers_have_addresses_of_their_own";
        return skipped(test, "perl is not installed on its servers");
    }
    // The same port on both; each says its name.
    for host in [&one, &two] {
        let answer = format!(
            "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => '{}', LocalPort => 8080, Listen => 5, \
             ReuseAddr => 1) or die $!; while (my $c = $l->accept) {{ print $c '{}'; close $c; }}",
            host.address, host.name
        );
        let mut service = script("face", "");
        service.argv = vec!["perl".to_owned(), "-e".to_owned(), answer];
        install(cloud, host, service).await;
    }
    for host in [&one, &two] {
        eventually("the server answers with its name", || async {
            use tokio::io::AsyncReadExt;
            let Ok(mut stream) = tokio::net::TcpStream::connect((host.address, 8080)).await else {
                return false;
            };
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said).await;
            said == host.name.as_str()
        })
        .await;
    }
    cloud.power(&one.name, Power::Off).await.unwrap();
    assert!(
        tokio::net::TcpStream::connect((one.address, 8080))
            .await
            .is_err()
    );
    assert!(
        tokio::net::TcpStream::connect((two.address, 8080))
            .await
            .is_ok()
    );
}

pub async fn a_service_that_crashes_is_started_again(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    install(cloud, &host, script("beat", BEAT)).await;
    comes_to_beat(cloud, &host).await;
    let before = state(cloud, &host, "beat").await;
    assert_eq!(
        (before.running, before.wanted, before.starts),
        (true, true, 1)
    );
    output(cloud, &host, &format!("kill -9 {}", before.pid.unwrap())).await;
    eventually("it is started again", || async {
        let now = state(cloud, &host, "beat").await;
        now.running && now.starts == 2 && now.pid != before.pid
    })
    .await;
    comes_to_beat(cloud, &host).await;
}

pub async fn a_service_that_cannot_start_says_why(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    let shell = cloud.shell();
    let mut service = script("beat", BEAT);
    service.before = vec![vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        "test -e ready".to_owned(),
    ]];
    let install = ServiceChange::Install(Box::new(service));
    shell.service(&host, "beat", install).await.unwrap();
    let trouble = shell
        .service(&host, "beat", ServiceChange::Start)
        .await
        .unwrap_err();
    assert!(
        trouble
            .fault()
            .message()
            .contains("`/bin/sh` exited with code 1"),
        "{trouble}"
    );
    let now = state(cloud, &host, "beat").await;
    assert_eq!((now.running, now.wanted, now.starts), (false, true, 0));
    assert!(now.trouble.unwrap().contains("exited with code 1"));
    // What was in its way goes away: nobody has to start it again.
    output(cloud, &host, "touch ready").await;
    eventually("it is tried again", || async {
        state(cloud, &host, "beat").await.running
    })
    .await;
    assert_eq!(state(cloud, &host, "beat").await.trouble, None);
    let trouble = shell
        .service(&host, "beet", ServiceChange::Start)
        .await
        .unwrap_err();
    assert!(
        unchanged(trouble)
            .message()
            .contains("there is no service `beet`")
    );
}

pub async fn services_are_stopped_changed_and_removed(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    let shell = cloud.shell();
    let change = async |change| shell.service(&host, "s", change).await.unwrap();
    // Deaf to TERM, and tells of HUP.
    let deaf = "trap '' TERM; trap 'echo hup >> heard' HUP; trap 'echo int >> heard; exit 0' INT; \
                while :; do echo x >> beat; sleep 0.02; done";
    let mut service = script("s", deaf);
    service.stop_limit = Duration::from_millis(300);
    install(cloud, &host, service).await;
    comes_to_beat(cloud, &host).await;
    change(ServiceChange::Reload).await;
    eventually("it heard HUP", || async {
        output(cloud, &host, "cat heard 2>/dev/null || true").await == "hup\n"
    })
    .await;
    let pid = state(cloud, &host, "s").await.pid.unwrap();
    change(ServiceChange::Stop { signal: None }).await;
    assert_eq!(
        output(
            cloud,
            &host,
            &format!("kill -0 {pid} 2>/dev/null || echo gone")
        )
        .await,
        "gone\n"
    );
    let now = state(cloud, &host, "s").await;
    assert_eq!((now.running, now.wanted, now.pid), (false, false, None));
    // A new definition counts from the next start.
    let mut service = script(
        "s",
        "trap 'echo int >> heard; exit 0' INT; echo two; while :; do sleep 0.02; done",
    );
    service.stop_limit = Duration::from_secs(60);
    change(ServiceChange::Install(Box::new(service))).await;
    change(ServiceChange::Restart).await;
    let log = format!("{}/s.log", host.dirs.log);
    eventually("the log has the new output", || async {
        shell
            .get(&host, &log)
            .await
            .unwrap()
            .is_some_and(|text| text.ends_with(b"two\n"))
    })
    .await;
    let signal = Some(StopSignal::Int);
    change(ServiceChange::Stop { signal }).await;
    assert_eq!(output(cloud, &host, "cat heard").await, "hup\nint\n");
    change(ServiceChange::Stop { signal: None }).await;
    change(ServiceChange::Remove).await;
    change(ServiceChange::Remove).await;
    assert_eq!(shell.services(&host).await.unwrap(), Vec::new());
}

pub async fn commands_end_or_are_killed(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    let shell = cloud.shell();
    let command = Command::new([
        "/bin/sh",
        "-c",
        "echo out; echo err >&2; pwd; echo $SAID; exit 3",
    ]);
    let ran = shell
        .run(&host, &command.env("SAID", "word"))
        .await
        .unwrap();
    assert_eq!(ran.stdout, format!("out\n{}\nword\n", host.dirs.data));
    assert_eq!((ran.code, ran.stderr.as_str()), (3, "err\n"));
    let odd = r#"${SAID} $SAID $$ %n \t "quoted" 'so'"#;
    let command = Command::new(["/bin/echo", odd]).env("SAID", "word");
    let ran = shell.run(&host, &command).await.unwrap();
    assert_eq!(ran.stdout, format!("{odd}\n"));
    // Its child left its session, and has to go too.
    let limit = Duration::from_millis(400);
    let command =
        Command::new(["/bin/sh", "-c", "setsid sleep 300 & echo $! > child; wait"]).limit(limit);
    let trouble = shell.run(&host, &command).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Unknown(_)), "{trouble}");
    assert!(
        trouble
            .fault()
            .message()
            .contains("did not end within 0.4 s"),
        "{trouble}"
    );
    // A corpse is gone, too: it waits for the machine's first process.
    let look = "test -s child && { grep -q '^State:.Z' /proc/$(cat child)/status 2>/dev/null || ! kill -0 $(cat child) \
                2>/dev/null; } && echo gone";
    assert_eq!(output(cloud, &host, look).await, "gone\n");
    let trouble = shell
        .run(&host, &Command::new(["/no/such/program"]))
        .await
        .unwrap_err();
    assert!(
        unchanged(trouble)
            .message()
            .contains("cannot run `/no/such/program`")
    );
    // What it leaves in the background is not waited for, and a flood of output is cut.
    let flood = "head -c 3000000 /dev/zero; sleep 300 & echo $! > left";
    let ran = shell
        .run(&host, &Command::new(["/bin/sh", "-c", flood]))
        .await
        .unwrap();
    assert_eq!((ran.code, ran.stdout.len()), (0, 1 << 20));
    // Some end it together with its command.
    output(cloud, &host, "kill $(cat left) 2>/dev/null || true").await;
}

pub async fn files_are_put_as_a_whole_and_only_where_they_belong(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    let shell = cloud.shell();
    let mut file = File {
        path: format!("{}/deep/er/app.conf", host.dirs.etc),
        bytes: b"one".to_vec(),
        mode: 0o640,
        for_service_user: false,
    };
    assert_eq!(shell.get(&host, &file.path).await.unwrap(), None);
    shell.put(&host, &file).await.unwrap();
    file.bytes = b"two".to_vec();
    shell.put(&host, &file).await.unwrap();
    assert_eq!(shell.get(&host, &file.path).await.unwrap().unwrap(), b"two");
    let look = format!("stat -c %a {}; ls -A {}/deep/er", file.path, host.dirs.etc);
    assert_eq!(output(cloud, &host, &look).await, "640\napp.conf\n");
    // The service user can read and write what is its own.
    file.path = format!("{}/own/file", host.dirs.data);
    (file.mode, file.for_service_user) = (0o600, true);
    shell.put(&host, &file).await.unwrap();
    let command = Command::new(["/bin/sh", "-c", "cat own/file; echo three > own/other"]);
    let ran = shell.run(&host, &command.service_user()).await.unwrap();
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "two", "")
    );
    output(cloud, &host, "ln -s /tmp data-link").await;
    for outside in [
        "/tmp/x".to_owned(),
        format!("{}/../x", host.dirs.etc),
        host.dirs.data.clone(),
        format!("{}/data-link/x", host.dirs.data),
    ] {
        unchanged(shell.remove(&host, &outside).await.unwrap_err());
        let mut file = file.clone();
        file.path = outside;
        unchanged(shell.put(&host, &file).await.unwrap_err());
    }
    for _ in 0..2 {
        shell
            .remove(&host, &format!("{}/own", host.dirs.data))
            .await
            .unwrap();
        shell
            .remove(&host, &format!("{}/data-link", host.dirs.data))
            .await
            .unwrap();
    }
    assert_eq!(output(cloud, &host, "ls -A; ls -d /tmp").await, "/tmp\n");
}

pub async fn power_off_ends_everything_and_a_boot_starts_afresh(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    let other = booted(cloud, &want("two")).await;
    install(cloud, &other, script("beat", BEAT)).await;
    install(cloud, &host, script("beat", BEAT)).await;
    let mut by_hand = script("by-hand", "exec sleep 600");
    by_hand.at_boot = false;
    install(cloud, &host, by_hand).await;
    comes_to_beat(cloud, &host).await;
    output(cloud, &host, "echo kept > kept").await;
    cloud.power(&host.name, Power::Off).await.unwrap();
    cloud.power(&host.name, Power::Off).await.unwrap();
    assert_eq!(server(cloud, "one").await.state, ServerState::Off);
    assert_eq!(server(cloud, "two").await.state, ServerState::Running);
    let shell = cloud.shell();
    let trouble = shell
        .run(&host, &Command::new(["/bin/true"]))
        .await
        .unwrap_err();
    let fault = unchanged(trouble);
    assert_eq!(
        (fault.kind(), fault.message()),
        (Kind::Unavailable, "server `one` is off")
    );
    let path = format!("{}/kept", host.dirs.data);
    assert_eq!(
        shell.get(&host, &path).await.unwrap_err().message(),
        "server `one` is off"
    );
    assert_eq!(
        shell.services(&host).await.unwrap_err().message(),
        "server `one` is off"
    );
    unchanged(cloud.power(&host.name, Power::Freeze).await.unwrap_err());
    comes_to_beat(cloud, &other).await;
    cloud.power(&host.name, Power::On).await.unwrap();
    cloud.power(&host.name, Power::On).await.unwrap();
    assert_eq!(server(cloud, "one").await.host.as_ref(), Some(&host));
    comes_to_beat(cloud, &host).await;
    assert_eq!(output(cloud, &host, "cat kept").await, "kept\n");
    assert_eq!(state(cloud, &host, "beat").await.starts, 1);
    assert!(!state(cloud, &host, "by-hand").await.wanted);
}

pub async fn a_frozen_server_holds_still(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    install(cloud, &host, script("beat", BEAT)).await;
    comes_to_beat(cloud, &host).await;
    let pid = state(cloud, &host, "beat").await.pid;
    for _ in 0..2 {
        cloud.power(&host.name, Power::Freeze).await.unwrap();
    }
    assert_eq!(server(cloud, "one").await.state, ServerState::Frozen);
    unchanged(cloud.power(&host.name, Power::On).await.unwrap_err());
    let command = Command::new(["/bin/true"]).limit(Duration::from_millis(200));
    let fault = unchanged(cloud.shell().run(&host, &command).await.unwrap_err());
    assert_eq!(fault.message(), "server `one` does not answer within 0.2 s");
    for _ in 0..2 {
        cloud.power(&host.name, Power::Thaw).await.unwrap();
    }
    comes_to_beat(cloud, &host).await;
    // It went on, and was not started again.
    assert_eq!(state(cloud, &host, "beat").await.pid, pid);
    cloud.power(&host.name, Power::Freeze).await.unwrap();
    cloud.power(&host.name, Power::Off).await.unwrap();
    assert_eq!(server(cloud, "one").await.state, ServerState::Off);
}

/// Where it cannot be had, asking for it changes nothing.
pub async fn an_isolated_server_is_silent_goes_on_and_comes_back_as_it_was(cloud: &dyn Cloud) {
    let host = booted(cloud, &want("one")).await;
    let other = booted(cloud, &want("two")).await;
    install(cloud, &other, script("beat", BEAT)).await;
    install(cloud, &host, script("beat", BEAT)).await;
    comes_to_beat(cloud, &host).await;
    let pid = state(cloud, &host, "beat").await.pid;
    if let Err(trouble) = cloud.power(&host.name, Power::Isolate).await {
        let why = unchanged(trouble).to_string();
        assert!(why.contains("cannot be cut off"), "{why}");
        assert_eq!(server(cloud, "one").await.state, ServerState::Running);
        return;
    }
    cloud.power(&host.name, Power::Isolate).await.unwrap();
    let isolated = server(cloud, "one").await;
    assert_eq!(isolated.state, ServerState::Isolated);
    assert_eq!(isolated.host.as_ref(), Some(&host));
    assert_eq!(server(cloud, "two").await.state, ServerState::Running);
    let command = Command::new(["/bin/true"]).limit(Duration::from_secs(2));
    let fault = unchanged(cloud.shell().run(&host, &command).await.unwrap_err());
    assert_eq!(fault.kind(), Kind::Unavailable);
    // Whoever is made now gets another address.
    let third = booted(cloud, &want("three")).await;
    assert_ne!(third.address, host.address);
    comes_to_beat(cloud, &other).await;
    for _ in 0..2 {
        cloud.power(&host.name, Power::On).await.unwrap();
    }
    let back = server(cloud, "one").await;
    assert_eq!(back.state, ServerState::Running);
    assert_eq!(back.host.as_ref(), Some(&host));
    eventually("it answers again", || async {
        cloud.shell().run(&host, &command).await.is_ok()
    })
    .await;
    comes_to_beat(cloud, &host).await;
    assert_eq!(state(cloud, &host, "beat").await.pid, pid);

    // Off, it is off; and a boot gives it its network back.
    cloud.power(&host.name, Power::Isolate).await.unwrap();
    cloud.power(&host.name, Power::Off).await.unwrap();
    assert_eq!(server(cloud, "one").await.state, ServerState::Off);
    unchanged(cloud.power(&host.name, Power::Isolate).await.unwrap_err());
    cloud.power(&host.name, Power::On).await.unwrap();
    assert_eq!(server(cloud, "one").await.host.as_ref(), Some(&host));
    comes_to_beat(cloud, &host).await;
}

/// Makes an image with one file in it.
pub async fn image(cloud: &dyn Cloud, name: &str, text: &str) {
    let builder = format!("builder-{name}");
    let host = booted(cloud, &want(&builder)).await;
    let file = File {
        path: format!("{}/srv/app", host.dirs.image),
        bytes: text.as_bytes().to_vec(),
        mode: 0o755,
        for_service_user: false,
    };
    cloud.shell().put(&host, &file).await.unwrap();
    let tags = BTreeMap::from([("recipe".to_owned(), "web".to_owned())]);
    let sealed = cloud
        .seal(&host.name, &ImageName::from(name), &tags)
        .await
        .unwrap();
    assert_eq!((sealed.name.as_str(), &sealed.tags), (name, &tags));
    cloud.delete_server(&host.name).await.unwrap();
}

pub async fn an_image_is_sealed_once_and_stays_as_it_is(cloud: &dyn Cloud) {
    image(cloud, "web-1", "one").await;
    let first = cloud.images().await.unwrap();
    assert_eq!(first.len(), 1);
    assert!(first[0].bytes >= 3, "{first:?}");
    // There already: whatever the builder.
    let again = cloud
        .seal(
            &ServerName::from("builder-web-1"),
            &first[0].name,
            &BTreeMap::new(),
        )
        .await;
    assert_eq!(again.unwrap(), first[0]);
    // One tag more, and the others stay.
    let tried = BTreeMap::from([("tried".to_owned(), "now".to_owned())]);
    for _ in 0..2 {
        cloud.tag_image(&first[0].name, &tried).await.unwrap();
    }
    let mut tagged = first[0].clone();
    tagged.tags.extend(tried.clone());
    assert_eq!(cloud.images().await.unwrap(), [tagged]);
    let none = ImageName::from("web-2");
    unchanged(cloud.tag_image(&none, &tried).await.unwrap_err());
    let mut one = want("one");
    one.image = Some(first[0].name.clone());
    let host = booted(cloud, &one).await;
    assert_eq!(server(cloud, "one").await.image, one.image);
    let app = format!("{}/srv/app", host.dirs.image);
    let file = File {
        path: app.clone(),
        bytes: b"changed".to_vec(),
        mode: 0o644,
        for_service_user: false,
    };
    let fault = unchanged(cloud.shell().put(&host, &file).await.unwrap_err());
    assert!(
        fault
            .message()
            .ends_with("the image of server `one` is sealed"),
        "{fault}"
    );
    let write = Command::new([
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        format!("echo x > {app}"),
    ]);
    let ran = cloud
        .shell()
        .run(&host, &write.service_user())
        .await
        .unwrap();
    assert_ne!(ran.code, 0);
    assert_eq!(
        cloud.shell().get(&host, &app).await.unwrap().unwrap(),
        b"one"
    );
    let fault = unchanged(cloud.delete_image(&first[0].name).await.unwrap_err());
    assert_eq!(fault.message(), "image `web-1` is used by server `one`");
    cloud.delete_server(&host.name).await.unwrap();
    cloud.delete_image(&first[0].name).await.unwrap();
    assert_eq!(cloud.images().await.unwrap(), Vec::new());
}

pub async fn servers_change_their_image(cloud: &dyn Cloud) {
    image(cloud, "web-1", "#!/bin/sh\necho one; exec sleep 600").await;
    image(cloud, "web-2", "#!/bin/sh\necho two; exec sleep 600").await;
    let mut one = want("one");
    one.image = Some(ImageName::from("web-1"));
    let host = booted(cloud, &one).await;
    install_app(cloud, &host).await;
    let said = async |text: &str| app_said(cloud, &host, text).await;
    said("one\n").await;
    unchanged(
        cloud
            .change_image(&host.name, &ImageName::from("web-3"))
            .await
            .unwrap_err(),
    );
    let two = ImageName::from("web-2");
    for _ in 0..2 {
        cloud.change_image(&host.name, &two).await.unwrap();
    }
    assert_eq!(server(cloud, "one").await.image, Some(two));
    cloud
        .shell()
        .service(&host, "app", ServiceChange::Restart)
        .await
        .unwrap();
    // Once more where the change was a boot.
    let log = "uniq ../log/app.log";
    eventually("the app is the new one", || async {
        output(cloud, &host, log).await == "one\ntwo\n"
    })
    .await;
    cloud.delete_image(&ImageName::from("web-1")).await.unwrap();
}

pub async fn tags_are_kept(cloud: &dyn Cloud) {
    let mut one = want("one");
    one.tags = BTreeMap::from([
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "1".to_owned()),
    ]);
    let host = booted(cloud, &one).await;
    let change = BTreeMap::from([
        ("b".to_owned(), "2".to_owned()),
        ("c".to_owned(), "3".to_owned()),
    ]);
    cloud.tag_server(&host.name, &change).await.unwrap();
    let tags: Vec<(String, String)> = server(cloud, "one").await.tags.into_iter().collect();
    let expected = [("a", "1"), ("b", "2"), ("c", "3")];
    assert_eq!(
        tags,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

pub async fn gone_already_is_success(cloud: &dyn Cloud) {
    let name = ServerName::from("one");
    cloud.delete_server(&name).await.unwrap();
    cloud.delete_image(&ImageName::from("web-1")).await.unwrap();
    cloud.remove_site().await.unwrap();
    booted(cloud, &want("one")).await;
    let fault = unchanged(cloud.remove_site().await.unwrap_err());
    assert!(
        fault.message().ends_with("still has servers: one"),
        "{fault}"
    );
    for _ in 0..2 {
        cloud.delete_server(&name).await.unwrap();
    }
    assert_eq!(cloud.servers().await.unwrap(), Vec::new());
    for _ in 0..2 {
        cloud.remove_site().await.unwrap();
    }
    // Its name and its key are free again.
    booted(cloud, &want("one")).await;
}
