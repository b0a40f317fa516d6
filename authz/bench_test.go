package authz

import (
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// BenchmarkMemo is what a frame costs on a connection that goes on with the
// token it used before.
func BenchmarkMemo(b *testing.B) {
	_, raw, token := benchToken(b)
	now := time.Unix(start, 0).UnixNano()
	topic := []byte("rooms.42")
	for b.Loop() {
		if !token.Same(raw) || token.Check(now) != wire.OK || !token.MayPublish(topic) {
			b.Fatal("refused")
		}
	}
}

// BenchmarkFind is what it costs with a token that another frame brought.
func BenchmarkFind(b *testing.B) {
	v, raw, _ := benchToken(b)
	now := time.Unix(start, 0).UnixNano()
	topic := []byte("rooms.42")
	for b.Loop() {
		if t := v.Find(raw); t == nil || t.Check(now) != wire.OK || !t.MayPublish(topic) {
			b.Fatal("refused")
		}
	}
}

// BenchmarkVerify is what a token costs at first sight.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg, func(b *testing.B) {
			v := newTestVerifier(b, newClock(), Options{CacheEntries: 1})
			raw := []byte(signed(b, alg, goodPayload))
			b.ReportAllocs()
			for b.Loop() {
				if _, code := v.Verify(raw); code != wire.OK {
					b.Fatal(code)
				}
				v.cache.sets[0] = cacheSet{} // forget it
			}
		})
	}
}

// BenchmarkCost is what deciding where to verify costs, for a token with the
// header of those that came before.
func BenchmarkCost(b *testing.B) {
	v, raw, _ := benchToken(b)
	for b.Loop() {
		if v.Cost(raw) == Cheap {
			b.Fatal("cheap")
		}
	}
}

func benchToken(b *testing.B) (*Verifier, []byte, *Token) {
	v := newTestVerifier(b, newClock(), Options{})
	raw := []byte(signed(b, "EdDSA", goodPayload))
	token, code := v.Verify(raw)
	if code != wire.OK {
		b.Fatal(code)
	}
	b.ReportAllocs()
	return v, raw, token
}
