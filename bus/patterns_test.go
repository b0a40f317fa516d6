package bus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/wire"
)

// The tree finds what wire.Covers finds pattern by pattern, while patterns come and go, and is empty at the end.
func TestPatternsMatch(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	tokens := func(from ...string) string {
		list := make([]string, 1+rng.IntN(4))
		for i := range list {
			list[i] = from[rng.IntN(len(from))]
		}
		return strings.Join(list, ".")
	}
	var tree patterns
	all := make(map[string]*subscription)
	for i := range 20_000 {
		p := tokens("a", "b", "*")
		if rng.IntN(3) == 0 {
			p = strings.TrimPrefix(p+".>", "a.")
		}
		if sub := all[p]; sub != nil {
			tree.remove(sub)
			delete(all, p)
		} else if wire.HasWildcard(p) {
			sub = &subscription{pattern: p, wild: true}
			if rng.IntN(8) > 0 { // else it lingers
				sub.handle.Store(hasHandle | uint64(i))
			}
			all[p] = sub
			tree.add(sub)
		}
		topic := tokens("a", "b", "c")
		var want []uint32
		for p, sub := range all {
			if h := sub.handle.Load(); h != 0 && wire.Covers(p, topic) {
				want = append(want, uint32(h))
			}
		}
		got := tree.match(nil, topic)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: matched %v, want %v of %v", topic, got, want, all)
		}
	}
	for _, sub := range all {
		tree.remove(sub)
	}
	if r := &tree.root; len(r.next) > 0 || r.any != nil || r.sub != nil || r.rest != nil {
		t.Errorf("something is left: %+v", *r)
	}
}

// To remove a pattern that another subscription has meanwhile, or that was never there, takes nothing away.
func TestPatternsRemoveOnlyTheirOwn(t *testing.T) {
	var tree patterns
	for i, p := range []string{"*", ">", "a.*", "a.>", "*.b"} {
		sub := &subscription{pattern: p}
		sub.handle.Store(hasHandle | uint64(i+1))
		tree.add(sub)
		tree.remove(&subscription{pattern: p})
		tree.remove(&subscription{pattern: p + "x.y"})
	}
	got := tree.match(nil, "a.b")
	if slices.Sort(got); !slices.Equal(got, []uint32{2, 3, 4, 5}) {
		t.Errorf("matched %v", got)
	}
}

func BenchmarkPatternsMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var tree patterns
			for i := range n {
				sub := &subscription{pattern: fmt.Sprintf("rooms.%d.*", i)}
				sub.handle.Store(hasHandle | uint64(i))
				tree.add(sub)
			}
			var handles []uint32
			b.ReportAllocs()
			for b.Loop() {
				handles = tree.match(handles[:0], "rooms.0.message")
			}
			if len(handles) != 1 {
				b.Fatal(handles)
			}
		})
	}
}
