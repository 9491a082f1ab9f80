// Tcpconnect prints a line for every TCP connection that a program makes, or tries to.
package main

// The tool itself, which calls these, comes from another branch: this file goes then.
func main() { _, _ = newNames(), lostNames }
