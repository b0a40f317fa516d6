//go:build !linux

package main

import "errors"

type benchCmd struct {
	Args []string `arg:"" hidden:"" optional:"" passthrough:""`
}

// Run says why there is nothing to run.
func (*benchCmd) Run() error {
	return errors.New("bench needs Linux (it is built on epoll); the server that it measures may run elsewhere")
}
