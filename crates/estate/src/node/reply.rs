//! Where answers go: to a thread that waits, or to a callback.

use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use crate::error::Error;
use crate::fabric::Fabric;

/// What is called with the answer: once, on a thread of the node or of
/// another caller, which it must not keep waiting.
pub type Then<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

struct Slot<T> {
    answer: Mutex<Option<Result<T, Error>>>,
    there: Condvar,
}

/// Starts a call and waits for its answer; receives it itself if it can have the turn. The engine
/// ends every call by its time-out, and closing the node ends all of them, so this returns.
pub fn wait<T: Send + 'static>(
    fabric: &Arc<dyn Fabric>,
    start: impl FnOnce(Then<T>),
) -> Result<T, Error> {
    let slot = Arc::new(Slot {
        answer: Mutex::new(None),
        there: Condvar::new(),
    });
    let turn = fabric.turn();
    let filled = slot.clone();
    let receiver = turn
        .is_some()
        .then(|| (thread::current().id(), fabric.clone()));
    start(Box::new(move |answer| {
        *filled.answer.lock() = Some(answer);
        match receiver {
            None => drop(filled.there.notify_one()),
            Some((caller, _)) if caller == thread::current().id() => {}
            Some((_, fabric)) => {
                filled.there.notify_one();
                fabric.nudge();
            }
        }
    }));
    if let Some(turn) = turn {
        turn.receive(&|| slot.answer.lock().is_some());
    }
    let mut answer = slot.answer.lock();
    loop {
        match answer.take() {
            Some(answer) => return answer,
            None => slot.there.wait(&mut answer),
        }
    }
}
