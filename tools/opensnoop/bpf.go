package main

//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types -type event -type via -type mark -type path_mark bpf opensnoop.bpf.c -- -I../../bpf/headers -mcpu=v2 -Wall -Wextra -Wno-unused-parameter -Werror
