//! The DNS host `serve`, which starts a name server as a process of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use hafog::dns::serve_host::ServeHost;
use hafog::dns::{DnsHost, ZoneSettings};

use super::*;

/// Not a test: the process that [`has_program`] lets the DNS host start as its `hafog`.
#[tokio::test]
async fn serve_process() {
    let Ok(arguments) = std::env::var("HAFOG_TEST_SERVE") else {
        return;
    };
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let ["dns", "serve", "--folder", folder, "--listen", listen] = arguments[..] else {
        panic!("{arguments:?}");
    };
    let options = ServeOptions {
        folder: folder.into(),
        listen: vec![listen.parse().unwrap()],
    };
    let code = match run(options, std::future::pending()).await {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("{fault}");
            1
        }
    };
    std::process::exit(code);
}

/// Runs the named test again with a `hafog` that is this program. True in that second run.
fn has_program(test: &str) -> bool {
    if std::env::var_os("HAFOG_EXE").is_some() {
        return true;
    }
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("hafog");
    let this = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nHAFOG_TEST_SERVE=\"$*\" exec '{}' --exact host::serve_process --nocapture\n",
        this.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = std::process::Command::new(this)
        .args(["--exact", &format!("host::{test}"), "--nocapture"])
        .env("HAFOG_EXE", &script)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}{errors}");
    // A name that no test has would go well too.
    assert!(said.contains("1 passed"), "{said}{errors}");
    false
}

/// Ends the folder's servers also when the test fails.
#[derive(Default)]
struct Processes(Mutex<Vec<u32>>);

impl Processes {
    async fn hello(&self, folder: &Path) -> Hello {
        match request(folder, &Request::Hello).await.unwrap() {
            Reply::Hello(hello) => {
                self.0.lock().unwrap().push(hello.pid);
                hello
            }
            other => panic!("{other:?}"),
        }
    }

    fn kill(&self, pid: u32) {
        self.0.lock().unwrap().retain(|kept| *kept != pid);
        kill(pid);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pid in self.0.lock().unwrap().iter() {
                kill(*pid);
            }
        }
    }
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

fn host(home: &Path, zone: &str, settings: &[(&str, &str)]) -> ServeHost {
    let settings: BTreeMap<String, String> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    ServeHost::new(&ZoneSettings {
        zone: zone.into(),
        settings,
        home: home.to_owned(),
    })
    .unwrap()
}

/// A killed process is gone a little later.
async fn until_closed(host: &ServeHost) {
    eventually("the killed server answers no more", async || {
        host.state().await.is_ok_and(|state| !state.open)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dns_host_serve_starts_survives_and_ends() {
    if !has_program("the_dns_host_serve_starts_survives_and_ends") {
        return;
    }
    let home = TempDir::new().unwrap();
    let folder = home.path().join("names");
    let processes = Processes::default();
    let shop = host(home.path(), "Shop.test.", &[]);
    let other = host(home.path(), "other.test", &[]);
    assert!(!shop.state().await.unwrap().open);
    shop.close_zone().await.unwrap();
    let configured = shop.authorities().await.unwrap();

    // Both at once start one server.
    let (one, two) = tokio::join!(shop.open_zone(), other.open_zone());
    let hello = processes.hello(&folder).await;
    one.unwrap();
    two.unwrap();
    assert!(shop.state().await.unwrap().open && other.state().await.unwrap().open);
    assert_eq!(hello.listen, configured);
    assert_eq!(shop.authorities().await.unwrap(), configured);
    // A session of its own.
    let pid = nix::unistd::Pid::from_raw(hello.pid as i32);
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);

    let www = set("www.shop.test", RecordType::A, 60, &["127.64.1.1"]);
    shop.apply(&[change(None, Some(&www))]).await.unwrap();
    assert_eq!(shop.records().await.unwrap(), std::slice::from_ref(&www));
    assert_eq!(other.records().await.unwrap(), []);
    let answer = ask(configured[0], &www.host, RecordType::A, LIMIT).await;
    assert_eq!(answer.unwrap().sets, std::slice::from_ref(&www));
    let refused = shop.apply(&[change(None, Some(&www))]).await.unwrap_err();
    assert!(matches!(refused, Trouble::NothingChanged(_)), "{refused:?}");

    let before = request(&folder, &Request::Zones).await.unwrap();
    processes.kill(hello.pid);
    until_closed(&shop).await;
    let unsent = shop.apply(&[change(Some(&www), None)]).await.unwrap_err();
    assert!(matches!(unsent, Trouble::NothingChanged(_)), "{unsent:?}");
    shop.open_zone().await.unwrap();
    let again = processes.hello(&folder).await;
    assert_ne!(again.pid, hello.pid);
    assert_eq!(request(&folder, &Request::Zones).await.unwrap(), before);

    let elsewhere = host(home.path(), "third.test", &[("listen", "127.77.3.5:5353")]);
    let refused = elsewhere.open_zone().await.unwrap_err();
    assert!(
        refused.to_string().contains("wants `127.77.3.5:5353`"),
        "{refused}"
    );

    shop.close_zone().await.unwrap();
    assert!(!shop.state().await.unwrap().open && other.state().await.unwrap().open);
    // Also after a crash the last one leaves nothing behind.
    processes.kill(again.pid);
    until_closed(&other).await;
    other.close_zone().await.unwrap();
    assert!(!folder.exists());
    other.close_zone().await.unwrap();
}

#[tokio::test]
async fn the_dns_host_serve_says_why_it_did_not_start() {
    if !has_program("the_dns_host_serve_says_why_it_did_not_start") {
        return;
    }
    let home = TempDir::new().unwrap();
    let taken = UdpSocket::bind("127.77.3.6:0").await.unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let shop = host(home.path(), "shop.test", &[("listen", &listen)]);
    let trouble = shop.open_zone().await.unwrap_err();
    assert!(matches!(trouble, Trouble::NothingChanged(_)), "{trouble:?}");
    let text = trouble.to_string();
    assert!(text.contains("did not start: exit status: 1"), "{text}");
    assert!(text.contains("Address already in use"), "{text}");
}

#[tokio::test]
async fn a_lost_reply_is_unknown() {
    let home = TempDir::new().unwrap();
    let shop = host(home.path(), "shop.test", &[("folder", "elsewhere")]);
    let listener = control::listen(PURPOSE, &home.path().join("elsewhere")).unwrap();
    let mute = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let heard = control::receive::<Request>(&mut stream).await;
        assert!(
            matches!(heard, Some(Ok(Request::Apply { .. }))),
            "{heard:?}"
        );
    });
    let www = set("www.shop.test", RecordType::A, 60, &["127.64.1.1"]);
    let trouble = shop.apply(&[change(None, Some(&www))]).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Unknown(_)), "{trouble:?}");
    mute.await.unwrap();
}
