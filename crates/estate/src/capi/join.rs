//! Joining, leaving, members, flows and figures.

use super::block::Plan;
use super::input::{one, place, string};
use super::items::texts_block;
use super::status::{Failure, Outcome, run};
use super::types::{CEstate, CFigure, COptions, CReadHook, CStatistics, CText, CTexts};
use crate::backend::{Estate, Options, Tls};
use crate::flow::FlowKey;
use flowferry_wire::{Flow, Vlans};
use std::ffi::{c_char, c_int, c_void};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// # Safety
/// Every pointer is NULL or a text that ends with NUL.
unsafe fn options(given: &COptions) -> std::result::Result<Options, Failure> {
    if given.size < size_of::<COptions>() {
        return Err(Failure::Argument("options->size"));
    }
    // SAFETY: the caller's.
    let string = |text, what| unsafe { string(text, what) };
    let list = |text, what| -> std::result::Result<Vec<String>, Failure> {
        let parts = string(text, what)?
            .unwrap_or_default()
            .split(',')
            .map(str::trim);
        Ok(parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect())
    };
    let cluster = string(given.cluster, "options->cluster")?;
    let node = string(given.node, "options->node")?;
    let mut out = Options::new(
        cluster.ok_or(Failure::Argument("options->cluster"))?,
        node.ok_or(Failure::Argument("options->node"))?,
    );
    if let Some(backend) = string(given.backend, "options->backend")? {
        out.backend = backend.to_owned();
    }
    out.listen = list(given.listen, "options->listen")?;
    out.peers = list(given.peers, "options->peers")?;
    out.scouting = given.scouting != 0;
    out.relay = given.relay != 0;
    let tls = [
        string(given.tls_ca, "options->tls_ca")?,
        string(given.tls_certificate, "options->tls_certificate")?,
        string(given.tls_key, "options->tls_key")?,
    ];
    out.tls = match tls {
        [Some(ca), Some(certificate), Some(key)] => Some(Tls {
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
        }),
        [None, None, None] => None,
        _ => return Err(Failure::Argument("one of options->tls_*")),
    };
    out.memory_limit = (given.memory_limit > 0).then_some(given.memory_limit);
    for (ms, duration) in [
        (given.failure_after_ms, &mut out.failure_after),
        (given.timeout_ms, &mut out.timeout),
    ] {
        if ms > 0 {
            *duration = Duration::from_millis(ms);
        }
    }
    Ok(out)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_open(given: *const COptions, es: *mut *mut CEstate) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, and options whose texts end with NUL.
        let (es, options) = unsafe {
            (
                place(es, std::ptr::null_mut(), "es")?,
                options(one(given, "options")?)?,
            )
        };
        *es = Box::into_raw(Box::new(CEstate(Estate::open(options)?)));
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_close(es: *mut CEstate) {
    if es.is_null() {
        return;
    }
    run(|| {
        // SAFETY: it came from `estate_open`, and is given back once.
        unsafe { Box::from_raw(es) }.0.close();
        Ok(Outcome::Ok)
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_members(es: *const CEstate, members: *mut *mut CTexts) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, and an estate that is open.
        let (members, estate) = unsafe {
            (
                place(members, std::ptr::null_mut(), "members")?,
                &one(es, "es")?.0,
            )
        };
        *members = texts_block(&estate.members()?);
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_figures(es: *const CEstate, out: *mut *mut CStatistics) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, and an estate that is open.
        let (out, estate) = unsafe {
            (
                place(out, std::ptr::null_mut(), "figures")?,
                &one(es, "es")?.0,
            )
        };
        let figures = estate.statistics()?;
        let plan = Plan::default()
            .structs::<CStatistics>(1)
            .structs::<CFigure>(figures.len());
        let plan = figures
            .keys()
            .fold(plan, |plan, name| plan.text(name.len()));
        let mut block = plan.allocate();
        let head = block.head::<CStatistics>();
        let figure = |(name, &value): (&String, &u64)| CFigure {
            name: block.text(name.as_bytes()),
            value,
        };
        let list: Vec<CFigure> = figures.iter().map(figure).collect();
        let statistics = CStatistics {
            count: list.len(),
            figures: block.place(&list),
        };
        // SAFETY: the head was reserved for it.
        unsafe { head.write(statistics) };
        *out = head;
        Ok(Outcome::Ok)
    })
}

/// What belongs to a hook; the caller vouches that any thread may use it.
struct Context(*mut c_void);

// SAFETY: estate.h says that the hook is called in a thread of the library.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_on_global_read(
    es: *const CEstate,
    hook: Option<CReadHook>,
    context: *mut c_void,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives an estate that is open.
        let estate = &unsafe { one(es, "es") }?.0;
        let hook = hook.ok_or(Failure::Argument("hook"))?;
        let context = Context(context);
        estate.on_global_read(Box::new(move |read| {
            let context = &context;
            let text = |text: &str| CText {
                data: text.as_ptr().cast(),
                size: text.len(),
            };
            // SAFETY: the caller gave the function and what belongs to it.
            unsafe { hook(context.0, text(&read.by), text(&read.pattern)) };
        }))?;
        Ok(Outcome::Ok)
    })
}

const FLOW_MAX: usize = 160;

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_flow(
    family: c_int,
    protocol: u8,
    address_a: *const c_void,
    port_a: u16,
    address_b: *const c_void,
    port_b: u16,
    vlans: *const u16,
    vlan_count: usize,
    out: *mut c_char,
) -> c_int {
    run(|| {
        if out.is_null() || address_a.is_null() || address_b.is_null() {
            return Err(Failure::Argument("text or an address"));
        }
        let vlans = match vlan_count {
            0 => Vlans::NONE,
            // SAFETY: the caller gives so many.
            1 | 2 if !vlans.is_null() => unsafe {
                Vlans::new(std::slice::from_raw_parts(vlans, vlan_count))
                    .map_err(|_| Failure::Argument("vlans"))?
            },
            _ => return Err(Failure::Argument("vlans")),
        };
        let flow = match family {
            4 => {
                // SAFETY: the caller gives four bytes.
                let end = |address: *const c_void, port| unsafe {
                    (Ipv4Addr::from(address.cast::<[u8; 4]>().read()), port)
                };
                Flow::ip4(
                    vlans,
                    protocol,
                    end(address_a, port_a),
                    end(address_b, port_b),
                )
            }
            6 => {
                // SAFETY: the caller gives sixteen bytes.
                let end = |address: *const c_void, port| unsafe {
                    (Ipv6Addr::from(address.cast::<[u8; 16]>().read()), port)
                };
                Flow::ip6(
                    vlans,
                    protocol,
                    end(address_a, port_a),
                    end(address_b, port_b),
                )
            }
            _ => return Err(Failure::Argument("family")),
        };
        let key = FlowKey::from(&flow);
        let text = key.as_str().as_bytes();
        assert!(text.len() < FLOW_MAX, "two IPv6 ends and two tags fit");
        // SAFETY: the caller gives room for FLOW_MAX bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
            out.add(text.len()).write(0);
        }
        Ok(Outcome::Ok)
    })
}
