package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/duration"
	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// options is what the user asked for.
type options struct {
	*trace.Options
	timestamp   bool
	queued      bool // latencies contain the time in the queue
	millis      bool
	extension   bool
	percentiles bool
	split       bool
	live        bool
	bios        bool // count at the layer above the requests
	disks       bool
	flags       bool
	by          keys
	disk        string
	openmetrics string

	dev      uint32        // of disk
	interval time.Duration // 0 for one table at the end
	tables   int           // at most so many; 0 for no limit
}

// keys are what requests are counted by.
type keys struct{ disk, op, cgroup, comm bool }

// keyNames are as users write them.
var keyNames = []string{"disk", "op", "cgroup", "comm"}

func (k *keys) String() string { return "" }

// Type names the kind of value, as pflag wants it.
func (k *keys) Type() string { return "keys" }

// Set takes what the user wrote; given again, it adds to what there is.
func (k *keys) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		switch strings.TrimSpace(name) {
		case "disk":
			k.disk = true
		case "op":
			k.op = true
		case "cgroup":
			k.cgroup = true
		case "comm":
			k.comm = true
		default:
			return fmt.Errorf("there is no key %q: %s", name, strings.Join(keyNames, ", "))
		}
	}
	return nil
}

func (k *keys) any() bool { return *k != keys{} }

// defineFlags defines the flags in the order of the manual.
func defineFlags(fs *pflag.FlagSet) *options {
	o := &options{}
	fs.BoolVarP(&o.timestamp, "timestamp", "T", false, "show the time of day with each table")
	fs.BoolVarP(&o.queued, "queued", "Q", false, "count the time in the system's queue too")
	fs.BoolVarP(&o.millis, "milliseconds", "m", false, "count in milliseconds, not microseconds")
	fs.BoolVarP(&o.disks, "disks", "D", false, "a histogram for each disk: --by disk")
	fs.BoolVarP(&o.flags, "flags", "F", false, "a histogram for each operation with its flags: --by op")
	fs.Var(&o.by, "by", "a histogram for each `KEY`[,KEY...]: disk, op, cgroup, comm")
	fs.BoolVar(&o.split, "split", false, "the time in the queue and that in the device side by side, and both together")
	fs.BoolVar(&o.live, "live", false, "draw the latencies of the last intervals as a heatmap, a row each; INTERVAL is 1 if not given")
	fs.BoolVar(&o.bios, "bio", false, "count bios, at each of the devices they come to: device mapper, md, zram and the disks below them")
	fs.BoolVarP(&o.extension, "extension", "e", false, "show the average, the sum and the count too")
	fs.BoolVar(&o.percentiles, "percentiles", false, "show p50, p90, p99, p99.9 and the maximum under each histogram")
	fs.StringVar(&o.openmetrics, "openmetrics", "", "with each table, write all since the beginning to `FILE`, as OpenMetrics")
	manual.Completes(fs, "openmetrics", manual.File)
	manual.Place(fs, manual.Output, "openmetrics", "timestamp", "queued", "milliseconds", "disks", "flags", "by", "split", "bio", "live", "extension", "percentiles")
	manual.Values(fs, "by", keyNames...)

	fs.StringVarP(&o.disk, "disk", "d", "", "only this `DISK`, as sda")
	manual.Place(fs, manual.Filters, "disk")

	o.Options = trace.FlagsOfSummary(fs, trace.Letters{JSON: "j", Cgroup: "c"})
	o.DurationFlag("")
	o.Filter.PIDFlag("p")
	o.Filter.TIDFlag("")
	o.Filter.UserFlag("u")
	o.Filter.CommFlag("n")
	manual.Place(fs, manual.Filters, "pid", "tid", "uid", "name")
	return o
}

// check refuses what makes no sense, and settles what follows from the rest. disks
// gives the disks that there are.
func (o *options) check(args []string, disks func() ([]disk, error)) error {
	if err := o.checkInterval(args); err != nil {
		return err
	}
	o.by.disk = o.by.disk || o.disks
	o.by.op = o.by.op || o.flags
	if o.split && o.queued {
		return cli.BadUse("--split shows the time in the queue already, so -Q goes without it")
	}
	if o.live {
		if o.JSON || o.extension {
			return cli.BadUse("--live draws a picture, so -j and -e go without it")
		}
		if o.interval == 0 {
			o.interval = time.Second
		}
	}
	if o.bios && (o.split || o.queued) {
		return cli.BadUse("--bio counts bios, which wait in no queue that could be told from the device: -Q and --split go without it")
	}
	if o.disk == "" {
		return nil
	}
	all, err := disks()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(d disk) bool { return d.name == strings.TrimPrefix(o.disk, "/dev/") })
	if i < 0 {
		return cli.BadUse("-d: there is no disk %q here: %s", o.disk, names(all))
	}
	o.dev = all[i].dev
	return nil
}

func names(all []disk) string {
	if len(all) == 0 {
		return "there is none at all"
	}
	var list []string
	for _, d := range all {
		list = append(list, d.name)
	}
	return strings.Join(list, ", ")
}

// shortestInterval is between two tables at least: they are looked after each 50 ms.
const shortestInterval = 100 * time.Millisecond

// checkInterval takes the arguments that are no options.
func (o *options) checkInterval(args []string) error {
	if len(args) == 0 {
		return nil
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
		if errors.Is(err, strconv.ErrRange) || err != nil || n < 1 {
			return cli.BadUse("the count %q is not a number above 0", args[1])
		}
		o.tables = n
	}
	return nil
}

func (o *options) unit() histogram.Unit {
	if o.millis {
		return histogram.Millis
	}
	return histogram.Micros
}

// phases are the names of what a request's histograms are for.
func (o *options) phases() []string {
	switch {
	case o.bios:
		return []string{"bio"}
	case o.split:
		return []string{bpfPhasePHASE_QUEUE: "queue", bpfPhasePHASE_DEVICE: "device", bpfPhasePHASE_TOTAL: "total"}
	case o.queued:
		return []string{"total"}
	}
	return []string{"device"}
}
