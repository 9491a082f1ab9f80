package main

//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types -type attempt -type kind -type result -type via -type mark -type dns_packet -type dns_mark bpf tcpconnect.bpf.c -- -I../../bpf/headers -mcpu=v2 -Wall -Wextra -Wno-unused-parameter -Werror
