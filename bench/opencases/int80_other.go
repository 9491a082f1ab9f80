//go:build !amd64

package main

import "errors"

func openInt80(string) error {
	return errors.New("int 0x80 is an instruction of amd64")
}
