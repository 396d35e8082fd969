/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel programs and the agent share: map names, keys, values, verdicts.
 * The Rust mirror is src/shim/shared.rs; a test there compares every size and offset
 * with the ones that clang wrote into the object's BTF.
 */
#ifndef FLOWFERRY_SHARED_H
#define FLOWFERRY_SHARED_H

#include <linux/types.h>

#define FF_ETHERTYPE_CONTROL 0x821c
#define FF_SIDES 2        /* 0 upstream, 1 downstream */
#define FF_RULES 64       /* per side and bank; two banks, so that one store changes them all */
#define FF_BANKS 2
#define FF_RECENT_BITS 8  /* 256 recent flows per CPU and side */
#define FF_VLAN_TAGGED 0x1000

enum ff_kind { FF_KIND_L2 = 2, FF_KIND_IPV4 = 4, FF_KIND_IPV6 = 6 };

/* Mode of a flow, and of a rule: where its packets go next. FF_ARM is for rules alone: capture
 * every flow that is not owned already. */
enum ff_mode { FF_PASS = 0, FF_CAPTURE = 1, FF_ARM = 2 };

/* What the agent is writing to the TAP. ADOPT, FORGET and LOSE carry no packet, only a flow's
 * headers: `amount` packets of it have come from another instance and are to be released here as
 * if they had been captured; or will not return, because they went elsewhere or are lost. */
enum ff_write {
	FF_WRITE_CAPTURED = 0,
	FF_WRITE_ADOPT = 1,
	FF_WRITE_FLUSH = 2,
	FF_WRITE_FORGET = 3,
	FF_WRITE_LOSE = 4,
};

/* What became of the frame written last. */
enum ff_outcome { FF_TAKEN = 0, FF_REFUSED = 1, FF_DISCARDED = 2 };

/* A flow on one side, free of direction: the smaller (address, port) end stands first.
 * IPv4 addresses fill the first four bytes; for frames that are not IP, `low` and `high`
 * hold the MAC addresses and `low_port` the EtherType. Ports are zero for protocols without
 * ports and for every fragment of a fragmented datagram, the first one included: fragments
 * of one address pair and protocol are one flow, so they keep their order among themselves.
 */
struct ff_key {
	__u8 low[16];
	__u8 high[16];
	__be16 low_port;
	__be16 high_port;
	__u16 vlan[2];    /* outer, inner: FF_VLAN_TAGGED | VID, 0 for none */
	__u8 proto;
	__u8 kind;        /* enum ff_kind */
	__u8 side;
	__u8 zero;
};

/* Flow accounting (LRU): packets that went on to the function. An entry means *owned*. */
struct ff_flow {
	__u64 packets;
	__u64 bytes;
	__u64 swapped;    /* its last packet came from the key's high end: a key has no direction */
	__u64 last_ns;    /* CLOCK_MONOTONIC, coarse */
};

/* Packets of a flow that one CPU has let on in the present tick of the coarse clock (4 ms at 250 Hz)
 * and not added to its ff_flow yet. */
struct ff_recent {
	struct ff_key key;
	__u32 packets;
	__u64 bytes;
	__u64 tick;       /* in jiffies: to read that takes no call, as a clock does */
};

/* Written by the agent alone. */
struct ff_flow_mode {
	__u32 mode;       /* enum ff_mode */
	__u32 zero;
};

/* Written by the programs alone. */
struct ff_count {
	__s64 outstanding;    /* +1 at capture or when adopted, -1 at the second pass */
	__u64 released_ns;    /* last second pass; exact once nothing is outstanding */
	__u32 cpu;            /* of the last second pass */
	__u32 hash;           /* skb->hash as captured last */
	__u32 mark;           /* skb->mark as captured last */
	__u32 captured_cpu;   /* of the last capture */
	__u64 captured;
	__u64 released;
	__u64 overflowed;     /* lost: the TAP's queue was full */
};

/* A match on one side's headers as they arrive there; words of ff_key, low = source. */
struct ff_rule {
	struct ff_key mask;
	struct ff_key value;
	__u32 mode;           /* enum ff_mode; FF_PASS: claimed by a higher rule */
	__u32 zero;
};

struct ff_port {
	__u32 tap;            /* ifindex, 0: none */
	__u32 outer;          /* ifindex of the instance's own interface */
	__u32 inner;          /* ifindex of the HSL's end of the inner pair, 0: kernel shim */
	__u32 rules;          /* bank << 16 | how many rules of that bank are valid */
	__u32 write;          /* enum ff_write, set by the agent before it writes */
	__u32 outcome;        /* enum ff_outcome, set by the program during that write */
	__u32 amount;         /* of FF_WRITE_ADOPT, FF_WRITE_FORGET and FF_WRITE_LOSE */
	__u32 zero;
};

/* The page that agent and programs share (one mmapped array entry). */
struct ff_control {
	__u32 active;         /* 0: nothing is captured, armed or outstanding */
	__u32 mark_captured;
	__u32 mark_released;
	__u32 epoch;
	__u64 heartbeat_ns;   /* CLOCK_MONOTONIC, by the agent */
	__u64 timeout_ns;     /* older than this: fail open */
	__u64 settle_ns;      /* how long a flow keeps to the CPU of its last release */
	__u32 tripped;        /* set by the programs at the first packet that fails open */
	__u32 zero;
	struct ff_port port[FF_SIDES];
};

/* Per CPU and side; never on the idle path. */
struct ff_counters {
	__u64 captured;
	__u64 released;
	__u64 overflowed;     /* lost: the TAP's queue was full */
	__u64 failed_open;    /* passed on although captured flows: no agent, no TAP */
	__u64 table_full;     /* passed on although captured flows: no room to count */
	__u64 refused;        /* writes the backlog had no room for (the agent retries) */
	__u64 discarded;      /* lost: written after the programs had failed open */
	__u64 lost;           /* lost otherwise, as the agents have said (FF_WRITE_LOSE) */
	__u64 foreign;        /* kept off the TAP: not ours */
	__u64 control;        /* control frames handed to the agent */
	__u64 control_lost;   /* control frames that found no agent */
	__u64 unparsed;       /* too short or too deep to be keyed, passed on */
};

#endif
