package server

// VerifyOffLoop has workers verify every signature that is not cheap. Call it
// before Start.
func (s *Server) VerifyOffLoop() { s.verifyOnLoop = 0 }

// AwaitsRoom says whether an event that came by HTTP waits for room.
func (s *Server) AwaitsRoom() bool {
	s.httpRoom.mu.Lock()
	defer s.httpRoom.mu.Unlock()
	return s.httpRoom.come != nil
}

// ReplayWorkers is how many read streams at a time.
const ReplayWorkers = replayWorkers
