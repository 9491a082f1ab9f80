package main

//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types -type part -type ancestor -type exec -type exit -type times -type kind -type mark -type answer bpf execsnoop.bpf.c -- -I../../bpf/headers -mcpu=v2 -Wall -Wextra -Wno-unused-parameter -Werror
