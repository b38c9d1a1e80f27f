//! Waiting for a condition that is asked for asynchronously.

use std::time::{Duration, Instant};

/// For a machine that does many other things: a limit, not an expectation.
const LIMIT: Duration = Duration::from_secs(60);

/// Looks again and again until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + LIMIT;
    while !holds().await {
        assert!(
            Instant::now() < give_up,
            "{what}: not within {} s",
            LIMIT.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
