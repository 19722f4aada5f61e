//! The replies that this process is generating.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

type Ends = HashMap<i64, watch::Receiver<()>>;

/// The messages whose replies are being generated, so that a repeated request waits for the reply instead of requesting
/// another one.
#[derive(Clone, Default)]
pub struct InProgress(Arc<Mutex<Ends>>);

/// A guard held while a reply is generated and stored.
pub(super) struct Turn {
    questions: InProgress,
    question_id: i64,
    /// Closed on drop.
    _end: watch::Sender<()>,
}

impl InProgress {
    /// Waits until no other request holds the turn for a message. Returns the turn, and whether it had to wait.
    pub(super) async fn turn(&self, question_id: i64) -> (Turn, bool) {
        let mut waited = false;
        loop {
            let mut other = {
                let mut questions = self.lock();
                let Some(other) = questions.get(&question_id) else {
                    let (sender, receiver) = watch::channel(());
                    questions.insert(question_id, receiver);
                    return (Turn { questions: self.clone(), question_id, _end: sender }, waited);
                };
                other.clone()
            };
            waited = true;
            // Nothing is ever sent: `changed` returns when the other turn ends.
            let _ = other.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.question_id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_request_at_a_time_has_the_turn() {
        let questions = InProgress::default();
        let (first, waited) = questions.turn(1).await;
        assert!(!waited);
        assert!(!questions.turn(2).await.1, "another question");
        let mut second = Box::pin(questions.turn(1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.await.1);
        assert!(!questions.turn(1).await.1);
        assert!(questions.lock().is_empty());
    }
}
