//! Time as a port: the real clock, and one that tests step.

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

#[async_trait]
pub trait Clock: Send + Sync {
    /// Wall clock, UTC.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment. Unlike `now` it is never stepped: for limits and pauses.
    fn elapsed(&self) -> Duration;
    /// Like `elapsed`, and it goes on while the machine sleeps: for what ends whether anybody is awake or not.
    fn since_boot(&self) -> Duration;
    async fn sleep(&self, time: Duration);
}

/// The machine's clock.
pub struct RealClock;

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        #[cfg(debug_assertions)]
        return Timestamp::now() + stepped();
        #[cfg(not(debug_assertions))]
        Timestamp::now()
    }
    fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
    fn since_boot(&self) -> Duration {
        let read = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        read.expect("every Linux since 2.6.39 has this clock")
            .into()
    }
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Debug builds only: the seconds, forwards or backwards, in the file that `HAFOG_CLOCK_STEP` names; read every time,
/// so that the clock can be stepped under a running process. No file is no step.
#[cfg(debug_assertions)]
fn stepped() -> jiff::SignedDuration {
    static FILE: LazyLock<Option<std::ffi::OsString>> =
        LazyLock::new(|| std::env::var_os("HAFOG_CLOCK_STEP"));
    let text = FILE
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok());
    let seconds = text.and_then(|text| text.trim().parse().ok());
    jiff::SignedDuration::from_secs(seconds.unwrap_or_default())
}

/// A clock that moves only when somebody sleeps on it: simulated hours cost nothing.
pub struct SteppedClock(Mutex<Timestamp>);

impl SteppedClock {
    pub fn at(start: Timestamp) -> SteppedClock {
        SteppedClock(Mutex::new(start))
    }

    pub fn advance(&self, time: Duration) {
        let mut now = self.0.lock().expect("no holder of the clock panics");
        *now += time;
    }
}

#[async_trait]
impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no holder of the clock panics")
    }
    fn elapsed(&self) -> Duration {
        let since = self.now().duration_since(Timestamp::UNIX_EPOCH);
        Duration::try_from(since).expect("no test lives before 1970")
    }
    fn since_boot(&self) -> Duration {
        self.elapsed()
    }
    async fn sleep(&self, time: Duration) {
        self.advance(time);
        tokio::task::yield_now().await;
    }
}
