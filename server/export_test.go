package server

import (
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/notifyd/notifyd/server/loop"
)

// VerifyOffLoop has workers verify every signature that is not cheap. Call it
// before Start.
func (s *Server) VerifyOffLoop() { s.verifyOnLoop = 0 }

// AwaitsRoom says whether an event that came by HTTP waits for room.
func (s *Server) AwaitsRoom() bool {
	s.httpRoom.mu.Lock()
	defer s.httpRoom.mu.Unlock()
	return s.httpRoom.come != nil || s.WaitForRoom() > 0
}

// WaitForRoom is how many connections wait for room on the loops.
func (s *Server) WaitForRoom() int64 {
	var n atomic.Int64
	s.engine.Do(func(l *loop.Loop) { n.Add(int64(len(stateOf(l).forRoom))) })
	return n.Load()
}

// NoRoom does what happens when the time of all that wait for room is over.
func (s *Server) NoRoom() {
	s.engine.Do(func(l *loop.Loop) {
		for _, w := range slices.Clone(stateOf(l).forRoom) {
			s.noRoom(w)
		}
	})
}

// PublishByNetHTTP has net/http answer all publishes. Call it before Start.
func (s *Server) PublishByNetHTTP() { s.publishPath = "" }

// OnNetHTTP has f called for each request that net/http answers. Call it before Start.
func (s *Server) OnNetHTTP(f func(*http.Request)) {
	next := s.http.Handler
	s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f(r)
		next.ServeHTTP(w, r)
	})
}

// ReplayWorkers is how many read streams at a time.
const ReplayWorkers = replayWorkers
