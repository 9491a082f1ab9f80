/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DNS messages, as they pass the sockets of this machine. The programs hang on the root of the cgroups,
 * which sees the sockets of all network namespaces, and they are of a type that can read data wherever
 * a packet keeps it, which a tracing program can't. They let everything pass. Their other half is
 * names.go.
 */
#ifndef DNS_BPF_H
#define DNS_BPF_H

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define DNS_PORT 53
#define DNS_HEADER 12
#define DNS_SHORT 512 /* what plain DNS allows in a datagram, and what nearly all messages fit in */
#define DNS_LONG 4096 /* what resolvers ask for at most */
#define DNS_PIECES 15 /* of a TCP segment, beside the last: the kernel puts up to 64 KiB together */
#define DNS_IPV6_EXTENSIONS 6

/* What such a program returns: everything may pass. */
#define DNS_PASS 1

enum dns_mark {
	DNS_QUERY = 1,	    /* on its way to port 53; otherwise it comes from there */
	DNS_TCP = 2,	    /* len bytes of a stream, not a message */
	DNS_SYN = 4,	    /* the stream begins behind seq */
	DNS_CUT = 8,	    /* the message or the segment goes on */
	DNS_CONNECTED = 16, /* the socket takes packets from port 53 only */
};

/* No padding. Behind it stand len bytes, and room that is not used. */
struct dns_packet {
	__u32 kind;
	__u32 seq;
	__u64 time_ns;		   /* since boot */
	__u8 saddr[16], daddr[16]; /* as on the packet; IPv4 as ::ffff:a.b.c.d */
	__u16 port;		   /* of the socket, whatever address translation did since */
	__u16 len;
	__u8 marks, unused[3];
};

/* Puts these into the object's types, from which the Go ones are made. */
const volatile struct {
	struct dns_packet dns_packet;
	enum dns_mark dns_mark;
} dns_types;

/* Messages that did not reach user space. They are no events: only a name may be missing. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dns_lost SEC(".maps");

static __always_inline void dns_count_lost(void)
{
	__u32 key = 0;
	__u64 *n = bpf_map_lookup_elem(&dns_lost, &key);

	if (n)
		(*n)++;
}

/* size is how much room the record has for data: a constant, and a power of two. 1 <= len <= size. */
static __always_inline void dns_send_sized(struct __sk_buff *skb, const struct dns_packet *head,
					   __u32 off, __u32 len, const __u32 size)
{
	struct dns_packet *p = bpf_ringbuf_reserve(&events, sizeof(*p) + size, 0);

	if (!p) {
		dns_count_lost();
		return;
	}
	*p = *head;
	/* Tells the verifier the bounds. The compiler, which knows them, would leave this out. */
	asm volatile("" : "+r"(len));
	len = ((len - 1) & (size - 1)) + 1;
	p->len = len;
	if (bpf_skb_load_bytes(skb, off, p + 1, len)) {
		bpf_ringbuf_discard(p, BPF_RB_NO_WAKEUP);
		dns_count_lost();
		return;
	}
	bpf_ringbuf_submit(p, event_wakeup(sizeof(*p) + size));
}

/* 1 <= len <= DNS_LONG */
static __always_inline void dns_send(struct __sk_buff *skb, const struct dns_packet *head,
				     __u32 off, __u32 len)
{
	if (len <= DNS_SHORT)
		dns_send_sized(skb, head, off, len, DNS_SHORT);
	else
		dns_send_sized(skb, head, off, len, DNS_LONG);
}

/* Sends the message in a packet whose UDP or TCP header is at off. */
static __always_inline void dns_send_all(struct __sk_buff *skb, struct dns_packet *head, __u32 off)
{
	__u8 tcp[20];
	__u32 len;

	if (head->marks & DNS_TCP) {
		if (bpf_skb_load_bytes(skb, off, tcp, sizeof(tcp)))
			return;
		head->seq = bpf_ntohl(*(__u32 *)(tcp + 4));
		if (tcp[13] & 2)
			head->marks |= DNS_SYN;
		off += (tcp[12] >> 4) * 4;
	} else {
		off += 8;
	}
	if (off >= skb->len) {
		if ((head->marks & DNS_SYN) &&
		    bpf_ringbuf_output(&events, head, sizeof(*head), event_wakeup(sizeof(*head))))
			dns_count_lost();
		return;
	}
	len = skb->len - off;
	if (head->marks & DNS_TCP) {
		for (int i = 0; i < DNS_PIECES && len > DNS_LONG; i++) {
			dns_send_sized(skb, head, off, DNS_LONG, DNS_LONG);
			head->seq += DNS_LONG +
				     !!(head->marks & DNS_SYN); /* which has a number itself */
			head->marks &= ~DNS_SYN;
			off += DNS_LONG;
			len -= DNS_LONG;
		}
	} else if (len < DNS_HEADER) {
		return;
	}
	if (len > DNS_LONG) {
		head->marks |= DNS_CUT;
		len = DNS_LONG;
	}
	dns_send(skb, head, off, len);
}

/*
 * Takes a packet whose UDP or TCP header is at off. A global function, so that the verifier goes
 * through it once, and not once for each way to get here.
 */
__noinline int dns_take(struct __sk_buff *skb, __u32 off, __u32 marks, __u32 version)
{
	struct dns_packet head = {
		.kind = KIND_DNS,
		.time_ns = bpf_ktime_get_boot_ns(),
		.port = skb->local_port,
		.marks = marks,
	};

	if (version == 4) {
		head.saddr[10] = head.saddr[11] = head.daddr[10] = head.daddr[11] = 0xff;
		if (bpf_skb_load_bytes(skb, 12, head.saddr + 12, 4) ||
		    bpf_skb_load_bytes(skb, 16, head.daddr + 12, 4))
			return 0;
	} else if (bpf_skb_load_bytes(skb, 8, head.saddr, 32)) { /* and what is behind it */
		return 0;
	}
	dns_send_all(skb, &head, off);
	return 0;
}

/* Where the header of UDP or TCP is in an IPv6 packet that has others before it; 0 if there is none. */
static __always_inline __u32 dns_skip_extensions(struct __sk_buff *skb, __u8 *protocol)
{
	__u8 next = *protocol, extension[2];
	__u32 off = 40;

	for (int i = 0; i < DNS_IPV6_EXTENSIONS; i++) {
		if (next == IPPROTO_UDP || next == IPPROTO_TCP) {
			*protocol = next;
			return off;
		}
		/* Hop-by-hop options, routing, destination options, and authentication. */
		if (next != 0 && next != 43 && next != 60 && next != 51)
			return 0;
		if (bpf_skb_load_bytes(skb, off, extension, sizeof(extension)))
			return 0;
		/* The last of these counts in other units. */
		off += next == 51 ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
		next = extension[0];
	}
	return 0;
}

/*
 * This runs for every packet that a socket sends or is sent. Nearly all belong to a socket that is
 * connected to another port, and the first line is all they cost. The headers of IP, UDP and TCP are
 * always in the part of a packet that can be read directly: the kernel has read them itself.
 */
static __always_inline int dns_see(struct __sk_buff *skb, const bool query)
{
	/* 0 if the socket is not connected. It is 53 even where the packet now goes to another port. */
	__u32 peer = bpf_ntohl(skb->remote_port), marks = query ? DNS_QUERY : 0, off;
	__u8 *data, *end, *l4, protocol;
	__be16 *ports;

	if (peer && peer != DNS_PORT)
		return DNS_PASS;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + 20 > end)
		return DNS_PASS;
	switch (data[0] >> 4) {
	case 4:
		if ((data[6] & 0x1f) || data[7]) /* a fragment other than the first */
			return DNS_PASS;
		protocol = data[9];
		off = (data[0] & 15) * 4;
		break;
	case 6:
		protocol = data[6];
		off = 40;
		if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
			off = dns_skip_extensions(skb, &protocol);
		break;
	default: return DNS_PASS;
	}
	if (protocol == IPPROTO_TCP)
		marks |= DNS_TCP;
	else if (protocol != IPPROTO_UDP)
		return DNS_PASS;
	if (off < 20 || off > 1024)
		return DNS_PASS;
	l4 = data + off;
	ports = (void *)l4;
	if (l4 + 8 > end)
		return DNS_PASS;
	if (peer)
		marks |= DNS_CONNECTED;
	else if (ports[query] != bpf_htons(DNS_PORT))
		return DNS_PASS;
	dns_take(skb, off, marks, data[0] >> 4);
	return DNS_PASS;
}

SEC("cgroup_skb/ingress")
int dns_ingress(struct __sk_buff *skb)
{
	return dns_see(skb, false);
}

SEC("cgroup_skb/egress")
int dns_egress(struct __sk_buff *skb)
{
	return dns_see(skb, true);
}

#endif
