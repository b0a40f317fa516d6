package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	in := `{"Action":"build-output","Output":"# x\n"}
{"Action":"output","Package":"p","Test":"TestSkip","Output":"    a_test.go:4: no node: install it\n"}
{"Action":"skip","Package":"p","Test":"TestSkip"}
{"Action":"output","Package":"p","Test":"TestQuiet","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestQuiet"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"want 1\n"}
{"Action":"pause","Package":"p","Test":"TestBad"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"skip","Package":"without/tests"}
not json
{"Action":"pass","Package":"q","Elapsed":0.25}
`
	var out strings.Builder
	skipped, err := report(strings.NewReader(in), func(s string) { out.WriteString(s) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"TestSkip: no node: install it"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
	if want := "# x\nwant 1\nnot json\nok  \tq\t0.2s\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
