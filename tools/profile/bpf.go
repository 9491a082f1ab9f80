package main

//go:generate go tool bpf2go -tags linux -target amd64,arm64 -no-global-types -type event -type repeat -type kind -type fate -type user_status -type copy bpf profile.bpf.c -- -I../../bpf/headers -mcpu=v2 -Wall -Wextra -Wno-unused-parameter -Werror
