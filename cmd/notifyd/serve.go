package main

import (
	"errors"
	"strings"
)

type serveCmd struct {
	Config string `help:"YAML file; docs/configuration.md lists its keys." placeholder:"FILE" short:"c"`
	Dev    bool   `help:"Make a key for this run and print tokens to try it with. Not for production." default:"false"`
	config `embed:""`
}

// Help is shown by --help.
func (serveCmd) Help() string {
	return `Every flag can stand in the environment (NOTIFYD_LIMITS_MESSAGE_BYTES=128KiB) and in the file (limits: {message_bytes: 128KiB}); a flag beats the environment, the environment beats the file.

    notifyd serve --dev
    notifyd serve --auth.keys keys.json --listen :8080
    notifyd serve --config notifyd.yaml --nats.url nats://nats:4222

SIGTERM: clients are asked to reconnect, over drain-window; then it exits. SIGHUP: the key files are read again.`
}

// Run starts the server unless the configuration is wrong.
func (c *serveCmd) Run(p *process) error {
	if problems := c.check(c.Dev); len(problems) > 0 {
		return usageError{errors.New(strings.Join(problems, "\n"))}
	}
	return c.serve(p)
}
