package main

import (
	"errors"
	"fmt"
	"strings"
)

type checkCmd struct {
	Config string `help:"YAML file to check." placeholder:"FILE" short:"c"`
	config `embed:""`
}

// Help is shown by --help.
func (checkCmd) Help() string {
	return `Reads the file, the environment and the flags as serve does, loads the keys, and reports every problem with its key, value and remedy. Nothing is started. Exit code 0: all is well; 2: it is not.

    notifyd check --config notifyd.yaml

The keys, their defaults and their meaning: docs/configuration.md.`
}

// Run reports all problems at once.
func (c *checkCmd) Run(p *process, s *settings) error {
	problems := append(s.problems, c.check(false)...)
	if len(problems) > 0 {
		return usageError{errors.New(strings.Join(problems, "\n"))}
	}
	_, err := fmt.Fprintln(p.stdout, "the configuration is fine")
	return err
}
