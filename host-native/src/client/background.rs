//! The thread that keeps sessions alive.
//!
//! All clients of a process share one thread with a runtime of its own. So a lease is renewed, and
//! its loss noticed, however long the application blocks its own threads; and the application may
//! use any runtime, since what it awaits are plain channels. The thread starts with the first client
//! and ends by itself after the last one.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Threads for what cannot be awaited: the lookup of names.
const BLOCKING_THREADS_MAX: usize = 4;

static RUNNING: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

/// Keeps the thread running. A clone does, too.
#[derive(Clone, Debug)]
pub(super) struct Background(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handle: Handle,
    /// Dropped, it ends the thread.
    _alive: oneshot::Sender<()>,
}

impl Background {
    /// The thread that runs, or a new one.
    pub(super) fn start() -> io::Result<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = running.upgrade() {
            return Ok(Self(shared));
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()?;
        let handle = runtime.handle().clone();
        let (alive, over) = oneshot::channel();
        std::thread::Builder::new().name("quorlock-client".into()).spawn(move || {
            runtime.block_on(async {
                // Nothing is ever sent: it is over when the sender is dropped.
                drop(over.await);
            });
            // A lookup that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        let shared = Arc::new(Shared { handle, _alive: alive });
        *running = Arc::downgrade(&shared);
        Ok(Self(shared))
    }

    /// Runs a future on the thread. Dropping this one drops that one.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let mut task = Aborting(self.0.handle.spawn(future));
        match pin!(&mut task.0).await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => unreachable!("the thread runs while it is held: {error}"),
            },
        }
    }

    /// Sleeps, whatever runtime the caller has.
    pub(super) async fn sleep(&self, duration: Duration) {
        self.run(async move { tokio::time::sleep(duration).await }).await;
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Aborting<T>(pub(super) JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Instant;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn runs_for_callers_without_timers_of_their_own() {
        let background = Background::start().expect("a thread");
        let name = block_on(async {
            background.sleep(Duration::from_millis(1)).await;
            background.run(async { thread::current().name().map(str::to_owned) }).await
        });
        assert_eq!(name.as_deref(), Some("quorlock-client"));
    }

    #[test]
    fn dropping_the_caller_drops_the_task() {
        let background = Background::start().expect("a thread");
        let (sender, receiver) = oneshot::channel::<()>();
        let task = background.run(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        block_on(async {
            // Started, then dropped.
            let started = tokio::select! {
                biased;
                () = task => true,
                () = std::future::ready(()) => false,
            };
            assert!(!started);
            assert!(receiver.await.is_err(), "the task is gone, and with it the sender");
        });
    }

    #[test]
    fn thread_ends_after_its_last_user() {
        // Other tests may use the thread, too: look at one of our own.
        let background = Background::start().expect("a thread");
        let weak = Arc::downgrade(&background.0);
        drop(background);
        let patience = Instant::now() + Duration::from_mins(1);
        while weak.strong_count() > 0 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        let again = Background::start().expect("a thread");
        assert_eq!(block_on(again.run(async { 7 })), 7);
    }
}
