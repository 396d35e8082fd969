// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The handover support layer in the kernel.
 *
 *   wire -> [ingress] -> function                    idle: one flag test, accounting, on
 *              |  ^
 *     captured |  | released, marked
 *              v  |
 *            [TAP] <-> agent                         one TAP a side
 *
 * A captured packet is cloned to the TAP and the original dropped: the clone's return value
 * tells when the TAP is gone (the packet then passes: fail open) or full (lost, counted).
 * A released packet is written to the same TAP, marked there and sent into the ingress of the
 * interface it first came from; that second pass takes the mark off, counts, and lets it on.
 *
 * Back to the fast path, packet by packet, only when nothing of the flow is outstanding and the
 * packet is on the CPU of the last release, or that release is settle_ns ago: until then a packet
 * on another CPU could overtake the last released one, which may still wait in a queue further on.
 *
 * `tripped` latches: once one packet has failed open, everything captured before it would be late.
 * So nothing is captured or released until the agent has thrown away (and counted) what it holds
 * and begun a new epoch.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "parse.h"
#include "maps.h"
#include "account.h"

#define FF_TIMED 64 /* a flow's last releases, see time_release() */

static __always_inline struct ff_control *control_page(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ff_control, &zero);
}

static __always_inline struct ff_port *port_of(struct ff_control *ctl)
{
	return &ctl->port[FF_SIDE];
}

static __always_inline int deliver(struct ff_port *port)
{
	if (port->inner)
		return bpf_redirect_peer(port->inner, 0);
	return TC_ACT_UNSPEC;
}

/* The coarse clock will do: it lags at most one tick, and the time-out is hundreds of them. */
static __always_inline int stale(struct ff_control *ctl)
{
	return ctl->tripped ||
	       (__s64)(bpf_ktime_get_coarse_ns() - ctl->heartbeat_ns) > (__s64)ctl->timeout_ns;
}

struct classify {
	struct ff_key headers; /* as they arrived: low = source */
	__u32 mode;
	__u32 at;
	__u32 rules;
};

static long classify_one(__u32 i, void *arg)
{
	struct classify *c = arg;
	__u32 at = c->at + i, *mask, *value, *word, different = 0;
	struct ff_rule *rule;
	int w;

	if (i >= c->rules)
		return 1;
	rule = bpf_map_lookup_elem(&ff_rules, &at);
	if (!rule)
		return 1;
	mask = (__u32 *)&rule->mask;
	value = (__u32 *)&rule->value;
	word = (__u32 *)&c->headers;
#pragma unroll
	for (w = 0; w < (int)(sizeof(struct ff_key) / 4); w++)
		different |= (word[w] & mask[w]) ^ value[w];
	if (different)
		return 0;
	c->mode = rule->mode;
	return 1;
}

/* The first rule that matches decides; rules stand in falling priority. */
static __always_inline __u32 classify(struct ff_port *port, struct ff_parsed *p)
{
	__u32 rules = *(volatile __u32 *)&port->rules, bank = rules >> 16;
	struct classify c = { .headers = p->key, .mode = FF_PASS, .rules = rules & 0xffff,
			      .at = (FF_SIDE * FF_BANKS + bank) * FF_RULES };

	if (!c.rules)
		return FF_PASS;
	if (p->swapped) {
		ff_swap(&c.headers);
		if (c.headers.kind == FF_KIND_L2) {
			c.headers.low_port = p->key.low_port;
			c.headers.high_port = 0;
		}
	}
	c.headers.side = 0;
	bpf_loop(FF_RULES, classify_one, &c, 0);
	return c.mode;
}

static __always_inline struct ff_count *count_of(struct ff_key *key)
{
	struct ff_count *count = bpf_map_lookup_elem(&ff_counts, key);

	if (!count) {
		struct ff_count none = {};

		bpf_map_update_elem(&ff_counts, key, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&ff_counts, key);
	}
	return count;
}

/* How many frames the TAP's reader will see: the TAP takes TCP and UDP super-packets whole
 * and has the kernel cut every other kind. */
static __always_inline __s64 frames(struct __sk_buff *skb, struct ff_key *key)
{
	if (!skb->gso_size || key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP)
		return 1;
	return skb->gso_segs > 1 ? skb->gso_segs : 1;
}

static __always_inline int capture(struct __sk_buff *skb, struct ff_control *ctl,
				   struct ff_port *port, struct ff_key *key,
				   struct ff_count *count)
{
	__s64 n = frames(skb, key);
	long refused;

	if (stale(ctl)) {
		ctl->tripped = 1;
		COUNT(failed_open);
		return -1;
	}
	if (!count)
		count = count_of(key);
	if (!count) { /* nothing of it is held, so it overtakes nothing; the agent calls all off */
		COUNT(table_full);
		return -1;
	}
	count->hash = bpf_get_hash_recalc(skb);
	count->mark = skb->mark;
	count->captured_cpu = bpf_get_smp_processor_id();
	__sync_fetch_and_add(&count->outstanding, n);
	skb->mark = ctl->mark_captured;
	refused = bpf_clone_redirect(skb, port->tap, 0);
	if (!refused) {
		__sync_fetch_and_add(&count->captured, n);
		COUNT(captured);
		return TC_ACT_SHOT;
	}
	skb->mark = count->mark;
	__sync_fetch_and_add(&count->outstanding, -n);
	if (refused > 0) {
		__sync_fetch_and_add(&count->overflowed, n);
		COUNT(overflowed);
		return TC_ACT_SHOT;
	}
	ctl->tripped = 1;
	COUNT(failed_open);
	return -1;
}

/* Captured packets end here; -1 lets the packet on. */
static __always_inline int hold(struct __sk_buff *skb, struct ff_control *ctl,
				struct ff_port *port, struct ff_parsed *p)
{
	struct ff_flow_mode *exact = bpf_map_lookup_elem(&ff_modes, &p->key);
	struct ff_count *count = bpf_map_lookup_elem(&ff_counts, &p->key);
	__u32 mode = exact ? exact->mode : FF_PASS;

	if (!exact)
		mode = classify(port, p);
	if (mode == FF_ARM)
		mode = owned(&p->key) ? FF_PASS : FF_CAPTURE;
	if (mode == FF_PASS && !count)
		return -1;
	if (mode == FF_PASS && count->outstanding <= 0 &&
	    (count->cpu == bpf_get_smp_processor_id() ||
	     (__s64)(bpf_ktime_get_ns() - count->released_ns) > (__s64)ctl->settle_ns))
		return -1;
	return capture(skb, ctl, port, &p->key, count);
}

/* When a flow's last release was matters only once nothing of it is outstanding, and reading the
 * clock is a good part of a packet's cost. So the last few packets are timed, before they are
 * counted: more than can be in this program at once. */
static __always_inline void time_release(struct ff_count *count)
{
	if (count->outstanding <= FF_TIMED)
		count->released_ns = bpf_ktime_get_ns();
}

/* A released packet is back where it came from. */
static __always_inline int second_pass(struct __sk_buff *skb, struct ff_port *port,
				       struct ff_parsed *p)
{
	struct ff_count *count = bpf_map_lookup_elem(&ff_counts, &p->key);

	skb->mark = 0;
	if (count) {
		skb->mark = count->mark;
		time_release(count);
		count->cpu = bpf_get_smp_processor_id();
		__sync_fetch_and_add(&count->released, 1);
		__sync_fetch_and_add(&count->outstanding, -1);
	}
	COUNT(released);
	account(skb, p);
	return deliver(port);
}

/* Control frames are the agent's and never reach the function. */
static __always_inline int control_frame(struct __sk_buff *skb, struct ff_control *ctl,
					 struct ff_port *port)
{
	skb->mark = ctl->mark_captured;
	if (bpf_clone_redirect(skb, port->tap, 0))
		COUNT(control_lost);
	else
		COUNT(control);
	return TC_ACT_SHOT;
}

/* Always so much in one piece, even if the headers lie in the first: TCP super-packets get through
 * faster so (docs/decisions/0005), though it copies. */
static __always_inline int parse(struct __sk_buff *skb, struct ff_parsed *p)
{
	if (skb->data_end - skb->data < FF_HEADERS && skb->data_end - skb->data < skb->len)
		bpf_skb_pull_data(skb, skb->len < FF_HEADERS ? skb->len : FF_HEADERS);
	return ff_parse(skb, FF_SIDE, p);
}

SEC("classifier")
int ff_ingress(struct __sk_buff *skb)
{
	struct ff_control *ctl = control_page();
	struct ff_parsed p __attribute__((aligned(8))); /* compared by words */
	struct ff_port *port;
	int verdict;

	if (!ctl)
		return TC_ACT_UNSPEC;
	port = port_of(ctl);
	if (parse(skb, &p)) {
		COUNT(unparsed);
		return deliver(port);
	}
	if (skb->mark && skb->mark == ctl->mark_released)
		return second_pass(skb, port, &p);
	if (p.ethertype == FF_ETHERTYPE_CONTROL)
		return control_frame(skb, ctl, port);
	if (ctl->active) {
		verdict = hold(skb, ctl, port, &p);
		if (verdict >= 0)
			return verdict;
	}
	account(skb, &p);
	return deliver(port);
}

/* Nothing but what the programs put there leaves by the TAP: no neighbour discovery, no
 * multicast of its own, nobody's packet sockets. */
SEC("classifier")
int ff_tap_egress(struct __sk_buff *skb)
{
	struct ff_control *ctl = control_page();

	if (ctl && skb->mark && skb->mark == ctl->mark_captured)
		return TC_ACT_UNSPEC;
	COUNT(foreign);
	return TC_ACT_SHOT;
}

/* A flush frame has come through this CPU's queue: say so to the reader, behind whatever this
 * CPU captured before. The agent checks the CPU against the one it meant. */
static __always_inline int flushed(struct __sk_buff *skb, struct ff_control *ctl,
				   struct ff_port *port)
{
	__u32 cpu = bpf_get_smp_processor_id();

	bpf_skb_store_bytes(skb, ETH_HLEN, &cpu, sizeof(cpu), 0);
	skb->mark = ctl->mark_captured;
	bpf_clone_redirect(skb, port->tap, 0);
	return TC_ACT_SHOT;
}

static __always_inline int release(struct __sk_buff *skb, struct ff_control *ctl,
				   struct ff_port *port, __u32 write)
{
	struct ff_count *count;
	struct ff_parsed p __attribute__((aligned(8))); /* compared by words */

	if (parse(skb, &p)) {
		port->outcome = FF_DISCARDED;
		return TC_ACT_SHOT;
	}
	if (write == FF_WRITE_ADOPT) {
		count = count_of(&p.key);
		if (count)
			__sync_fetch_and_add(&count->outstanding, port->amount);
		else
			port->outcome = FF_DISCARDED;
		return TC_ACT_SHOT;
	}
	if (write == FF_WRITE_FORGET || write == FF_WRITE_LOSE) {
		count = bpf_map_lookup_elem(&ff_counts, &p.key);
		if (count) {
			count->released_ns = bpf_ktime_get_ns(); /* those before were perhaps not timed */
			__sync_fetch_and_add(&count->outstanding, -(__s64)port->amount);
		}
		if (write == FF_WRITE_LOSE)
			COUNT_BY(lost, port->amount);
		return TC_ACT_SHOT;
	}
	count = count_of(&p.key);
	if (!count || stale(ctl)) {
		ctl->tripped = 1;
		port->outcome = FF_DISCARDED;
		COUNT(discarded);
		return TC_ACT_SHOT;
	}
	if (count->hash)
		bpf_set_hash(skb, count->hash);
	skb->mark = ctl->mark_released;
	if (bpf_clone_redirect(skb, port->outer, BPF_F_INGRESS)) {
		port->outcome = FF_REFUSED;
		COUNT(refused);
	}
	return TC_ACT_SHOT;
}

SEC("classifier")
int ff_tap_ingress(struct __sk_buff *skb)
{
	struct ff_control *ctl = control_page();
	struct ff_port *port;
	__u32 write;

	if (!ctl)
		return TC_ACT_SHOT;
	port = port_of(ctl);
	if (skb->mark && skb->mark == ctl->mark_released)
		return flushed(skb, ctl, port);
	write = port->write;
	port->outcome = FF_TAKEN;
	if (write != FF_WRITE_FLUSH)
		return release(skb, ctl, port, write);
	skb->mark = ctl->mark_released;
	if (bpf_clone_redirect(skb, port->tap, BPF_F_INGRESS)) {
		port->outcome = FF_REFUSED;
		COUNT(refused);
	}
	return TC_ACT_SHOT;
}

/* veth shim: what the function sends leaves by the instance's own interface, but for control
 * frames: those of functions are not believed. */
SEC("classifier")
int ff_inner_ingress(struct __sk_buff *skb)
{
	struct ff_control *ctl = control_page();

	if (!ctl || skb->protocol == bpf_htons(FF_ETHERTYPE_CONTROL))
		return TC_ACT_SHOT;
	return bpf_redirect(port_of(ctl)->outer, 0);
}

char LICENSE[] SEC("license") = "GPL"; /* clock helpers are for GPL-compatible programs only */
