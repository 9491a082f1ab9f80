package main

import "regexp"

// expectedSkips has every skip that may happen on the kernel that CI itself runs
// on, whatever that is. The kernels of the matrix have a list of their own, as it
// is known of each what it has.
var expectedSkips = []struct {
	test, reason *regexp.Regexp // of the test's whole name, of what it says
}{
	{
		// Small kernels for virtual machines are built without kprobes, and then
		// refuse fentry programs too.
		test:   regexp.MustCompile(`/(fentry|kprobe)$`),
		reason: regexp.MustCompile(`SKIPPED: this kernel has no (fentry|kprobe) mode: .*(refuses fentry programs, although|was built without kprobes)`),
	},
	{
		// They have few modules.
		test:   regexp.MustCompile(`^TestKernel(Bios|BiosOfLoop|BioErrors|Unissued|Latency|Split|Errors|Gone|GoneAtWork|Crowded|Writeback|Zones|Merged|Requeued|Timeout)(/|$)`),
		reason: regexp.MustCompile(`SKIPPED: the module (null_blk|scsi_debug) is not loaded here`),
	},
	{
		// They keep few symbols, too.
		test:   regexp.MustCompile(`^TestKernelPreemptsTracepoints$`),
		reason: regexp.MustCompile(`SKIPPED: this kernel does not tell where its preempt count is`),
	},
	{
		// Hardened ones run no 32-bit programs (ia32_emulation=off, or a hypervisor that can't).
		test:   regexp.MustCompile(`/((failed_)?int80_[a-z0-9]+|[a-z0-9]+_32|32-bit)$`),
		reason: regexp.MustCompile(`(?m)SKIPPED: (no (int80 [a-z0-9]+|32-bit (calls|execs)) on this machine|this kernel runs no 32-bit calls)$`),
	},
	{
		// What takes a CPU off is for the kernels of the matrix.
		test:   regexp.MustCompile(`Hotplug$`),
		reason: regexp.MustCompile(`SKIPPED: it takes a CPU off, so it is for guests only`),
	},
}

func expected(test, said string) bool {
	for _, e := range expectedSkips {
		if e.test.MatchString(test) && e.reason.MatchString(said) {
			return true
		}
	}
	return false
}
