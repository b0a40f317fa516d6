//go:build !linux

package main

import "errors"

func (c *serveCmd) serve(*process) error {
	return errors.New("serve needs Linux (it is built on epoll); elsewhere run it in a container: the Dockerfile is in the root of the project, 'docker build -t notifyd . && docker run --rm -p 8080:8080 notifyd serve --dev --listen :8080'")
}
