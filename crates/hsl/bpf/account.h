/* SPDX-License-Identifier: Apache-2.0
 *
 * Which flows the function serves, and how much of each has gone on to it.
 */
#ifndef FLOWFERRY_ACCOUNT_H
#define FLOWFERRY_ACCOUNT_H

#include "maps.h"
#include "parse.h"

/* Flow accounting. Looking a flow up in the LRU map is most of what an idle packet costs, so each
 * CPU does that once a flow and tick and counts the packets between in a slot of its own.
 * Additions are plain: where two CPUs handle one flow at once a few packets may go
 * uncounted, and nothing that must be exact is counted here.
 */
static __noinline int account_tick(struct ff_key *key, struct ff_recent *slot, __u64 tick, __u32 bytes,
				   __u64 swapped)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct ff_flow *flow;

	if (!key || !slot)
		return 0;
	flow = slot->packets ? bpf_map_lookup_elem(&ff_flows, &slot->key) : 0;
	if (flow) {
		flow->packets += slot->packets;
		flow->bytes += slot->bytes;
	}
	flow = bpf_map_lookup_elem(&ff_flows, key);
	if (flow) {
		flow->packets++;
		flow->bytes += bytes;
		flow->last_ns = now;
		flow->swapped = swapped;
	} else {
		struct ff_flow first = { .packets = 1, .bytes = bytes, .swapped = swapped, .last_ns = now };

		bpf_map_update_elem(&ff_flows, key, &first, BPF_ANY);
	}
	slot->key = *key;
	slot->packets = 0;
	slot->bytes = 0;
	slot->tick = tick;
	return 0;
}

/* Each field is read no wider than the parser wrote it: a load across several fresh stores has to
 * wait until they have reached the cache. */
static __always_inline int same(struct ff_key *a, struct ff_key *b)
{
	__u64 *x = (__u64 *)a, *y = (__u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) |
		 (*ff_both_ports(a) ^ *ff_both_ports(b)) | (a->vlan[0] ^ b->vlan[0]) |
		 (a->vlan[1] ^ b->vlan[1]) | (a->proto ^ b->proto) | (a->kind ^ b->kind) |
		 (a->side ^ b->side));
}

static __always_inline void account(struct __sk_buff *skb, struct ff_parsed *p)
{
	struct ff_key *key = &p->key;
	__u32 *half = (__u32 *)key, at;
	__u64 tick = bpf_jiffies64();
	struct ff_recent *slot;

	at = (half[0] ^ half[3] ^ half[4] ^ half[7]) * 0x9e3779b1 ^ half[8] * 0x85ebca6b;
	at = at >> (32 - FF_RECENT_BITS) | FF_SIDE << FF_RECENT_BITS;
	slot = bpf_map_lookup_elem(&ff_recent, &at);
	if (!slot)
		return;
	if (slot->tick != tick || !same(key, &slot->key)) {
		account_tick(key, slot, tick, skb->len, p->swapped);
		return;
	}
	slot->packets++;
	slot->bytes += skb->len;
}

/* Served here already: packets of it have gone on to the function, on either side. */
static __always_inline int owned(struct ff_key *key)
{
	int found = bpf_map_lookup_elem(&ff_flows, key) != 0;

	if (!found) {
		key->side ^= 1;
		found = bpf_map_lookup_elem(&ff_flows, key) != 0;
		key->side ^= 1;
	}
	return found;
}

#endif
