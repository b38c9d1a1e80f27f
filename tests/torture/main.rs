//! Runs the cases whose name (`verb/step/fault`) contains the first word given; all without one.

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod harness;
mod writers;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let filter = std::env::args()
        .skip(1)
        .find(|word| !word.starts_with("--"));
    let seed = std::env::var("HAFOG_SEED");
    let seed = seed.ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut failed = 0;
    for (verb, step, fault, run) in writers::CASES {
        let name = format!("{verb}/{step}/{fault}");
        if filter.as_ref().is_some_and(|word| !name.contains(word)) {
            continue;
        }
        let began = Instant::now();
        let ended = std::panic::catch_unwind(|| run(seed))
            .unwrap_or_else(|_| Err("it panicked".to_owned()));
        failed += usize::from(ended.is_err());
        let line = format!(
            "{name}: {ended:?} in {:.1} s\n",
            began.elapsed().as_secs_f64()
        );
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
