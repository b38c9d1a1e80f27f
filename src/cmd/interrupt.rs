//! Ctrl-C and SIGTERM: the first asks the run to stop between two steps, the second leaves at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Fault, Kind};
use crate::exit;
use crate::run::runner::Stop;
use crate::ui::print::Ui;

pub struct Interrupts {
    pub stop: Arc<Stop>,
    asked: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Interrupts {
    /// From now on signals do not end the process by themselves.
    pub fn listen(ui: &Ui) -> Interrupts {
        let stop = Arc::new(Stop::default());
        let (tell, asked) = watch::channel(false);
        let task = tokio::spawn(hear(*ui, stop.clone(), tell));
        Interrupts { stop, asked, task }
    }

    /// Returns when the first signal came.
    pub async fn asked(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // Nobody listens any longer, so nobody will be told.
            std::future::pending::<()>().await;
        }
    }

    /// What `work` gives, or that somebody interrupted it.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::select! {
            done = work => Ok(done),
            () = self.asked() => Err(stopped()),
        }
    }

    /// The same of a work that leaves something behind when it is dropped: it is let end.
    pub async fn or_after<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        let done = work.await;
        match *self.asked.borrow() {
            true => Err(stopped()),
            false => Ok(done),
        }
    }
}

fn stopped() -> Fault {
    Fault::of(Kind::Interrupted, "stopped before the plan was begun")
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hear(ui: Ui, stop: Arc<Stop>, tell: watch::Sender<bool>) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    stop.ask();
    let _ = tell.send(true);
    next().await;
    ui.say("left in the middle; the journal says where");
    std::process::exit(i32::from(exit::INTERRUPTED));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn what_would_leave_something_behind_is_let_end() {
        let (tell, asked) = watch::channel(false);
        let interrupts = Interrupts {
            stop: Arc::new(Stop::default()),
            asked,
            task: tokio::spawn(async {}),
        };
        let restored = Cell::new(0);
        let work = async || {
            tokio::task::yield_now().await;
            restored.set(restored.get() + 1);
        };
        assert!(interrupts.or_after(work()).await.is_ok());
        tell.send(true).unwrap();
        let fault = interrupts.or_after(work()).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Interrupted);
        assert_eq!(restored.get(), 2);
    }
}
