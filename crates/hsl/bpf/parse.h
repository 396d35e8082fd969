/* SPDX-License-Identifier: Apache-2.0
 *
 * Frame to key. The same rules stand in src/key.rs; a property test runs both over the
 * same frames. Works on direct packet access; the caller pulls the headers in first.
 */
#ifndef FLOWFERRY_PARSE_H
#define FLOWFERRY_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "shared.h"

#define FF_HEADERS 128    /* bytes that are made linear and looked at, VLAN tags included */
#define FF_EXTENSIONS 6   /* IPv6 extension headers that are followed */
#define FF_IP_FRAGMENT 0x3fff /* more-fragments bit and offset, RFC 791 */
#define FF_IP6_FRAGMENT 0xfff9 /* offset and M flag, RFC 8200 4.5 */

struct ff_parsed {
	struct ff_key key;
	__u16 ethertype;  /* behind the VLAN tags, host order */
	__u8 swapped;     /* the key's low end is the frame's destination */
};

struct ff_vlan_header {
	__be16 tci;
	__be16 ethertype;
};

static __always_inline int ff_has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_UDPLITE || proto == IPPROTO_DCCP;
}

static __always_inline __u32 *ff_both_ports(struct ff_key *key)
{
	return (__u32 *)&key->low_port;
}

static __always_inline void ff_swap(struct ff_key *key)
{
	__u64 *low = (__u64 *)key->low, *high = (__u64 *)key->high, word;
	__u32 *ports = ff_both_ports(key);

	word = low[0]; low[0] = high[0]; high[0] = word;
	word = low[1]; low[1] = high[1]; high[1] = word;
	*ports = *ports << 16 | *ports >> 16;
}

/* Put the smaller end first: by address, then by port, in network order. */
static __always_inline void ff_canonical(struct ff_parsed *p)
{
	__u64 *low = (__u64 *)p->key.low, *high = (__u64 *)p->key.high;
	__u64 a = bpf_be64_to_cpu(low[0]), b = bpf_be64_to_cpu(high[0]);

	if (a == b) {
		a = bpf_be64_to_cpu(low[1]);
		b = bpf_be64_to_cpu(high[1]);
	}
	if (a == b && p->key.kind != FF_KIND_L2) {
		a = bpf_ntohs(p->key.low_port);
		b = bpf_ntohs(p->key.high_port);
	}
	p->swapped = a > b;
	if (p->swapped) {
		__be16 ethertype = p->key.low_port;

		ff_swap(&p->key);
		if (p->key.kind == FF_KIND_L2) { /* the EtherType belongs to no end */
			p->key.low_port = ethertype;
			p->key.high_port = 0;
		}
	}
}

static __always_inline void ff_ports(struct ff_key *key, void *at, void *end)
{
	if (ff_has_ports(key->proto) && at + 4 <= end)
		*ff_both_ports(key) = *(__u32 *)at;
}

static __always_inline int ff_ipv4(struct ff_key *key, void *at, void *end)
{
	__u64 *low = (__u64 *)key->low, *high = (__u64 *)key->high;
	struct iphdr *ip = at;

	if (at + sizeof(*ip) > end || ip->ihl < 5)
		return -1;
	key->kind = FF_KIND_IPV4;
	key->proto = ip->protocol;
	*low = ip->saddr;
	*high = ip->daddr;
	if (!(ip->frag_off & bpf_htons(FF_IP_FRAGMENT)))
		ff_ports(key, at + ip->ihl * 4, end);
	return 0;
}

/* `offset`: of `at` in the frame as the wire carries it, tags in place. Both parsers stop at
 * FF_HEADERS, so that a key does not depend on how much of a packet happens to be linear. */
static __always_inline int ff_ipv6(struct ff_key *key, void *at, void *end, __u32 offset)
{
	struct ipv6hdr *ip = at;
	__u8 next;
	int i;

	if (at + sizeof(*ip) > end)
		return -1;
	key->kind = FF_KIND_IPV6;
	__builtin_memcpy(key->low, &ip->saddr, 16);
	__builtin_memcpy(key->high, &ip->daddr, 16);
	next = ip->nexthdr;
	at += sizeof(*ip);
	offset += sizeof(*ip);
	if (!(next == IPPROTO_TCP || next == IPPROTO_UDP)) {
#pragma unroll
		for (i = 0; i < FF_EXTENSIONS; i++) {
			__u8 *ext = at;
			__u32 length;

			if (at + 8 > end || offset + 8 > FF_HEADERS)
				break;
			if (next == IPPROTO_FRAGMENT) {
				key->proto = ext[0];
				if (*(__be16 *)(ext + 2) & bpf_htons(FF_IP6_FRAGMENT))
					return 0;
				length = 8;
			} else if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING ||
				   next == IPPROTO_DSTOPTS) {
				length = 8 + ext[1] * 8;
			} else if (next == IPPROTO_AH) {
				length = 8 + ext[1] * 4;
			} else {
				break;
			}
			next = ext[0];
			at += length;
			offset += length;
		}
	}
	key->proto = next;
	if (offset + 4 <= FF_HEADERS)
		ff_ports(key, at, end);
	return 0;
}

/* 0, or -1 when the frame has no Ethernet header. */
static __always_inline int ff_parse(struct __sk_buff *skb, __u8 side, struct ff_parsed *p)
{
	void *at = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = at;
	__be16 ethertype;
	int tags = 0, i;

	if (at + sizeof(*eth) > end)
		return -1;
	__builtin_memset(p, 0, sizeof(*p));
	p->key.side = side;
	ethertype = eth->h_proto;
	at += sizeof(*eth);
	if (skb->vlan_present)
		p->key.vlan[tags++] = FF_VLAN_TAGGED | (skb->vlan_tci & 0xfff);
#pragma unroll
	for (i = 0; i < 2; i++) {
		struct ff_vlan_header *tag = at;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if (at + sizeof(*tag) > end || tags > 1)
			break;
		if (tags == 0)
			p->key.vlan[0] = FF_VLAN_TAGGED | (bpf_ntohs(tag->tci) & 0xfff);
		else
			p->key.vlan[1] = FF_VLAN_TAGGED | (bpf_ntohs(tag->tci) & 0xfff);
		tags++;
		ethertype = tag->ethertype;
		at += sizeof(*tag);
	}
	p->ethertype = bpf_ntohs(ethertype);
	if (!((ethertype == bpf_htons(ETH_P_IP) && ff_ipv4(&p->key, at, end) == 0) ||
	      (ethertype == bpf_htons(ETH_P_IPV6) && ff_ipv6(&p->key, at, end, ETH_HLEN + 4 * tags) == 0))) {
		p->key.kind = FF_KIND_L2;
		__builtin_memcpy(p->key.low, eth->h_source, ETH_ALEN);
		__builtin_memcpy(p->key.high, eth->h_dest, ETH_ALEN);
		p->key.low_port = ethertype;
	}
	ff_canonical(p);
	return 0;
}

#endif
