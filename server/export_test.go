package server

// VerifyOffLoop has workers verify every signature that is not cheap. Call it
// before Start.
func (s *Server) VerifyOffLoop() { s.verifyOnLoop = 0 }
