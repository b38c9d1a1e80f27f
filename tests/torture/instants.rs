//! Time that is part of a case: the seeded instant of a fault, how long an outage lasts. A case that waits *for*
//! something goes through `harness::wait`.

use std::time::Duration;

pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}
