package main

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/gobcc/gobcc/internal/cmd/kernels/plan"
)

// A console gathers what a guest says on its serial console, line by line.
// There the kernel's messages and the tests' output are mixed, and a message
// can cut another's line in two.
type console struct {
	Release  string       // uname -r, known when init starts
	Packages []packageRun // as far as they were started
	Errors   []string     // what init could not do
	Kmsg     []string     // the kernel's warnings while tests ran
	Panic    string       // the kernel's last words
	Done     bool         // init gave its verdict

	cut  string // the start of a guest's line that a kernel message cut
	full string // the whole line that cut is from
	tail []string
}

// A packageRun is a run of one package's test binary.
type packageRun struct {
	Package string
	Output  []string
	Ended   bool
	Status  int // exit status, if Ended
}

// started tells whether init has said its first line.
func (c *console) started() bool { return c.Release != "" }

// tailLines is how many lines of the console are shown when a guest failed.
const tailLines = 40

// stamp matches what printk writes before each message, on some kernels with
// the thread or processor (CONFIG_PRINTK_CALLER).
var stamp = regexp.MustCompile(`\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? `)

// line takes the next line of the console, with or without its end.
func (c *console) line(s string) {
	s = strings.ReplaceAll(strings.TrimRight(s, "\r\n"), "\r", "")
	if c.tail = append(c.tail, s); len(c.tail) > tailLines {
		c.tail = c.tail[1:]
	}
	if at := stamp.FindStringIndex(s); at != nil {
		if strings.Contains(s, "Kernel panic - not syncing") && c.Panic == "" {
			c.Panic = s[at[1]:]
		}
		switch head := s[:at[0]]; {
		case isGuest(head):
			// Either a kernel message cut this line, or a test printed one of
			// its own accord. The next line tells: the guest's whole lines
			// start with a mark, and the second half of a line doesn't.
			c.flush()
			c.cut, c.full = head, s
		case c.cut != "":
			c.cut += head
		}
		return
	}
	if c.cut != "" && !isGuest(s) {
		s = c.cut + s
		c.cut = ""
	}
	c.flush()
	c.guestLine(s)
}

// flush takes the line that was kept back as it was.
func (c *console) flush() {
	if c.cut != "" {
		c.cut = ""
		c.guestLine(c.full)
	}
}

func isGuest(s string) bool {
	return strings.HasPrefix(s, plan.Output) || strings.HasPrefix(s, plan.Control)
}

func (c *console) guestLine(s string) {
	if text, ok := strings.CutPrefix(s, plan.Output); ok {
		if p := c.current(); p != nil {
			p.Output = append(p.Output, text)
		}
		return
	}
	text, ok := strings.CutPrefix(s, plan.Control)
	if !ok {
		return // the firmware's, or a kernel's before it has a clock
	}
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case plan.Start:
		c.Release = rest
	case plan.Package:
		c.Packages = append(c.Packages, packageRun{Package: rest})
	case plan.Exit:
		status, err := strconv.Atoi(rest)
		if p := c.current(); p != nil && err == nil {
			p.Ended, p.Status = true, status
			return
		}
		c.Errors = append(c.Errors, "garbled line on the console: "+s)
	case plan.Kmsg:
		c.Kmsg = append(c.Kmsg, rest)
	case plan.Error:
		c.Errors = append(c.Errors, rest)
	case plan.Done:
		c.Done = true
	default:
		c.Errors = append(c.Errors, "garbled line on the console: "+s)
	}
}

// current returns the package whose tests run now, or nil.
func (c *console) current() *packageRun {
	if n := len(c.Packages); n > 0 && !c.Packages[n-1].Ended {
		return &c.Packages[n-1]
	}
	return nil
}
