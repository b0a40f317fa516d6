package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/node"
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

SIGTERM: /readyz says no for drain-delay, clients are asked to reconnect over drain-window; then it exits. SIGHUP: the key files are read again.`
}

// Run starts the server unless the configuration is wrong.
func (c *serveCmd) Run(p *process) error {
	// From here on: a SIGHUP during the start must not end the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	if problems := c.check(c.Dev); len(problems) > 0 {
		return usageError{errors.New(strings.Join(problems, "\n"))}
	}
	if runtime.GOOS != "linux" {
		return errors.New(otherSystem)
	}
	return c.serve(p, hup)
}

const otherSystem = "serve needs Linux (it is built on epoll); elsewhere run it in a container: the Dockerfile is in the root of the project, 'docker build -t notifyd . && docker run --rm -p 8080:8080 notifyd serve --dev --listen :8080'"

// serve runs a node until p.ctx ends, and then drains it. For each hup it reads the keys again.
func (c *serveCmd) serve(p *process, hup <-chan os.Signal) error {
	var dev []authz.Key
	if c.Dev {
		key, err := authz.GenerateKey("EdDSA")
		if err != nil {
			return err
		}
		dev = []authz.Key{key}
		if len(c.Origins) == 0 {
			c.Origins = []origin{"*"} // the page of a beginner comes from a file, or from the port of some tool
		}
	}
	log := newLogger(c.Log, p.stderr)
	defer func() { _ = log.Sync() }()
	for _, warning := range slices.Concat(c.privateKeys(), c.temporaryStorage()) {
		log.Warn(warning)
	}
	n, err := c.start(p.ctx, dev, c.mint(dev), log)
	if p.ctx.Err() != nil && err != nil {
		log.Info("stopped during the start")
		return nil
	}
	if err != nil {
		return err
	}
	if c.Dev {
		if err := c.greet(p, dev[0], n.Reachable(), n.MintSecret()); err != nil {
			return errors.Join(err, n.Close())
		}
	}
	for {
		select {
		case <-hup:
			n.Reload()
		case err := <-n.Failed():
			return errors.Join(fmt.Errorf("admin.listen: %w", err), n.Close())
		case <-p.ctx.Done():
			return n.Close()
		}
	}
}

// start starts a node. dev are keys that are in no file, and mint signs tokens for the console with one.
func (c *config) start(ctx context.Context, dev []authz.Key, mint func(authz.Claims) (string, error), log *zap.Logger) (*node.Node, error) {
	o, err := c.nodeOptions()
	if err != nil {
		return nil, usageError{err}
	}
	o.Auth.Trusted, o.Mint = dev, mint
	n, err := node.Start(ctx, o, log)
	return n, c.startError(err)
}

// startError names the key that an error of [node.Start] is about, and says whether the configuration is to blame.
func (c *config) startError(err error) error {
	var option *node.OptionError
	var start *node.StartError
	switch {
	case !errors.As(err, &start):
		return err
	case errors.As(err, &option):
		var f findings
		f.addOption(option)
		return usageError{errors.New(f[0])}
	case start.Field == "Auth" && c.Auth.fetches():
		return start.Err // another attempt may do
	case start.Field == "Auth":
		return usageError{start.Err}
	}
	key := map[string]string{"Listen": "listen", "AdminListen": "admin.listen", "Server": "server", "Bus": "nats", "Store": "nats"}
	return fmt.Errorf("%s: %w", key[start.Field], start.Err)
}
