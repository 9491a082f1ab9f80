package main

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Ports that the bench doesn't use. Round trips leave theirs in TIME_WAIT for a minute.
const testPort, roundTripPort = 28990, 28991

func TestRepeat(t *testing.T) {
	if err := repeat(1, testPort, 1000); err != nil {
		t.Fatal(err)
	}
	// No port is left in TIME_WAIT: one can listen there at once, without SO_REUSEADDR.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: testPort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Error(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	if err := repeat(1, testPort, 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a port that is taken: got %v", err)
	}
	// Another address has the same port still.
	if err := repeat(2, testPort, 1); err != nil {
		t.Error(err)
	}
}

func TestRoundTrips(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		// A system call takes more than 10 ns on any machine.
		if took, err := roundTrips(protocol, roundTripPort, 100); err != nil || took < 4000 {
			t.Errorf("%s: %v, %v", protocol, took, err)
		}
	}
	if _, err := roundTrips("sctp", roundTripPort, 1); err == nil {
		t.Error("sctp: no error")
	}
}
