//! Time in tests. What a test waits for is a condition with a limit; how long that takes is the machine's affair.

use std::time::{Duration, Instant};

/// Longer than this nobody looks away from what is waited for.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Looks again and again until there is something to see. `None` when the limit is over.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let give_up = Instant::now() + limit;
    loop {
        let began = Instant::now();
        if let Some(seen) = look() {
            return Some(seen);
        }
        if began > give_up {
            return None;
        }
        // As long as the look took: a cheap one finds the moment, a dear one leaves the machine to what it looks at.
        let pause = began.elapsed().min(LONGEST_PAUSE);
        std::thread::sleep(pause.max(Duration::from_millis(1)));
    }
}

/// Waits until the condition holds.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> bool,
) -> Result<(), String> {
    poll(limit, || holds().then_some(()))
        .ok_or_else(|| format!("{what}: not within {} s", limit.as_secs()))
}

#[test]
fn what_holds_in_the_end_is_waited_for_and_what_never_does_is_said() {
    let mut looks = 0;
    let third = || {
        looks += 1;
        looks == 3
    };
    let limit = Duration::from_secs(60);
    assert_eq!(wait_until(limit, "the third look", third), Ok(()));
    assert_eq!(looks, 3);
    let never = wait_until(Duration::ZERO, "the moon is green", || false);
    assert_eq!(never, Err("the moon is green: not within 0 s".to_owned()));
}
