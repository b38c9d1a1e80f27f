//! A command that was started with signals ignored, as `nohup` and the background jobs of scripts do, must not hand
//! that on: what it starts lives longer, and is reloaded and stopped by signals.

use std::path::Path;

use nix::sys::signal::Signal;

use super::lab::{Lab, turn};
use crate::cli::SMALL;
use crate::harness::Home;

#[test]
fn services_hear_signals_that_the_command_ignored() {
    let Some(_turn) = turn("services_hear_signals_that_the_command_ignored") else {
        return;
    };
    let spec = SMALL.replace(
        "exec python3",
        "grep SigIgn: /proc/self/status > ignored; exec python3",
    );
    let lab = Lab {
        home: Home::with(&spec),
    };
    let hafog = lab.home.command(&["up", "--yes"]);
    let mut ignoring = std::process::Command::new("sh");
    ignoring
        .args(["-c", "trap '' HUP INT QUIT USR1 USR2; exec \"$0\" \"$@\""])
        .arg(hafog.get_program())
        .args(hafog.get_args())
        .current_dir(lab.home.path())
        .env_clear()
        .envs(
            hafog
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let ran = ignoring.output().expect("sh starts");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let facts = lab.facts();
    let folders = facts["sites"]["east"]["servers"]
        .as_object()
        .expect("servers")
        .values();
    let folders = folders.filter_map(|server| server["host"]["dirs"]["data"].as_str());
    let told: Vec<String> = folders
        .map(|data| Path::new(data).parent().expect("a server's folder"))
        .flat_map(ignored)
        .collect();
    assert_eq!(told.len(), 2, "each web server tells: {told:?}");
    for line in told {
        let mask = line.trim_start_matches("SigIgn:").trim();
        let mask = u64::from_str_radix(mask, 16).expect("a mask, proc(5)");
        let named = [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ];
        let is_ignored = |signal: &Signal| mask & 1 << (*signal as i32 - 1) != 0;
        let left: Vec<_> = named.into_iter().filter(is_ignored).collect();
        assert_eq!(left, [], "{line}");
    }
}

/// What each service said that it ignores.
fn ignored(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let told = entries.flat_map(|entry| match entry.file_type().expect("a type").is_dir() {
        true => ignored(&entry.path()),
        false if entry.file_name() == "ignored" => {
            vec![
                std::fs::read_to_string(entry.path())
                    .expect("text")
                    .trim()
                    .to_owned(),
            ]
        }
        false => Vec::new(),
    });
    told.collect()
}
