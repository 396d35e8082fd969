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
static __noinline int account_tick(struct ff_key *key, struct ff_recent *slot, __u64 now, __u32 bytes,
				   __u64 swapped)
{
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
	slot->tick_ns = now;
	return 0;
}

static __always_inline void account(struct __sk_buff *skb, struct ff_parsed *p)
{
	struct ff_key *key = &p->key;
	__u64 now = bpf_ktime_get_coarse_ns(), different = 0, *word = (__u64 *)key, *other;
	__u32 *half = (__u32 *)key, at;
	struct ff_recent *slot;
	int w;

	at = (half[0] ^ half[3] ^ half[4] ^ half[7]) * 0x9e3779b1 ^ half[8] * 0x85ebca6b;
	at = at >> (32 - FF_RECENT_BITS) | (ff_side & 1) << FF_RECENT_BITS;
	slot = bpf_map_lookup_elem(&ff_recent, &at);
	if (!slot)
		return;
	other = (__u64 *)&slot->key;
#pragma unroll
	for (w = 0; w < (int)sizeof(struct ff_key) / 8; w++)
		different |= word[w] ^ other[w];
	different |= half[10] ^ ((__u32 *)other)[10];
	if (different || slot->tick_ns != now) {
		account_tick(key, slot, now, skb->len, p->swapped);
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
