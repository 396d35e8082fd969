//! The sender: greets the sink, sends on schedule, says what it sent, and counts what comes back.

use crate::clock::now;
use crate::control::Control;
use crate::emitter::Emitter;
use crate::error::{Error, Result};
use crate::inlet::Inlets;
use crate::pace::{Emitted, Pace};
use crate::plan::{Plan, SendConfig, plan};
use crate::report::{Received, SendReport};
use crate::schedule::Stream;
use crate::sink::{Stamps, ns, timeline};
use crate::socket::{SourceOptions, allow_files, dropped, open_source};
use crate::talk::Talk;
use crate::tally::Tally;
use crate::worker::Place;
use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

/// The longest wait, ns: so often a listener looks whether it is over.
const TICK: u64 = 20_000_000;
/// With every reply here, wait this long for copies, ns.
const SETTLE: u64 = 100_000_000;

/// Run a sender to its end, in a thread of its own.
pub fn run(config: SendConfig, control: Arc<Control>) -> Result<SendReport> {
    let place = Place {
        netns: config.netns.clone(),
        cpu: config.cpu,
    };
    let thread = place.spawn("probe-send", move || send(&config, &control))?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn open(plan: &Plan, config: &SendConfig) -> Result<Vec<OwnedFd>> {
    let layout = &plan.layout;
    let source = |source: usize, peer| {
        open_source(SourceOptions {
            from: layout.sources[source],
            peer,
            buffer: config.buffer,
            stamps: config.echo && config.stamps == Stamps::Kernel,
            segment: (config.segments > 1).then_some(plan.payload as u16),
        })
    };
    allow_files(if plan.connected {
        config.flows as usize
    } else {
        layout.sources.len()
    });
    if !plan.connected {
        return (0..layout.sources.len())
            .map(|index| source(index, None))
            .collect();
    }
    let targets: Vec<SocketAddr> = layout.targets().collect();
    (0..config.flows)
        .map(|flow| layout.place(flow))
        .map(|(from, to)| source(from, Some(targets[to])))
        .collect()
}

fn send(config: &SendConfig, control: &Control) -> Result<SendReport> {
    let plan = plan(config)?;
    let sockets = open(&plan, config)?;
    let timeline = if config.echo {
        timeline(&config.timeline, config.timeline_ms)?
    } else {
        None
    };
    let mut tally = Tally::of_sender(plan.run, timeline);
    // Without echo only flow 0 hears anything: the answers to greeting and END.
    let heard = if config.echo {
        &sockets[..]
    } else {
        &sockets[..1]
    };
    let mut inlets = Inlets::new(heard, plan.payload.max(2048), false);
    let peer = SocketAddr::new(plan.layout.address, plan.layout.port);
    let talk = Talk {
        socket: sockets[0].as_fd(),
        peer,
        run: plan.run,
        control,
        said: Cell::new(0),
    };
    control.set_ready();

    if let Some(patience) = config.handshake
        && !talk.greet(config.flows, ns(patience), &mut inlets, &mut tally)?
        && !control.stopped()
    {
        return Err(Error::Failed(format!(
            "no sink answers at {peer}: start `flowferry probe sink` there first, or send without a handshake"
        )));
    }

    // What came back before the sink was there says nothing about the run.
    inlets.icmp_errors = 0;

    let over = AtomicBool::new(false);
    let emitted = std::thread::scope(|scope| {
        let listener = config
            .echo
            .then(|| scope.spawn(|| listen(&over, &mut inlets, &mut tally)));
        let result = emit_all(&plan, config, &sockets, control);
        over.store(true, Ordering::Release);
        listener.map_or(Ok(()), join)?;
        result
    })?;
    if config.echo {
        tally.set_sent(&emitted.sent, "sender");
        await_replies(ns(config.linger), &mut inlets, &mut tally)?;
    }
    let end_acknowledged = match config.end {
        Some(patience) => {
            Some(talk.tell_end(&emitted.sent, ns(patience), &mut inlets, &mut tally)?)
        }
        None => None,
    };
    let icmp_errors = emitted.icmp_errors + inlets.icmp_errors;
    let replies = if config.echo {
        let lost_here = sockets.iter().map(|s| dropped(s.as_fd())).sum();
        Some(tally.finish(lost_here, config.per_flow)?)
    } else {
        None
    };
    Ok(report(
        &plan,
        config,
        emitted,
        &talk,
        (icmp_errors, end_acknowledged),
        replies,
    ))
}

fn listen(over: &AtomicBool, inlets: &mut Inlets<'_>, tally: &mut Tally) -> Result<()> {
    while !over.load(Ordering::Acquire) {
        inlets.round(tally, now() + TICK)?;
    }
    Ok(())
}

fn await_replies(linger: u64, inlets: &mut Inlets<'_>, tally: &mut Tally) -> Result<()> {
    let since = now();
    loop {
        inlets.round(tally, now() + TICK)?;
        let quiet = now().saturating_sub(tally.last_arrival().unwrap_or(0).max(since));
        if quiet >= linger || tally.complete() && quiet >= SETTLE {
            return Ok(());
        }
    }
}

/// Send every share in a thread of its own.
fn emit_all(
    plan: &Plan,
    config: &SendConfig,
    sockets: &[OwnedFd],
    control: &Control,
) -> Result<Emitted> {
    let shape = (plan.payload, config.segments, plan.encoding);
    let pace = Pace {
        start: now(),
        duration: plan.duration,
        by_count: config.count.is_some(),
        segments: u64::from(config.segments),
        control,
    };
    let one = |(active, quiet): &(Stream, Stream)| {
        let (layout, flows) = (&plan.layout, config.flows);
        let emitter = Emitter::new(
            layout,
            sockets,
            plan.connected,
            control,
            plan.run,
            flows,
            shape,
        );
        pace.emit(active.clone(), quiet.clone(), emitter)
    };
    let [first, others @ ..] = &plan.shares[..] else {
        unreachable!("a plan has at least one thread")
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = others
            .iter()
            .map(|share| scope.spawn(|| one(share)))
            .collect();
        let mut sum = one(first);
        for other in others {
            let other = join(other);
            sum = sum.and_then(|sum| Ok(sum.and(other?)));
        }
        sum
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn report(
    plan: &Plan,
    config: &SendConfig,
    emitted: Emitted,
    talk: &Talk<'_>,
    (icmp_errors, end_acknowledged): (u64, Option<bool>),
    replies: Option<Received>,
) -> SendReport {
    let duration_ns = emitted.span.map_or(0, |(first, last)| last - first);
    let packets_per_second = if duration_ns > 0 {
        (emitted.total - 1) as f64 * 1e9 / duration_ns as f64
    } else {
        0.0
    };
    let mut verdict = match &replies {
        Some(replies) => format!("round trip {}", replies.verdict()),
        None => format!("sent {} packets on {} flows", emitted.total, config.flows),
    };
    if end_acknowledged == Some(false) {
        verdict += "; the sink did not confirm the sent counts";
    }
    if icmp_errors > 0 {
        verdict +=
            &format!("; {icmp_errors} ICMP errors came back (is the sink bound to these ports?)");
    }
    SendReport {
        role: "send",
        run: plan.run,
        ended_by: emitted.ended_by,
        flows: config.flows,
        quiet_flows: plan.quiet_flows,
        sent: emitted.total,
        talk_sent: talk.said.get(),
        payload_bytes: plan.payload as u32,
        frame_bytes: plan.frame as u32,
        duration_ns,
        first_ns: emitted.span.map(|(first, _)| first),
        last_ns: emitted.span.map(|(_, last)| last),
        packets_per_second,
        target_packets_per_second: plan.target_rate,
        late_max_ns: emitted.late_max,
        icmp_errors,
        full_queue: emitted.full_queue,
        end_acknowledged,
        sent_per_flow: emitted.sent,
        replies,
        verdict,
    }
}
