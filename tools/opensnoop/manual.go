package main

import text "github.com/gobcc/gobcc/internal/common/manual"

// about is what --help and --man say beside the flags.
var about = text.Manual{
	Name:     "opensnoop",
	Summary:  "show the files that processes open, or fail to",
	Synopsis: []string{"opensnoop [options]", "opensnoop [options] -- COMMAND [ARG...]"},
}
