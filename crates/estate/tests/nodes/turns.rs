//! Threads that ask receive themselves, one at a time: what the others of a node get meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Backend, Error, Node, Options, Pattern, Query, Value};

use crate::process::{Process, eventually};

fn node(name: &str, peers: &[&Node]) -> Node {
    let mut options = Options::new("turns", name);
    options.peers = peers
        .iter()
        .map(|peer| peer.address().unwrap().to_string())
        .collect();
    Node::open(&options).unwrap()
}

fn sum(key: &str) -> Query {
    let mut query = Query::new(Pattern::exact(key), Reducer::named("sum").unwrap());
    query.timeout = Duration::from_secs(9);
    query
}

#[test]
fn threads_of_both_nodes_ask_at_once_and_each_gets_its_own_answer() {
    let one = node("one", &[]);
    let two = node("two", &[&one]);
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        one.store().set(key, n as i64).unwrap();
        two.store().set(key, 10_i64).unwrap();
    }
    eventually("each sees the other", || {
        one.members().len() == 2 && two.members().len() == 2
    });
    thread::scope(|scope| {
        for asker in [&one, &two] {
            for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
                scope.spawn(move || {
                    for _ in 0..300 {
                        let view = asker.get_global(sum(key)).unwrap();
                        assert_eq!(view.value, Some(Value::Int(10 + n as i64)));
                    }
                });
            }
        }
    });
}

#[test]
fn a_read_that_waits_in_vain_does_not_keep_its_node_from_answering_others() {
    let silent = Process::start("silent", &[]);
    let mut options = Options::new("test", "asked");
    options.peers = vec![silent.address().to_owned()];
    options.failure_after = Duration::from_secs(60);
    let asked = Arc::new(Node::open(&options).unwrap());
    let mut other = Process::start("other", &[asked.address().unwrap().to_string()]);
    eventually("all are members", || asked.members().len() == 3);
    eventually("also for the other", || {
        other.say("members") == "asked other silent"
    });
    silent.stop();
    let waiting = asked.clone();
    let read = thread::spawn(move || waiting.get_global(sum("x")));
    eventually("it has begun", || {
        asked
            .statistics()
            .into_iter()
            .any(|figure| figure == ("queries".to_owned(), 1))
    });
    asked.store().set("y", 7_i64).unwrap();
    // The thread that waits answers for its node.
    let answer = other.say("sum y 500");
    assert!(answer.contains("7 answered 2 "), "{answer}");
    // Whoever waits learns that the node is closed, and closing does not wait for the read.
    asked.close();
    assert!(matches!(read.join().unwrap(), Err(Error::Closed)));
}
