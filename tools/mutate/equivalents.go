package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// readEquivalents reads testdata/mutants.txt of a package: paragraphs, each a reason and then the mutants that it is the
// reason for, one a line behind a tab, as the report has them:
//
//	The capacity is a hint.
//		parse.go Parse: b := grow(b, 64) => b := grow(b, 65)
//
// Lines that begin with # are comments. A mutant without a reason, one that does not exist (any more) and one that
// stands there twice are errors.
func readEquivalents(dir string, mutants []*mutant) (map[string]bool, error) {
	path := filepath.Join(dir, "testdata", "mutants.txt")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	exist := map[string]bool{}
	for _, m := range mutants {
		exist[m.Key] = true
	}
	listed := map[string]bool{}
	reason, below := false, false // below: behind the reason, among its mutants
	var faults []error
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		fault := func(what string) {
			faults = append(faults, fmt.Errorf("%s:%d: %s: %s", path, number, what, strings.TrimSpace(line)))
		}
		key, isMutant := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t")
		switch {
		case strings.TrimSpace(line) == "":
			reason, below = false, false
		case strings.HasPrefix(line, "#"):
		case !isMutant && below:
			fault("an empty line must stand before the next reason")
		case !isMutant:
			reason = true
		case !reason:
			fault("no reason stands before this mutant")
		case !exist[key]:
			fault("there is no such mutant (any more)")
		case listed[key]:
			fault("this mutant stands there twice")
		default:
			listed[key] = true
		}
		below = below || isMutant
	}
	return listed, errors.Join(faults...)
}
