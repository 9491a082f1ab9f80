// Package selftest has tests of the kernel runner itself: that a guest is as
// the runner promises, and that a program of every attach mode counts exactly.
package selftest
