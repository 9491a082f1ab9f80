// Biolatency counts how long the requests to disks take, and prints histograms.
//
// The manual is in manual.go; biolatency --help and --man show it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/constants"
	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/trace"
)

func main() { cli.Main(about.Name, run) }

func run(ctx context.Context, env *cli.Env) error {
	fs := env.Flags()
	opts := defineFlags(fs)
	if err := env.Parse(&about, fs); err != nil {
		return err
	}
	args, command := cli.Command(fs)
	if err := opts.check(args, func() ([]disk, error) { return listDisks("/sys/block") }); err != nil {
		return err
	}
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the tool's own object: %w", err)
	}
	if n := requestsOf("/sys/block"); opts.bios {
		spec.Maps[bpfMapBios].MaxEntries = max(n, leastBios)
	} else {
		spec.Maps[bpfMapStarts].MaxEntries = n
	}
	return opts.trace(ctx, env, spec, command)
}

// trace runs the tool, with its object.
func (o *options) trace(ctx context.Context, env *cli.Env, spec *ebpf.CollectionSpec, command []string) error {
	issuers := o.issuers(len(command) > 0)
	if err := o.prepare(spec, len(command) > 0); err != nil {
		return err
	}
	p := &printer{opts: o}
	if o.openmetrics != "" {
		var err error
		if p.metrics, err = newMetrics(o.openmetrics); err != nil {
			return &cli.Usage{Err: err}
		}
	}
	if o.live {
		if p.screen = screenOn(env.Stdout, env.Stderr, os.Getenv); p.screen != nil {
			env.Stderr = p.screen
		}
		p.heatmap = newHeatmap(o, shadesFor(p.screen != nil, os.Getenv))
	}
	defer p.close()
	return o.Run(ctx, env, trace.Tool{
		Spec:    spec,
		Hooks:   hooks(o, issuers),
		Prepare: func(k *attach.Kernel) error { return p.prepare(spec, k) },
		Command: command,
		Header:  "Tracing block device I/O... Hit Ctrl-C to end.",
		Handle:  func(*trace.Run, []byte) error { return errors.New("there is a ring buffer") },
		Drained: p.drained,
		Finish:  p.finish,

		Interrupts: true,
	})
}

// issuers reports whether it matters who issued a request.
func (o *options) issuers(command bool) bool {
	return command || o.Filter.PicksTasks() || o.by.cgroup || o.by.comm
}

// hooks are the same in all modes: functions that could be probed are inlined, or
// gone. Any of the programs may be interrupted by what completes another request, and
// by what that makes of it, but for the issue of one and of a bio: the kernel runs no
// queue in an interrupt, and submits nothing there.
func hooks(o *options, issuers bool) []attach.Hook {
	if o.bios {
		programs := []string{"bio_begin", "bio_remap", "bio_split", "bio_request", "bio_end"}
		return []attach.Hook{{
			Name: "bios", Sees: "bios",
			Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: programs, Repeatable: programs, Nested: []string{"bio_request", "bio_end"}}},
		}}
	}
	programs := []string{"issue", "requeue", "complete"}
	needs := programs
	if o.queued || o.split {
		needs = append(needs, "insert")
		programs = append(needs, "merge", "io_start") // since 5.11 and 6.5
	}
	all := []attach.Hook{{
		Name: "requests", Sees: "requests",
		Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: needs, Repeatable: programs, Nested: programs[1:]}},
	}}
	if issuers {
		programs := []string{"bio_queue"}
		all = append(all, attach.Hook{
			Name: "issuers", Sees: "who issues a request",
			Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: programs, Repeatable: programs}},
		})
	}
	return all
}

// prepare sets the constants and maps of spec that the options ask for.
func (o *options) prepare(spec *ebpf.CollectionSpec, command bool) error {
	err := constants.Set(spec, map[string]any{
		bpfVarWantQueue:    o.queued || o.split,
		bpfVarWantSplit:    o.split,
		bpfVarWantIssuer:   o.issuers(command),
		bpfVarByDisk:       o.by.disk,
		bpfVarByOp:         o.by.op,
		bpfVarByCgroup:     o.by.cgroup,
		bpfVarByComm:       o.by.comm,
		bpfVarFilterIssuer: command || o.Filter.PicksTasks(),
		bpfVarFilterDisk:   o.disk != "",
		bpfVarFilterDev:    o.dev,
	})
	if err != nil {
		return err
	}
	unused := []string{bpfMapBios}
	if o.bios {
		unused = []string{bpfMapPlaces, bpfMapOwners, bpfMapStarts}
	}
	if o.bios || !o.issuers(command) {
		unused = append(unused, bpfMapIssuers)
	}
	for _, name := range unused {
		spec.Maps[name].MaxEntries = 1
	}
	n := uint32(1)
	if o.by.any() {
		n = uint32(slotsFor(len(o.phases()), ebpf.MustPossibleCPU()))
		free := spec.Maps[bpfMapFreeSlots]
		free.MaxEntries = n
		for slot := range n {
			free.Contents = append(free.Contents, ebpf.MapKV{Value: slot})
		}
	}
	spec.Maps[bpfMapSlots].MaxEntries, spec.Maps[bpfMapSlotDisks].MaxEntries = n, n
	return nil
}

// slotsFor gives how many things can be told apart, so that they take no more than
// 128 MiB of kernel memory.
func slotsFor(phases, cpus int) int {
	return min(max(128<<20/(histogram.Size*phases*cpus), 16), 1024)
}

// prepare settles what depends on the kernel.
func (p *printer) prepare(spec *ebpf.CollectionSpec, k *attach.Kernel) error {
	p.operations = readOperations(k.Types())
	// Where the arguments are as in neither of the prototypes, attaching says so.
	err := constants.Set(spec, map[string]any{
		bpfVarQueueFirst:      k.Arguments("block_rq_issue") == 2,
		bpfVarBioQueueFirst:   k.Arguments("block_bio_queue") == 2,
		bpfVarStatusIsErrno:   k.ArgumentSize("block_rq_complete", 1) == 4,
		bpfVarOpMask:          p.operations.mask(),
		bpfVarFlushFlags:      p.operations.bits("FUA", "PREFLUSH"),
		bpfVarFlushSequence:   flushSequence(k.Types()),
		bpfVarSplitQueueFirst: k.Arguments("block_split") == 3,
		bpfVarRemapQueueFirst: k.Arguments("block_bio_remap") == 4,
		bpfVarHasIoStart:      k.Arguments("block_io_start") > 0,
	})
	if err != nil {
		return err
	}
	for _, t := range []string{"block_rq_insert", "block_rq_requeue", "block_rq_merge"} {
		if n := k.Arguments(t); n >= 0 && n != k.Arguments("block_rq_issue") {
			return fmt.Errorf("tracepoint %s is another on this kernel: %d arguments", t, n)
		}
	}
	cgroups, err := p.opts.Filter.OnlyCgroups()
	if err != nil {
		return err
	}
	if len(cgroups) > 0 {
		if err := constants.Set(spec, map[string]any{bpfVarFilterCharged: true}); err != nil {
			return err
		}
		for _, id := range cgroups {
			charged := spec.Maps[bpfMapChargedCgroups]
			charged.Contents = append(charged.Contents, ebpf.MapKV{Key: id, Value: uint8(1)})
		}
	}
	n := int(spec.Maps[bpfMapSlots].MaxEntries) * len(p.opts.phases())
	p.live, err = histogram.NewLive(spec, p.opts.unit(), n)
	return err
}

func (p *printer) close() {
	p.leaveScreen()
	if p.live != nil {
		_ = p.live.Close()
	}
}
