//! Where answers go: to a thread that waits, or to a callback.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

/// What is called with the answer: once, on a thread of the node, which it must not keep waiting.
pub type Then<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

struct Slot<T> {
    answer: Mutex<Option<Result<T, Error>>>,
    there: Condvar,
}

/// Starts a call and waits for its answer. The engine ends every call by its time-out, and closing
/// the node ends all of them, so this returns.
pub fn wait<T: Send + 'static>(start: impl FnOnce(Then<T>)) -> Result<T, Error> {
    let slot = Arc::new(Slot {
        answer: Mutex::new(None),
        there: Condvar::new(),
    });
    let filled = slot.clone();
    start(Box::new(move |answer| {
        *filled.answer.lock() = Some(answer);
        filled.there.notify_one();
    }));
    let mut answer = slot.answer.lock();
    loop {
        match answer.take() {
            Some(answer) => return answer,
            None => slot.there.wait(&mut answer),
        }
    }
}
