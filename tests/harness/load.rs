//! Clients that ask the same all the time, and what they got.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wait::wait_until;

const CLIENTS: usize = 25;
/// How often each asks in a second.
const RATE: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// A load generator that somebody else wrote: <https://github.com/rakyll/hey>.
pub struct Load(Child);

impl Load {
    /// Why there are none.
    pub fn missing() -> Option<&'static str> {
        let there = Command::new("hey").arg("-h").output();
        there.is_err().then_some("hey is not installed")
    }

    /// Together 500 times a second, where the machine is fast enough. All of them are connected when this returns.
    pub fn on(url: &str) -> Load {
        let (clients, rate) = (CLIENTS.to_string(), RATE.to_string());
        let hey = Command::new("hey")
            .args(["-z", "10m", "-c", &clients, "-q", &rate, url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let load = Load(hey.expect("hey is there"));
        let sockets = format!("/proc/{}/fd", load.0.id());
        let is_connected = || {
            let files = std::fs::read_dir(&sockets).into_iter().flatten().flatten();
            let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
            let is_socket = |link: &PathBuf| link.to_string_lossy().starts_with("socket:");
            links.filter(is_socket).count() >= CLIENTS
        };
        wait_until(LIMIT, "clients ask", is_connected).unwrap_or_else(|why| panic!("{why}"));
        load
    }

    /// What clients got: a line a status with its count (`[200]`), and errors; and how fast they asked.
    fn end(&mut self) -> (Vec<String>, String) {
        let pid = self.0.id().to_string();
        let told = Command::new("kill").args(["-INT", &pid]).status();
        assert!(told.expect("kill is there").success());
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut text).expect("hey's report");
        let lines = || text.lines().map(str::trim);
        let got = lines().filter(|line| line.starts_with('['));
        let rate = lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        let got = got.map(str::to_owned).collect();
        (got, rate.unwrap_or("?").trim().to_owned())
    }

    /// Everybody got 200 all the time.
    pub fn end_well(mut self) {
        let (got, rate) = self.end();
        let [line] = got.as_slice() else {
            panic!("clients got several things: {got:#?}");
        };
        let count = line
            .strip_prefix("[200]")
            .unwrap_or_else(|| panic!("{line}"));
        let count = count.trim().trim_end_matches(" responses").parse::<usize>();
        let count = count.unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(count >= CLIENTS, "{line}");
        let said = format!("load: {count} requests, {rate}/s, all of them answered with 200\n");
        let _ = std::io::stderr().write_all(said.as_bytes());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
