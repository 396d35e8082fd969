//! The sender: greets the sink, sends on schedule, says what it sent, and counts what comes back.

use crate::clock::{now, sleep_until};
use crate::control::Control;
use crate::emitter::{BATCH, Emitter};
use crate::error::{Error, Result};
use crate::inlet::Inlets;
use crate::plan::{Plan, SendConfig, plan};
use crate::report::{Received, SendReport};
use crate::sink::{Stamps, ns, timeline};
use crate::socket::{SourceOptions, allow_files, dropped, open_source};
use crate::talk::Talk;
use crate::tally::Tally;
use crate::worker::Place;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The shortest sleep, ns: what falls due meanwhile goes out as one batch, and the core stays free.
const NAP: u64 = 50_000;
/// The longest sleep, ns: so often the sender looks at its [`Control`].
const TICK: u64 = 20_000_000;
/// Time a paced sender may take after the end to send what was due before it, ns.
const GRACE: u64 = 100_000_000;
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
    let mut plan = plan(config)?;
    let layout = plan.layout.clone();
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
    let peer = SocketAddr::new(layout.address, layout.port);
    let talk = Talk {
        socket: sockets[0].as_fd(),
        peer,
        run: plan.run,
        control,
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

    let shape = (plan.payload, config.segments, plan.encoding);
    let mut emitter = Emitter::new(
        &layout,
        &sockets,
        plan.connected,
        control,
        plan.run,
        config.flows,
        shape,
    );
    let over = AtomicBool::new(false);
    let (ended_by, late_max_ns) = std::thread::scope(|scope| {
        let listener = config
            .echo
            .then(|| scope.spawn(|| listen(&over, &mut inlets, &mut tally)));
        let result = emit(&mut plan, config, control, &mut emitter);
        over.store(true, Ordering::Release);
        listener.map_or(Ok(()), |l| {
            l.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        result
    })?;
    if config.echo {
        tally.set_sent(&emitter.sent, "sender");
        await_replies(ns(config.linger), &mut inlets, &mut tally)?;
    }
    let end_acknowledged = match config.end {
        Some(patience) => {
            Some(talk.tell_end(&emitter.sent, ns(patience), &mut inlets, &mut tally)?)
        }
        None => None,
    };
    let icmp_errors = emitter.icmp_errors + inlets.icmp_errors;
    let replies = if config.echo {
        let lost_here = sockets.iter().map(|s| dropped(s.as_fd())).sum();
        Some(tally.finish(lost_here, config.per_flow)?)
    } else {
        None
    };
    Ok(report(
        &plan,
        config,
        emitter,
        (ended_by, late_max_ns, icmp_errors, end_acknowledged),
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

/// Send on schedule. Returns why it ended, and the most a packet was behind its due time.
fn emit(
    plan: &mut Plan,
    config: &SendConfig,
    control: &Control,
    emitter: &mut Emitter<'_>,
) -> Result<(&'static str, u64)> {
    let start = now();
    let mut late_max = 0;
    let segments = u64::from(config.segments);
    loop {
        if control.stopped() {
            return Ok(("stopped", late_max));
        }
        let at = now();
        let elapsed = at - start;
        if let Some(end) = plan.duration {
            let behind = [&plan.active, &plan.quiet]
                .into_iter()
                .any(|s| s.is_paced() && !s.is_done());
            if elapsed >= end + if behind { GRACE } else { 0 }
                || elapsed >= end && !plan.active.is_paced()
            {
                return Ok(("duration", late_max));
            }
        }
        if plan.active.is_done()
            && (plan.quiet.is_done() || config.count.is_some() && plan.has_active())
        {
            return Ok((
                if config.count.is_some() {
                    "count"
                } else {
                    "duration"
                },
                late_max,
            ));
        }
        let mut sent_any = false;
        for stream in [&mut plan.quiet, &mut plan.active] {
            let mut due = stream.due(elapsed).min(BATCH as u64 * segments);
            if let Some(next) = stream.next_due().filter(|_| due > 0 && stream.is_paced()) {
                late_max = late_max.max(elapsed - next);
            }
            while due > 0 {
                let (flow, count) = stream.take(due.min(segments));
                emitter.add(flow, count, at)?;
                due -= u64::from(count);
                sent_any = true;
            }
        }
        emitter.flush()?;
        control.set_packets(emitter.total);
        if !sent_any {
            let next = [&plan.quiet, &plan.active]
                .into_iter()
                .filter_map(|s| s.next_due())
                .min();
            let due = next
                .map_or(at + TICK, |next| start + next)
                .clamp(at + NAP, at + TICK);
            sleep_until(due);
        }
    }
}

fn report(
    plan: &Plan,
    config: &SendConfig,
    emitter: Emitter<'_>,
    (ended_by, late_max_ns, icmp_errors, end_acknowledged): (&'static str, u64, u64, Option<bool>),
    replies: Option<Received>,
) -> SendReport {
    let duration_ns = emitter.span.map_or(0, |(first, last)| last - first);
    let packets_per_second = if duration_ns > 0 {
        (emitter.total - 1) as f64 * 1e9 / duration_ns as f64
    } else {
        0.0
    };
    let mut verdict = match &replies {
        Some(replies) => format!("round trip {}", replies.verdict()),
        None => format!("sent {} packets on {} flows", emitter.total, config.flows),
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
        ended_by,
        flows: config.flows,
        quiet_flows: plan.quiet_flows,
        sent: emitter.total,
        payload_bytes: plan.payload as u32,
        frame_bytes: plan.frame as u32,
        duration_ns,
        first_ns: emitter.span.map(|(first, _)| first),
        last_ns: emitter.span.map(|(_, last)| last),
        packets_per_second,
        target_packets_per_second: plan.target_rate,
        late_max_ns,
        icmp_errors,
        full_queue: emitter.full_queue,
        end_acknowledged,
        sent_per_flow: emitter.sent,
        replies,
        verdict,
    }
}
