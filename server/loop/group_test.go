package loop

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Members may leave at any point of a round, those that have the batch and those that wait for it: each stays where it says
// that it is, nobody is skipped, and nobody gets a batch twice.
func TestGroupDuringARound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := &Group{}
		all, waiting := map[*Member]bool{}, map[*Member]bool{} // the model
		check := func() {
			t.Helper()
			if len(g.members) != len(all) || int(g.left) != len(waiting) {
				t.Fatalf("%d members, %d wait, want %d and %d", len(g.members), g.left, len(all), len(waiting))
			}
			for i, m := range g.members {
				if m.at != int32(i) || m.group != g || !all[m] || waiting[m] != (i < int(g.left)) {
					t.Fatalf("place %d of %d, %d wait: %+v", i, len(g.members), g.left, m)
				}
			}
		}
		ops := map[string]func(*rapid.T){
			"":     func(*rapid.T) { check() },
			"join": func(*rapid.T) { m := &Member{}; g.Join(m); all[m] = true },
			"begin": func(*rapid.T) {
				if g.left == 0 {
					g.left, waiting = int32(len(g.members)), maps.Clone(all)
				}
			},
			"serve": func(*rapid.T) {
				if g.left > 0 {
					g.left--
					delete(waiting, g.members[g.left])
				}
			},
			"leave": func(t *rapid.T) {
				if len(g.members) > 0 {
					m := g.members[rapid.IntRange(0, len(g.members)-1).Draw(t, "place")]
					m.Leave()
					m.Leave() // does nothing
					delete(all, m)
					delete(waiting, m)
				}
			},
		}
		t.Repeat(ops)
	})
	// As it was found: all who had the batch leave, then one that waits, and then the one that took its place.
	g := &Group{}
	var members []*Member
	for range 5 {
		m := &Member{}
		g.Join(m)
		members = append(members, m)
	}
	g.left = 3
	for _, m := range slices.Backward(members[3:]) {
		m.Leave()
	}
	members[0].Leave()
	members[2].Leave()
	if g.Len() != 1 || g.left != 1 || g.members[0] != members[1] {
		t.Errorf("%d members, %d wait", g.Len(), g.left)
	}
}
