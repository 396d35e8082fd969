//! The other side of `process`: carries out orders, one a line.

use std::io::BufRead;
use std::time::{Duration, Instant};

use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Backend, Error, Node, Options, Pattern, Query, Selection, Value, View};

fn pattern(text: &str) -> Pattern {
    match text.contains('*') {
        true => Pattern::glob(text).unwrap(),
        false => Pattern::exact(text),
    }
}

fn describe(view: &View) -> String {
    let value = match &view.value {
        Some(Value::Int(sum)) => sum.to_string(),
        other => other.as_ref().map_or("none".into(), |v| format!("{v:?}")),
    };
    let missing = match &view.missing[..] {
        [] => "-".to_owned(),
        names => names.join(" "),
    };
    format!("{value} answered {} missing {missing}", view.answered.len())
}

fn sum(node: &Node, key: &str, timeout: &str) -> String {
    let mut query = Query::new(pattern(key), Reducer::named("sum").unwrap());
    query.timeout = Duration::from_millis(timeout.parse().unwrap());
    match node.get_global(query) {
        Ok(view) => describe(&view),
        Err(Error::Incomplete(view)) => format!("incomplete {}", describe(&view)),
        Err(why) => format!("error {why}"),
    }
}

fn keys(count: &str) -> Vec<String> {
    let count: usize = count.parse().unwrap();
    (0..count).map(|n| format!("k{n}")).collect()
}

/// How long a member counts that nobody stops: what takes its items may die before it freezes them.
const COUNTING: Duration = Duration::from_secs(5);

/// Adds to the counters in turn until one refuses, or has gone; returns what each last acknowledged. Says
/// `counting` once each has been added to.
fn hammer(node: &Node, keys: &[String]) -> String {
    let store = node.store();
    let texts = |last: &[i64]| {
        last.iter()
            .map(i64::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut acknowledged = vec![0; keys.len()];
    let end = Instant::now() + COUNTING;
    for round in 0.. {
        for (key, last) in keys.iter().zip(&mut acknowledged) {
            match store.add(key, 1) {
                Ok(value) if round == 0 || value == *last + 1 => *last = value,
                // It did not run while they were frozen, and they have gone: it has begun anew.
                Ok(_) => {
                    store.delete(key).expect("nobody else takes it");
                    return texts(&acknowledged);
                }
                Err(_) => return texts(&acknowledged),
            }
        }
        if round == 0 {
            println!("> counting");
        }
        if Instant::now() > end {
            break;
        }
    }
    texts(&acknowledged)
}

/// Adds to the counters in turn, and goes on for a while after they have gone: whoever writes then begins
/// anew. Returns how often each addition was acknowledged. Says `counting` once each has been added to.
fn tally(node: &Node, keys: &[String]) -> String {
    let store = node.store();
    let mut counts = vec![0_i64; keys.len()];
    let end = Instant::now() + COUNTING;
    let mut left = 100;
    for round in 0.. {
        for (key, count) in keys.iter().zip(&mut counts) {
            if let Ok(value) = store.add(key, 1) {
                *count += 1;
                // Less than was added: it has begun anew.
                left -= u32::from(value < *count && left > 0);
            }
        }
        if round == 0 {
            println!("> counting");
        }
        if left == 0 || Instant::now() > end {
            break;
        }
    }
    let texts: Vec<_> = counts.iter().map(i64::to_string).collect();
    texts.join(" ")
}

/// Takes counters, and adds one to each as soon as that is allowed here; returns what they are then.
fn go_on(node: &Node, source: &str, id: u64, count: &str) -> String {
    let (store, keys) = (node.store(), keys(count));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            // What has arrived can be read before it can be written.
            keys.iter()
                .map(|key| {
                    while store.get(key).is_none() {
                        std::thread::yield_now();
                    }
                    loop {
                        match store.add(key, 1) {
                            Ok(sum) => return sum.to_string(),
                            Err(Error::Frozen { .. }) => std::thread::yield_now(),
                            Err(why) => return format!("error {why}"),
                        }
                    }
                })
                .collect::<Vec<_>>()
        });
        node.take(Selection::Keys(keys.clone()), source, id, true)
            .expect("the source lives");
        writing.join().unwrap().join(" ")
    })
}

fn carry_out(node: &Node, order: &[&str]) -> String {
    let store = node.store();
    match order {
        ["set", key, value] => {
            store.set(key, value.parse::<i64>().unwrap()).unwrap();
            "set".into()
        }
        ["fill", count] => {
            for (n, key) in keys(count).iter().enumerate() {
                store.set(key, n as i64).unwrap();
            }
            "filled".into()
        }
        ["clear", count] => {
            for key in keys(count) {
                store.delete(&key).unwrap();
            }
            "cleared".into()
        }
        ["count"] => store.memory().items.to_string(),
        ["answered"] => {
            let mut figures = node.statistics().into_iter();
            let found = figures.find(|(name, _)| *name == "read_by_others");
            format!("{:?}", found.unwrap().1)
        }
        ["sum", key, timeout] => sum(node, key, timeout),
        ["sums", key, count, timeout] => {
            let count: usize = count.parse().unwrap();
            let mut seen: Vec<_> = (0..count).map(|_| sum(node, key, timeout)).collect();
            seen.sort();
            seen.dedup();
            seen.join(",")
        }
        ["take", source, id, count] => {
            let selection = Selection::Keys(keys(count));
            match node.take(selection, source, id.parse().unwrap(), true) {
                Ok(taken) => taken.items.to_string(),
                Err(why) => format!("error {why}"),
            }
        }
        ["die", from, event, when] => {
            let step = format!("{from} {event}");
            let after = *when == "after";
            node.on_move_step(Box::new(move |row, said| {
                if said == after && format!("{:?} {:?}", row.from, row.event) == step {
                    // SAFETY: it is this process, and there is nothing that it leaves undone.
                    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                }
            }));
            "doomed".into()
        }
        ["declare", name] => match node.declare_dead(name) {
            Ok(moves) => format!("{moves} decided"),
            Err(why) => format!("error {why}"),
        },
        ["add", key] => match store.add(key, 1) {
            Ok(sum) => sum.to_string(),
            Err(why) => format!("error {why}"),
        },
        ["continue", source, id, count] => go_on(node, source, id.parse().unwrap(), count),
        ["tally", count] => tally(node, &keys(count)),
        ["hammer", count] => hammer(node, &keys(count)),
        ["values", count] => {
            let values = keys(count).into_iter().map(|key| match store.get(&key) {
                Some(Value::Int(value)) => value.to_string(),
                other => format!("{other:?}"),
            });
            values.collect::<Vec<_>>().join(" ")
        }
        ["members"] => node.members().join(" "),
        ["incarnation"] => node.id().incarnation.to_string(),
        ["events"] => {
            let news = node.member_news();
            let say = |gone: &Option<_>| if gone.is_some() { "left" } else { "joined" };
            let lines = news
                .iter()
                .map(|n| format!("{} {}", say(&n.gone), n.member.name));
            lines.collect::<Vec<_>>().join(",")
        }
        ["close"] => {
            node.close();
            "closed".into()
        }
        other => panic!("no such order: {other:?}"),
    }
}

#[test]
#[ignore = "the body of a process that another test starts"]
fn process() {
    let Ok(name) = std::env::var("MEMBER_NAME") else {
        return;
    };
    let peers = std::env::var("MEMBER_PEERS").unwrap();
    let mut options = Options::new("test", &name);
    let failure_ms = std::env::var("MEMBER_FAILURE_MS").unwrap();
    options.failure_after = Duration::from_millis(failure_ms.parse().unwrap());
    options.peers = peers
        .split(',')
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect();
    let node = match Node::open(&options) {
        Ok(node) => node,
        Err(why) => {
            println!("> refused {why}");
            return;
        }
    };
    println!("> at {}", node.address().unwrap());
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let order: Vec<_> = line.split(' ').collect();
        println!("> {}", carry_out(&node, &order));
    }
}
