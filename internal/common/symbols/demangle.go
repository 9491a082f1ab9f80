package symbols

import (
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// maxMangled is the length in bytes up to which a name is demangled. Longer ones are
// shown as they are.
const maxMangled = 16 << 10

// clones are what compilers append to the name of a part or a variant of a function.
var clones = []string{".cold", ".part.", ".isra.", ".constprop."}

// Demangle gives the readable form of a C++ or Rust name, and any other name as it is.
// Template arguments are kept, because they tell functions apart that are otherwise
// named alike; parameters aren't. Of a compiler's clone the suffix is kept (.cold,
// .part.0), because it is another piece of code.
func Demangle(name string) string {
	if len(name) > maxMangled || !strings.HasPrefix(name, "_Z") && !strings.HasPrefix(name, "_R") {
		return name
	}
	s, err := demangle.ToString(name, demangle.NoParams, demangle.NoEnclosingParams, demangle.MaxLength(14))
	if err != nil || s == "" {
		return name
	}
	suffix := len(name)
	for _, c := range clones {
		if i := strings.Index(name, c); i >= 0 {
			suffix = min(suffix, i)
		}
	}
	return s + name[suffix:]
}

// trimVersion cuts the version off that linkers leave in the names of a static symbol
// table: memcpy@@GLIBC_2.14.
func trimVersion(name string) string {
	if i := strings.IndexByte(name, '@'); i > 0 {
		return name[:i]
	}
	return name
}

// underscores counts those that a name begins with.
func underscores[T string | []byte](name T) int {
	n := 0
	for n < len(name) && name[n] == '_' {
		n++
	}
	return n
}
