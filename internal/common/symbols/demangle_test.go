package symbols

import (
	"strings"
	"testing"
)

func TestDemangle(t *testing.T) {
	for name, want := range map[string]string{
		"main":                              "main",
		"":                                  "",
		"_Z":                                "_Z",
		"_Zfoo":                             "_Zfoo",
		"_Z3fooi":                           "foo",
		"_Z3fooi.cold":                      "foo.cold",
		"_Z3fooi.part.0":                    "foo.part.0",
		"_Z3fooi.constprop.0.isra.0":        "foo.constprop.0.isra.0",
		"_ZNSt6vectorIiSaIiEE9push_backEOi": "std::vector<int, std::allocator<int> >::push_back",
		"_ZSt4sortIPiEvT_S1_":               "std::sort<int*>",
		"_ZZ4mainENKUliE_clEi":              "main::{lambda(int)#1}::operator()",
		"_ZN3FooC1Ev":                       "Foo::Foo",
		"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE":          "core::fmt::Formatter::pad",
		"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.123": "core::fmt::Formatter::pad",
		"_RNvCs1234_7mycrate3foo":                                 "mycrate::foo",
		"_RNvNtCs1234_7mycrate3foo3bar":                           "mycrate::foo::bar",
		"_Z" + strings.Repeat("9", maxMangled):                    "_Z" + strings.Repeat("9", maxMangled),
	} {
		if got := Demangle(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

// FuzzDemangle finds names that take long, or much memory.
func FuzzDemangle(f *testing.F) {
	f.Add("_ZSt4sortIPiEvT_S1_")
	f.Add("_RNvCs1234_7mycrate3foo")
	f.Add("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE")
	f.Fuzz(func(t *testing.T, name string) {
		if got := Demangle(name); len(got) > 64<<10+len(name) {
			t.Errorf("%d bytes of %d", len(got), len(name))
		}
	})
}
