//go:build !unix

package node

func descriptors() (uint64, bool) { return 0, false }
