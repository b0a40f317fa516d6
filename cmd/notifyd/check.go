package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

type checkCmd struct {
	Config string `help:"YAML file to check." placeholder:"FILE" short:"c"`
	Online bool   `help:"Fetch the key sets of URLs and log in to an external NATS, too." default:"false"`
	Health string `help:"Instead of a configuration, ask a running server: the URL of its /healthz or /readyz." placeholder:"URL"`
	config `embed:""`
}

// Help is shown by --help.
func (checkCmd) Help() string {
	return `Reads the file, the environment and the flags as serve does, loads the keys, and reports every problem with its key, value and remedy, one a line. Nothing is started. Exit code 0: all is well; 2: it is not. It is stricter than serve, which only warns of a private key in a key file, of an entry in it that cannot be trusted, and of streams in the folder for temporary files.

    notifyd check --config notifyd.yaml

With --online it also fetches the key sets of URLs and logs in to an external NATS, and says what came of each. Exit code 1: something did not answer as it should.

    notifyd check --config notifyd.yaml --online

With --health it asks a running server instead, for containers that have no curl. Exit code 0: it answered 200; 1: it did not.

    notifyd check --health http://127.0.0.1:9090/healthz

The keys, their defaults and their meaning: docs/configuration.md.`
}

// Run reports all problems at once.
func (c *checkCmd) Run(p *process, s *settings) error {
	if c.Health != "" {
		return checkHealth(p.ctx, c.Health)
	}
	problems := slices.Concat(s.problems, c.check(false), c.privateKeys(), c.distrusted(), c.temporaryStorage())
	if len(problems) > 0 {
		return usageError{errors.New(strings.Join(problems, "\n"))}
	}
	if c.Online {
		if err := c.tryOnline(p); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(p.stdout, "the configuration is fine")
	return err
}

// healthTimeout bounds one question; container runtimes ask again.
const healthTimeout = 3 * time.Second

func checkHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usagef("health: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w; start the node, or give the URL of its admin.listen", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		reason, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return errors.Join(fmt.Errorf("health: %s answered %s: %s; docs/operations.md says what the node looks at", url, resp.Status, bytes.TrimSpace(reason)), err)
	}
	return nil
}
