// Package plan is what the kernel runner on the host and its init in the guest
// agree on: the orders that go in, and the lines that come back on the console.
package plan

// Path is where the guest finds its Plan, as JSON.
const Path = "/plan.json"

// A Plan is what the guest is to do.
type Plan struct {
	// Kernel is the runner's name of this kernel, such as "6.12-arm64".
	Kernel string
	// Modules are paths of uncompressed kernel modules, in loading order.
	Modules []string
	// Run is the regular expression for go test's -run.
	Run string
	// Short tells that what is the same on all kernels is not to be tested.
	Short bool
	// Seconds after boot at which the tests must be over.
	Seconds int
	// Tests are run one after another.
	Tests []Test
}

// A Test is one package's test binary.
type Test struct {
	Package string // import path
	Dir     string // working directory, which holds the binary too
	Binary  string // path
}

// The guest starts each of its lines with one of these, so that the host can
// tell them from the kernel's, and can mend a line that the kernel's cut in two.
const (
	// Control starts a line of the guest's init.
	Control = "gobcc: "
	// Output starts a line of a test binary's output.
	Output = "> "
)

// The first word of a Control line.
const (
	Start   = "start"   // uname's release: init runs
	Package = "package" // import path: the Output lines from here on are its
	Exit    = "exit"    // the exit status of that package's test binary
	Kmsg    = "kmsg"    // a warning that the kernel logged while tests ran
	Error   = "error"   // the guest could not do as planned
	Done    = "done"    // every package was run; the verdict
)
