//! Time as a port: the real clock, and one that tests step.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

#[async_trait]
pub trait Clock: Send + Sync {
    /// Wall clock, UTC.
    fn now(&self) -> Timestamp;
    async fn sleep(&self, time: Duration);
}

/// The machine's clock.
pub struct RealClock;

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
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
    async fn sleep(&self, time: Duration) {
        self.advance(time);
        tokio::task::yield_now().await;
    }
}
