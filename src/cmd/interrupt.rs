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
            () = self.asked() => Err(Fault::of(Kind::Interrupted, "interrupted; nothing was changed")),
        }
    }
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
