package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// portList is a flag value: ports and ranges, "!" before those that are not wanted.
type portList []portRange

type portRange struct {
	first, last uint16
	not         bool
}

func (l *portList) String() string { return "" }
func (l *portList) Type() string   { return "ports" }
func (l *portList) Set(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		r, err := parsePorts(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		*l = append(*l, r)
	}
	return nil
}

func parsePorts(text string) (r portRange, err error) {
	rest, not := strings.CutPrefix(text, "!")
	from, to, isRange := strings.Cut(rest, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	switch {
	case err1 != nil || err2 != nil:
		return r, fmt.Errorf("%q is neither a port nor a range of ports, 0 to 65535", text)
	case first > last:
		return r, fmt.Errorf("%q ends before it begins", text)
	}
	return portRange{uint16(first), uint16(last), not}, nil
}

func (l portList) given() bool { return len(l) > 0 }

// bits has a bit for each port that is wanted: those that are named, or all if only
// unwanted ones are, less the unwanted ones.
func (l portList) bits() (bits [1024]uint64) {
	set := func(r portRange) {
		for p := int(r.first); p <= int(r.last); p++ {
			bits[p>>6] |= 1 << (p & 63)
		}
	}
	all := true
	for _, r := range l {
		if !r.not {
			all = false
			set(r)
		}
	}
	if all {
		set(portRange{last: 65535})
	}
	for _, r := range l {
		for p := int(r.first); r.not && p <= int(r.last); p++ {
			bits[p>>6] &^= 1 << (p & 63)
		}
	}
	return bits
}

// networkList is a flag value: networks and addresses, "!" before those that are not
// wanted. Of two that hold an address, the smaller one counts.
type networkList []network

type network struct {
	netip.Prefix
	not bool
}

func (l *networkList) String() string { return "" }
func (l *networkList) Type() string   { return "networks" }
func (l *networkList) Set(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		n, err := parseNetwork(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		for _, other := range *l {
			if other.Prefix == n.Prefix && other.not != n.not {
				return fmt.Errorf("%s is both wanted and not", n.Prefix)
			}
		}
		*l = append(*l, n)
	}
	if len(*l) > maxNetworks {
		return fmt.Errorf("more than %d networks", maxNetworks)
	}
	return nil
}

const maxNetworks = 4096

func parseNetwork(text string) (network, error) {
	rest, not := strings.CutPrefix(text, "!")
	if addr, err := netip.ParseAddr(rest); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return network{netip.PrefixFrom(addr, addr.BitLen()), not}, nil
	}
	prefix, err := netip.ParsePrefix(rest)
	if err != nil || prefix.Addr().Is4In6() {
		return network{}, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", text)
	}
	if prefix != prefix.Masked() {
		return network{}, fmt.Errorf("%q has bits behind its prefix: %s?", text, prefix.Masked())
	}
	return network{prefix, not}, nil
}

func (l networkList) given() bool { return len(l) > 0 }

// others reports whether addresses in none of the networks are wanted.
func (l networkList) others() bool {
	for _, n := range l {
		if !n.not {
			return false
		}
	}
	return true
}

// networkKey is struct network in tcpconnect.bpf.c: IPv4 is within ::ffff:0:0/96.
type networkKey struct {
	Bits uint32
	Addr [16]byte
}

// fill puts the networks into a map that is not loaded yet.
func (l networkList) fill(spec *ebpf.MapSpec) {
	if !l.given() {
		return
	}
	seen := map[networkKey]bool{}
	add := func(prefix netip.Prefix, wanted bool) {
		key := networkKey{uint32(prefix.Bits()), prefix.Addr().As16()}
		if prefix.Addr().Is4() {
			key.Bits += 96
		}
		if seen[key] {
			return
		}
		seen[key] = true
		var value uint8
		if wanted {
			value = 1
		}
		spec.Contents = append(spec.Contents, ebpf.MapKV{Key: key, Value: value})
	}
	for _, n := range l {
		add(n.Prefix, !n.not)
	}
	// No network of IPv6 holds addresses of IPv4, though they lie within ::/0 here.
	add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), l.others())
	spec.MaxEntries = uint32(len(spec.Contents))
}

// netns is a flag value: the number of a network namespace's inode.
type netns uint32

func (n *netns) String() string { return "" }
func (n *netns) Type() string   { return "string" }
func (n *netns) Set(text string) error {
	if number, err := strconv.ParseUint(text, 10, 32); err == nil {
		// No process has a number above PID_MAX_LIMIT. Namespaces have theirs from
		// 0xf0000000 on (PROC_DYNAMIC_FIRST), and since 6.18 the initial ones from
		// 0xeffffff8 on.
		if number > 1<<22 {
			*n = netns(number)
			return nil
		}
		return n.open(fmt.Sprintf("/proc/%d/ns/net", number), fmt.Sprintf("there is no process %d", number))
	}
	if strings.Contains(text, "/") {
		return n.open(text, "there is no file "+text)
	}
	return n.open(filepath.Join("/run/netns", text), fmt.Sprintf("there is no namespace %q in /run/netns", text))
}

// open takes the number of the namespace that a file stands for.
func (n *netns) open(path, missing string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New(missing)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%s is not a network namespace", path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("find the number of the network namespace %s: %w", path, err)
	}
	*n = netns(st.Ino)
	return nil
}
