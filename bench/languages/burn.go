//go:build ignore

package main

import "time"

//go:noinline
func burn_hot(n int) int {
	s := 0
	for i := range n {
		s += i * i % 7
	}
	return s
}

//go:noinline
func burn_middle(n int) int { return burn_hot(n) + 1 }

//go:noinline
func burn_main() {
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
		burn_middle(20000)
	}
}

func main() { burn_main() }
