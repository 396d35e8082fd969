//! Any bytes as a message between members: no panic, one form only, and an engine that gets it
//! says nothing but whole messages.

#![no_main]

use flowferry_estate::protocol::{Action, Engine, Message, NodeId, Settings};
use flowferry_estate::{Store, StoreOptions};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let (own, other) = (NodeId::new("a", 1), NodeId::new("b", 1));
    if let Ok(message) = Message::parse(bytes, &other) {
        let again = message.emit();
        let read = Message::parse(&again, &other).expect("what is written is understood");
        assert_eq!(read.emit(), again);
    }
    let store = Store::new(StoreOptions::named("a"));
    let _ = store.set("flow:x/n", 1_i64);
    let mut engine = Engine::new(own, Settings::default());
    let mut now = Duration::from_millis(1);
    let mut actions = engine.joined(&store, &other, now);
    actions.extend(engine.message(&store, &other, bytes, now));
    for _ in 0..4 {
        let Some(due) = engine.next_due() else { break };
        now = now.max(due);
        actions.extend(engine.time(&store, now));
    }
    for action in actions {
        if let Action::Send { bytes, .. } = action {
            Message::parse(&bytes, &other).expect("what is said is understood");
        }
    }
});
