//go:build linux

package auth

import (
	"math"
	"slices"
)

func summarize(v []float64) Summary {
	return Summary{Median: quantile(v, 0.5), Min: slices.Min(v), Max: slices.Max(v)}
}

// quantile is the value below which the fraction q of v lies, linear between two
// neighbours. v is not empty, and stays as it is.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	low := int(math.Floor(at))
	high := int(math.Ceil(at))
	return s[low] + (s[high]-s[low])*(at-float64(low))
}

// ratios divides what was measured in the same round. Both have as many rounds.
func ratios(v, base []float64) []float64 {
	r := make([]float64, len(v))
	for i := range v {
		r[i] = v[i] / base[i]
	}
	return r
}

// compare fills in the summaries of cases, each compared with the one of the same
// algorithm that base picks.
func compare(cases []*Cost, base func(c, other *Cost) bool) {
	for _, c := range cases {
		c.Micros = summarize(c.rounds)
		for _, other := range cases {
			if other.Alg == c.Alg && base(c, other) {
				c.Ratio = summarize(ratios(c.rounds, other.rounds))
			}
		}
	}
}
