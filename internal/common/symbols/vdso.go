package symbols

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// maxVDSO is more than the vdso has on any kernel, in bytes.
const maxVDSO = 256 << 10

// OpenVDSO reads the code that the kernel maps into each process, from this process's
// memory: all 64-bit ones have the same.
func OpenVDSO() (*File, error) {
	image, err := VDSOImage()
	if err != nil {
		return nil, fmt.Errorf("read the vdso: %w", err)
	}
	return open(bytes.NewReader(image), Options{})
}

// VDSOImage reads the ELF file that the kernel maps into each 64-bit process.
func VDSOImage() ([]byte, error) {
	const atSysinfoEhdr = 33
	auxv, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return nil, err
	}
	var addr uint64
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.NativeEndian.Uint64(auxv) == atSysinfoEhdr {
			addr = binary.NativeEndian.Uint64(auxv[8:])
		}
	}
	if addr == 0 {
		return nil, errors.New("this kernel has none")
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	image := make([]byte, maxVDSO)
	n := 0
	for n < len(image) {
		// Page by page, because what follows it is not mapped, or is another's.
		got, err := mem.ReadAt(image[n:n+4096], int64(addr)+int64(n))
		n += got
		if err != nil {
			break
		}
	}
	if n == 0 {
		return nil, errors.New("it can't be read")
	}
	return image[:n], nil
}
