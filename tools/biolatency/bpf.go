package main

//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types -type key -type failure -type disk_name -type phase -type start bpf biolatency.bpf.c -- -I../../bpf/headers -mcpu=v2 -Wall -Wextra -Wno-unused-parameter -Werror
