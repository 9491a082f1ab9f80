package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// set gives a flag value these arguments, one for each time the flag is given.
func set(t testing.TB, value interface{ Set(string) error }, args ...string) {
	t.Helper()
	for _, arg := range args {
		if err := value.Set(arg); err != nil {
			t.Fatalf("%s: %v", arg, err)
		}
	}
}

// wanted looks a port up as the kernel side does.
func wanted(bits *[1024]uint64, port int) bool { return bits[port>>6]>>(port&63)&1 != 0 }

// comparePorts checks the bits of all ports against what the list says of each.
func comparePorts(t testing.TB, l portList, text string) {
	t.Helper()
	bits := l.bits()
	for port := range 65536 {
		named, refused, positive := false, false, false
		for _, r := range l {
			in := int(r.first) <= port && port <= int(r.last)
			positive = positive || !r.not
			named = named || in && !r.not
			refused = refused || in && r.not
		}
		want := (named || !positive) && !refused
		if got := wanted(&bits, port); got != want {
			t.Fatalf("%s: port %d is wanted: %v", text, port, got)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, test := range []struct {
		args []string
		in   []int
		out  []int
	}{
		{[]string{"80"}, []int{80}, []int{0, 16, 79, 81, 65535}},
		{[]string{"80,443"}, []int{80, 443}, []int{81, 442}},
		{[]string{"80", "443"}, []int{80, 443}, []int{81}},
		{[]string{" 80 , 443"}, []int{80, 443}, []int{81}},
		{[]string{"0"}, []int{0}, []int{1, 65535}},
		{[]string{"65535"}, []int{65535}, []int{0, 65534}},
		{[]string{"8000-8099"}, []int{8000, 8050, 8099}, []int{7999, 8100}},
		{[]string{"63-64"}, []int{63, 64}, []int{62, 65}},
		{[]string{"0-65535"}, []int{0, 65535}, nil},
		{[]string{"!22"}, []int{0, 21, 23, 65535}, []int{22}},
		{[]string{"!0-65535"}, nil, []int{0, 22, 65535}},
		{[]string{"!22,!8000-8099"}, []int{21, 7999, 8100}, []int{22, 8000, 8099}},
		{[]string{"1-1023,!22"}, []int{1, 21, 23, 1023}, []int{0, 22, 1024}},
		{[]string{"!22", "1-1023"}, []int{1, 21, 23, 1023}, []int{0, 22, 1024}},
		{[]string{"22,!22"}, nil, []int{0, 22, 65535}},
	} {
		var l portList
		set(t, &l, test.args...)
		text := strings.Join(test.args, " -P ")
		if !l.given() {
			t.Errorf("%s does not count as given", text)
		}
		bits := l.bits()
		for _, port := range test.in {
			if !wanted(&bits, port) {
				t.Errorf("%s: port %d is not wanted", text, port)
			}
		}
		for _, port := range test.out {
			if wanted(&bits, port) {
				t.Errorf("%s: port %d is wanted", text, port)
			}
		}
		comparePorts(t, l, text)
	}
	if (portList{}).given() {
		t.Error("no ports count as given")
	}
}

func TestPortsOfAnyKind(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 3))
	for range 300 {
		var l portList
		var args []string
		for range 1 + random.IntN(6) {
			first := random.IntN(65536)
			last := min(first+random.IntN(1<<random.IntN(17)), 65535)
			text := fmt.Sprintf("%d-%d", first, last)
			if random.IntN(3) == 0 {
				text = fmt.Sprint(first)
			}
			if random.IntN(2) == 0 {
				text = "!" + text
			}
			args = append(args, text)
		}
		set(t, &l, strings.Join(args, ","))
		comparePorts(t, l, strings.Join(args, ","))
	}
}

var badPorts = []string{
	"", ",", "80,", ",80", "80,,81", "ssh", "-1", "65536", "1-65536", "80-", "-80", "80-70", "1-2-3", "!", "!!22", "!ssh", "80 81",
	"+80", "0x50", "8_0", "80.0", "80:81", "8000-!8099", "\x00", "٨٠",
}

func TestBadPorts(t *testing.T) {
	for _, text := range badPorts {
		var l portList
		if err := l.Set(text); err == nil {
			t.Errorf("-P %q: %v, %v", text, l, err)
		}
	}
}

func FuzzPorts(f *testing.F) {
	for _, text := range append(badPorts, "80", "80,443", "8000-8099,!8080", "!22", "0-65535", " 1 , !2-3 ") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var l portList
		if err := l.Set(text); err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: an error of several lines: %v", text, err)
			}
			return
		}
		if len(l) != strings.Count(text, ",")+1 {
			t.Errorf("%q has %d parts", text, len(l))
		}
		comparePorts(t, l, fmt.Sprintf("%q", text))
	})
}

// matchOf does what the kernel does with a map of type BPF_MAP_TYPE_LPM_TRIE: of the
// entries whose prefix the key has, it takes the longest.
func matchOf(spec *ebpf.MapSpec, addr netip.Addr) (value uint8, found bool) {
	key, longest := addr.As16(), -1
	for _, entry := range spec.Contents {
		network := entry.Key.(networkKey)
		same := 0
		for same < 128 && (key[same/8]^network.Addr[same/8])>>(7-same%8)&1 == 0 {
			same++
		}
		if same >= int(network.Bits) && int(network.Bits) > longest {
			value, longest = entry.Value.(uint8), int(network.Bits)
		}
	}
	return value, longest >= 0
}

// kernelWants is network_wanted() in tcpconnect.bpf.c.
func kernelWants(l networkList, spec *ebpf.MapSpec, addr netip.Addr) bool {
	if value, found := matchOf(spec, addr); found {
		return value != 0
	}
	return l.others()
}

// wants is what the manual says of a list: the smallest network that holds an address
// decides, and where none does, it is wanted if only unwanted networks are named.
func (l networkList) wants(addr netip.Addr) bool {
	best, positive := network{}, false
	for _, n := range l {
		positive = positive || !n.not
		if n.Contains(addr) && (!best.IsValid() || n.Bits() > best.Bits()) {
			best = n
		}
	}
	if best.IsValid() {
		return !best.not
	}
	return !positive
}

func filled(t testing.TB, l networkList) *ebpf.MapSpec {
	t.Helper()
	spec := &ebpf.MapSpec{Type: ebpf.LPMTrie, MaxEntries: 1}
	l.fill(spec)
	keys := map[networkKey]bool{}
	for _, entry := range spec.Contents {
		key := entry.Key.(networkKey)
		if keys[key] {
			t.Errorf("%v is in the map twice, which the kernel refuses", key)
		}
		keys[key] = true
	}
	if len(spec.Contents) > int(spec.MaxEntries) {
		t.Errorf("%d entries for a map of %d", len(spec.Contents), spec.MaxEntries)
	}
	return spec
}

func TestNetworks(t *testing.T) {
	for _, test := range []struct {
		args []string
		in   string
		out  string
	}{
		{[]string{"10.0.0.0/8"}, "10.0.0.0 10.1.2.3 10.255.255.255", "9.255.255.255 11.0.0.0 ::1 a00::"},
		{[]string{"!10.0.0.0/8"}, "9.255.255.255 11.0.0.0 ::1", "10.0.0.0 10.255.255.255"},
		{[]string{"192.0.2.1"}, "192.0.2.1", "192.0.2.0 192.0.2.2 2001:db8::1"},
		{[]string{"::1"}, "::1", ":: ::2 127.0.0.1"},
		{[]string{"::ffff:192.0.2.1"}, "192.0.2.1", "192.0.2.2 2001:db8::1"},
		{[]string{"2001:db8::/32"}, "2001:db8:: 2001:db8:ffff::1", "2001:db9:: 192.0.2.1"},
		{[]string{"10.0.0.0/8,!10.1.0.0/16"}, "10.0.0.1 10.2.0.1", "10.1.0.1 11.0.0.1"},
		{[]string{"!10.1.0.0/16", "10.0.0.0/8"}, "10.0.0.1 10.2.0.1", "10.1.0.1 11.0.0.1"},
		{[]string{"!10.0.0.0/8,10.1.0.0/16"}, "10.1.0.1", "10.2.0.1 11.0.0.1"},
		{[]string{"10.0.0.0/8,!10.1.0.0/16,10.1.1.0/24"}, "10.0.0.1 10.1.1.1", "10.1.2.1"},
		{[]string{"0.0.0.0/0"}, "0.0.0.0 127.0.0.1 255.255.255.255", ":: ::1 2001:db8::1"},
		{[]string{"::/0"}, ":: ::1 2001:db8::1", "0.0.0.0 127.0.0.1 192.0.2.1"},
		{[]string{"!::/0"}, "127.0.0.1 192.0.2.1", "::1 2001:db8::1"},
		{[]string{"!0.0.0.0/0"}, "::1 2001:db8::1", "127.0.0.1 192.0.2.1"},
		{[]string{"::/64"}, "::1", "127.0.0.1 0:0:0:1::"},
		{[]string{"!::/64,!10.0.0.0/8"}, "127.0.0.1 2001:db8::1", "::1 10.0.0.1"},
		{[]string{"10.0.0.0/8,10.0.0.0/8"}, "10.0.0.1", "11.0.0.1"},
	} {
		var l networkList
		set(t, &l, test.args...)
		spec, text := filled(t, l), strings.Join(test.args, " --daddr ")
		for _, addr := range strings.Fields(test.in) {
			if !kernelWants(l, spec, netip.MustParseAddr(addr)) {
				t.Errorf("%s: %s is not wanted", text, addr)
			}
		}
		for _, addr := range strings.Fields(test.out) {
			if kernelWants(l, spec, netip.MustParseAddr(addr)) {
				t.Errorf("%s: %s is wanted", text, addr)
			}
		}
	}
}

// edges are the addresses at which a list may change its mind, and those beside them.
func (l networkList) edges() []netip.Addr {
	all := []netip.Addr{
		netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), netip.IPv6Unspecified(), netip.IPv6LinkLocalAllNodes(),
	}
	for _, n := range l {
		first, last := n.Addr(), n.Addr().AsSlice()
		for bit := n.Bits(); bit < 8*len(last); bit++ {
			last[bit/8] |= 0x80 >> (bit % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		all = append(all, first, first.Prev(), end, end.Next())
	}
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() })
}

func compareNetworks(t testing.TB, l networkList, text string) {
	t.Helper()
	spec := filled(t, l)
	for _, addr := range l.edges() {
		if got := kernelWants(l, spec, addr); got != l.wants(addr) {
			t.Fatalf("%s: %s is wanted: %v", text, addr, got)
		}
	}
}

// Networks of a few bits lie within each other often.
func TestNetworksOfAnyKind(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 5))
	for range 3000 {
		var l networkList
		var args []string
		for range 1 + random.IntN(8) {
			var raw [16]byte
			for i := range raw {
				raw[i] = byte(random.IntN(2)) << 7 >> random.IntN(8)
			}
			addr, bits := netip.AddrFrom16(raw), 128
			if random.IntN(2) == 0 {
				addr, bits = netip.AddrFrom4([4]byte(raw[:4])), 32
			}
			prefix, err := addr.Prefix(random.IntN(bits + 1))
			if err != nil {
				t.Fatal(err)
			}
			text := prefix.String()
			if random.IntN(2) == 0 {
				text = "!" + text
			}
			if l.Set(text) == nil { // it may be both wanted and not
				args = append(args, text)
			}
		}
		compareNetworks(t, l, strings.Join(args, ","))
	}
}

// badNetworks are refused, with an error that holds the text.
var badNetworks = map[string]string{
	"":                       `"" is neither an address nor a network`,
	"10.0.0.0/8,":            `"" is neither`,
	"10.0.0/8":               `"10.0.0/8" is neither`,
	"10.0.0.0/33":            `"10.0.0.0/33" is neither`,
	"10.0.0.0/-1":            `"10.0.0.0/-1" is neither`,
	"::/129":                 `"::/129" is neither`,
	"10.0.0.0/255.0.0.0":     "is neither",
	"10.1.2.3/8":             `"10.1.2.3/8" has bits behind its prefix: 10.0.0.0/8?`,
	"2001:db8::1/32":         "2001:db8::/32?",
	"localhost":              "is neither",
	"example.org":            "is neither",
	"fe80::1%eth0":           "is neither",
	"::ffff:10.0.0.0/104":    "is neither",
	"!":                      `"!" is neither`,
	"!!10.0.0.0/8":           "is neither",
	"010.0.0.0/8":            "is neither",
	"10.0.0.0/8 11.0.0.0/8":  "is neither",
	"10.0.0.0/8,!10.0.0.0/8": "10.0.0.0/8 is both wanted and not",
	"!::1,::1":               "::1/128 is both wanted and not",
	"10.0.0.1:80":            "is neither",
}

func TestBadNetworks(t *testing.T) {
	for text, want := range badNetworks {
		var l networkList
		if err := l.Set(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--daddr %q: %v", text, err)
		}
	}
	var l networkList
	set(t, &l, "10.0.0.0/8")
	if err := l.Set("!10.0.0.0/8"); err == nil {
		t.Error("what one --daddr wants, another can refuse")
	}
}

func TestManyNetworks(t *testing.T) {
	var l networkList
	for i := range maxNetworks {
		set(t, &l, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	if spec := filled(t, l); len(spec.Contents) != maxNetworks+1 {
		t.Errorf("%d entries", len(spec.Contents))
	}
	if err := l.Set("192.0.2.1"); err == nil {
		t.Error("there is no end to the networks")
	}
}

func TestNoNetworks(t *testing.T) {
	var l networkList
	if spec := filled(t, l); l.given() || len(spec.Contents) > 0 {
		t.Errorf("%+v", spec)
	}
}

func FuzzNetworks(f *testing.F) {
	for text := range badNetworks {
		f.Add(text)
	}
	f.Add("10.0.0.0/8,!10.1.0.0/16,::1")
	f.Add("!::/0,0.0.0.0/0,2000::/3")
	f.Fuzz(func(t *testing.T, text string) {
		var l networkList
		if err := l.Set(text); err != nil {
			return
		}
		compareNetworks(t, l, fmt.Sprintf("%q", text))
	})
}

func TestNetns(t *testing.T) {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(own.Ino), fmt.Sprint(os.Getpid()), "/proc/self/ns/net"} {
		var n netns
		if err := n.Set(text); err != nil || uint64(n) != own.Ino {
			t.Errorf("--netns %s: %d, %v", text, n, err)
		}
	}
	// Of the initial namespace, before 6.18 and since.
	for text, want := range map[string]netns{"4026531840": 4026531840, "4026531833": 4026531833, "4294967295": 4294967295} {
		var n netns
		if err := n.Set(text); err != nil || n != want {
			t.Errorf("--netns %s: %d, %v", text, n, err)
		}
	}
}

func TestBadNetns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"0":                  "there is no process 0",
		"4194304":            "there is no process 4194304", // a pid is below PID_MAX_LIMIT
		"4294967296":         `there is no namespace "4294967296" in /run/netns`,
		"-1":                 `there is no namespace "-1" in /run/netns`,
		"no-such-namespace":  `there is no namespace "no-such-namespace" in /run/netns`,
		"/no/such/file":      "there is no file /no/such/file",
		"/proc/self/ns/mnt":  "/proc/self/ns/mnt is not a network namespace",
		"/proc/self/ns/user": "/proc/self/ns/user is not a network namespace",
		file:                 file + " is not a network namespace",
		"/":                  "/ is not a network namespace",
	} {
		var n netns
		if err := n.Set(text); err == nil || !strings.Contains(err.Error(), want) || n != 0 {
			t.Errorf("--netns %s: %d, %v", text, n, err)
		}
	}
	var n netns
	if err := n.Set(""); err == nil {
		t.Errorf("an empty namespace is %d", n)
	}
}
