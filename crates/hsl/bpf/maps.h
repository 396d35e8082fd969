/* SPDX-License-Identifier: Apache-2.0
 *
 * What the programs share with the agent and with each other, and how they count.
 */
#ifndef FLOWFERRY_MAPS_H
#define FLOWFERRY_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "shared.h"

/* FF_SIDE: build.rs compiles the programs once for each side. A constant costs an idle packet less
 * than a variable that is set when the object is loaded. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct ff_control);
} ff_control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct ff_key);
	__type(value, struct ff_flow);
} ff_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct ff_key);
	__type(value, struct ff_flow_mode);
} ff_modes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct ff_key);
	__type(value, struct ff_count);
} ff_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FF_SIDES * FF_BANKS * FF_RULES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct ff_rule);
} ff_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FF_SIDES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct ff_counters);
} ff_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FF_SIDES << FF_RECENT_BITS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct ff_recent);
} ff_recent SEC(".maps");

#define COUNT(field) COUNT_BY(field, 1)
#define COUNT_BY(field, amount) do { \
	__u32 at = FF_SIDE; \
	struct ff_counters *all = bpf_map_lookup_elem(&ff_counters, &at); \
	if (all) \
		all->field += (amount); \
} while (0)

#endif
