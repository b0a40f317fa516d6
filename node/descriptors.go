package node

import "math"

// connectionsFor gives how many connections the descriptors of a process are enough for: the others are kept for the
// listeners, NATS and its files, fetches of keys, and those who look after the node.
func connectionsFor(descriptors uint64) int {
	descriptors = min(descriptors, math.MaxInt32)
	kept := 50 + min(descriptors/100, 450)
	if descriptors <= kept {
		return 1
	}
	return int(descriptors - kept)
}

// boundConnections lowers want, where 0 is no bound, to what descriptors are there for. lowered says that this is less
// than was asked for.
func boundConnections(want int) (connections int, lowered bool) {
	n, known := descriptors()
	if !known {
		return want, false
	}
	most := connectionsFor(n)
	if want == 0 || want > most {
		return most, want > most
	}
	return want, false
}
