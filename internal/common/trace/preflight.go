package trace

import (
	"fmt"
	"io"
	"strings"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/diagnose"
	"github.com/gobcc/gobcc/internal/common/output"
)

// describe says in lines what became of a hook.
func describe(res *attach.Result) []string {
	var lines []string
	if res.Mode == "" {
		lines = append(lines, fmt.Sprintf("%s: can't be had", res.Hook.Name))
	} else {
		lines = append(lines, fmt.Sprintf("%s: by %s", res.Hook.Name, res.Mode))
	}
	if res.Spares > 0 {
		spares := "a spare"
		if res.Spares > 1 {
			spares = fmt.Sprintf("%d spares", res.Spares)
		}
		lines = append(lines, fmt.Sprintf("%s: with %s, as the kernel skips a program on a CPU where it runs already", res.Hook.Name, spares))
	}
	for _, f := range res.Refused {
		lines = append(lines, fmt.Sprintf("%s: not by %s: %v", res.Hook.Name, f.Mode, f.Err))
	}
	if len(res.LeftOut) > 0 {
		lines = append(lines, fmt.Sprintf("%s: this kernel has no %s", res.Hook.Name, strings.Join(res.LeftOut, ", ")))
	}
	return lines
}

// runPreflight tries every mode and says what came of it. It fails as a run
// would.
func (o *Options) runPreflight(env *cli.Env, tool *Tool) error {
	out := output.NewWriter(env.Stdout)
	facts := diagnose.ReadSystem("/")
	kernel, err := o.openKernel()
	if err != nil {
		return err
	}
	var modes []modeReport
	for _, mode := range append([]attach.Mode{attach.Auto}, attach.Modes...) {
		results, err := kernel.Plan(tool.Spec, tool.Hooks, mode)
		modes = append(modes, modeReport{mode, results, err})
	}
	if o.JSON {
		err = preflightJSON(out, facts.Summary(), modes)
	} else {
		err = preflightText(out, facts.Summary(), modes)
	}
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, m := range modes {
		if m.mode == attach.Mode(o.attach) && m.err != nil {
			return m.err
		}
	}
	if tool.Preflight != nil {
		return tool.Preflight()
	}
	return nil
}

// modeReport is what came of a mode.
type modeReport struct {
	mode    attach.Mode
	results []attach.Result
	err     error
}

func preflightText(w io.Writer, facts []diagnose.Fact, modes []modeReport) error {
	var b strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&b, "%-28s %-8s %s", f.Name, f.OK, f.Detail)
		if f.OK == diagnose.No && f.Remedy != "" {
			fmt.Fprintf(&b, " (%s)", f.Remedy)
		}
		b.WriteByte('\n')
	}
	for _, m := range modes {
		if m.err != nil {
			fmt.Fprintf(&b, "\n--attach %-18s no       %v\n", m.mode, m.err)
			continue
		}
		fmt.Fprintf(&b, "\n--attach %-18s yes\n", m.mode)
		for _, res := range m.results {
			for _, line := range describe(&res) {
				fmt.Fprintf(&b, "  %s\n", line)
			}
			for _, blind := range res.Blind {
				fmt.Fprintf(&b, "  not seen: %s\n", blind)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func preflightJSON(w *output.Writer, facts []diagnose.Fact, modes []modeReport) error {
	for _, f := range facts {
		o := output.Begin(w.Row())
		o.String("kind", "fact")
		o.String("name", f.Name)
		o.String("ok", f.OK.String())
		o.String("detail", f.Detail)
		o.String("remedy", f.Remedy)
		if err := w.EndRow(o.End()); err != nil {
			return err
		}
	}
	for _, m := range modes {
		o := output.Begin(w.Row())
		o.String("kind", "mode")
		o.String("mode", string(m.mode))
		o.Bool("ok", m.err == nil)
		if m.err != nil {
			o.String("reason", m.err.Error())
		}
		o.Array("hooks")
		for _, res := range m.results {
			o.Object("")
			o.String("name", res.Hook.Name)
			if res.Mode == "" {
				o.Null("mode")
			} else {
				o.String("mode", string(res.Mode))
			}
			texts(&o, "left_out", res.LeftOut)
			texts(&o, "not_seen", res.Blind)
			o.Array("refused")
			for _, f := range res.Refused {
				o.Object("")
				o.String("mode", string(f.Mode))
				o.String("reason", f.Err.Error())
				o.Close()
			}
			o.Close()
			o.Close()
		}
		if err := w.EndRow(o.End()); err != nil {
			return err
		}
	}
	return nil
}

func texts(o *output.Object, key string, list []string) {
	o.Array(key)
	for _, s := range list {
		o.String("", s)
	}
	o.Close()
}
