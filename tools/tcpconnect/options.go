package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/duration"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// options is what the user asked for.
type options struct {
	*trace.Options
	timestamp  bool
	uid        bool
	lport      bool
	outcome    bool // a row tells how the attempt ended
	failed     bool
	minLatency duration.Millis
	ipv4, ipv6 bool
	ports      portList
	daddrs     networkList
	saddrs     networkList
	netns      netns
	count      bool
	dns        bool // QUERY, with how long the lookup took
	domains    bool

	interval time.Duration // of -c; 0 for one table at the end
	tables   int           // at most so many; 0 for no limit
}

// defineFlags defines the flags in the order of the manual.
func defineFlags(fs *pflag.FlagSet) *options {
	o := &options{}
	// BCC spells some of its long options with an underscore.
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	fs.BoolVarP(&o.timestamp, "timestamp", "t", false, "show the time in seconds since the first row")
	fs.BoolVarP(&o.uid, "print-uid", "U", false, "show the user's number")
	fs.BoolVarP(&o.lport, "lport", "L", false, "show the local port")
	fs.BoolVarP(&o.lport, "source-port", "s", false, "the same, as libbpf-tools spell it")
	fs.BoolVar(&o.outcome, "outcome", false, "show how each attempt ended, and how long it took; the row comes then")
	fs.BoolVarP(&o.count, "count", "c", false, "show no rows, but counts by source, destination and port")
	fs.BoolVarP(&o.dns, "dns", "d", false, "show the name that the address was looked up by, and how long that took")
	fs.BoolVar(&o.domains, "domains", false, "show the name alone")
	manual.Place(fs, manual.Output, "timestamp", "print-uid", "lport", "source-port", "outcome", "count", "dns", "domains")

	fs.BoolVarP(&o.failed, "failed", "x", false, "only attempts that failed")
	fs.Var(&o.minLatency, "min-ms", "only attempts that took `MS` milliseconds or longer")
	fs.BoolVarP(&o.ipv4, "ipv4", "4", false, "only IPv4")
	fs.BoolVarP(&o.ipv6, "ipv6", "6", false, "only IPv6")
	fs.VarP(&o.ports, "port", "P", "only to these ports: `PORT`[,PORT...], 8000-8099, and !22 for all but that")
	fs.Var(&o.daddrs, "daddr", "only to these addresses: `NETWORK`[,NETWORK...] as 10.0.0.0/8 or ::1; !NETWORK for all but that")
	fs.Var(&o.saddrs, "saddr", "only from these addresses: `NETWORK`[,NETWORK...]")
	fs.Var(&o.netns, "netns", "only in this network namespace: a `PATH|NAME|PID`, or its number")
	manual.Place(fs, manual.Filters, "failed", "min-ms", "ipv4", "ipv6", "port", "daddr", "saddr", "netns")
	manual.Completes(fs, "netns", manual.File)

	o.Options = trace.Flags(fs)
	o.DurationFlag("")
	o.Filter.PIDFlag("p")
	o.Filter.TIDFlag("")
	o.Filter.UserFlag("u")
	o.Filter.CommFlag("")
	manual.Place(fs, manual.Filters, "pid", "tid", "uid", "name")
	return o
}

// check refuses what makes no sense, and settles what follows from the rest.
func (o *options) check(args []string) error {
	if err := o.checkInterval(args); err != nil {
		return err
	}
	if o.count {
		for _, f := range []struct {
			given bool
			name  string
		}{{o.outcome, "--outcome"}, {o.timestamp, "-t"}, {o.uid, "-U"}, {o.dns, "-d"}, {o.domains, "--domains"}} {
			if f.given {
				return cli.BadUse("-c shows no rows of single attempts, so %s goes without it", f.name)
			}
		}
	}
	if o.dns && o.domains {
		return cli.BadUse("-d and --domains exclude each other: both show the name")
	}
	// What became of an attempt is needed for all of these.
	o.outcome = o.outcome || o.failed || o.minLatency > 0 || o.count || o.JSON
	return nil
}

// shortestInterval is between two tables at least: they are looked after each 50 ms.
const shortestInterval = 100 * time.Millisecond

// checkInterval takes what stands behind -c.
func (o *options) checkInterval(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !o.count {
		return cli.BadUse("unexpected argument %q; an interval goes with -c, and a command to trace stands behind --", args[0])
	}
	if len(args) > 2 {
		return cli.BadUse("unexpected argument %q behind the interval and the count", args[2])
	}
	var interval duration.Seconds
	if err := interval.Set(args[0]); err != nil || time.Duration(interval) < shortestInterval {
		return cli.BadUse("the interval %q is not a number of seconds from 0.1 on", args[0])
	}
	o.interval = time.Duration(interval)
	if len(args) == 2 {
		n, err := strconv.Atoi(args[1])
		if err != nil || n < 1 {
			return cli.BadUse("the count %q is not a number above 0", args[1])
		}
		o.tables = n
	}
	return nil
}

// checkFamily refuses to look for what this kernel does not have.
func (o *options) checkFamily(hasIPv6 bool) error {
	if o.ipv6 && !hasIPv6 {
		return cli.BadUse("-6: this kernel has no IPv6")
	}
	return nil
}

// family is 4 or 6, or 0 for both.
func (o *options) family() uint8 {
	switch {
	case o.ipv4 && !o.ipv6:
		return 4
	case o.ipv6 && !o.ipv4:
		return 6
	}
	return 0
}

// named reports whether names of addresses are needed.
func (o *options) named() bool { return o.dns || o.domains }
