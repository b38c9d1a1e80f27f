//! Waiting for a condition, with a limit that is in the message.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::Fault;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);

/// Asks again and again, a little slower each time, until `ask` gives something. The last reason is in the fault.
pub async fn until<T, F, R>(
    clock: &dyn Clock,
    what: &str,
    limit: Duration,
    mut ask: F,
) -> Result<T, Fault>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, String>>,
{
    let give_up = clock.elapsed() + limit;
    let mut pause = FIRST;
    loop {
        let why = match ask().await {
            Ok(value) => return Ok(value),
            Err(why) => why,
        };
        if clock.elapsed() >= give_up {
            return Err(Fault::unavailable(format!(
                "{what}: not within {} s",
                limit.as_secs_f64()
            ))
            .because(why));
        }
        clock.sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST);
    }
}
