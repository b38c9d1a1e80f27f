// STUB(lead): run::runner compiles when `step` is whole; these are its public types.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Fault;

#[derive(Debug)]
pub enum End {
    Done,
    Unwound(Fault),
    Stopped(Fault),
    NothingDone(Fault),
    Interrupted,
}

#[derive(Default)]
pub struct Stop {
    asked: AtomicBool,
}

impl Stop {
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}
