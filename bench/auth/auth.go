//go:build linux

// Package auth compares the ways to authenticate on one running server: what each
// strategy costs it at connect, what each kind of token costs it at publish,
// how many bytes a token adds to a message, and how soon after its end a token
// brings no more events:
//
//	go run ./bench auth [--rounds 5] [--limit 3m] [--json FILE]
//
// It builds notifyd and starts it with one key of each algorithm, embedded
// defaults and all strategies. Every round measures every case once, in an order
// that shifts from round to round, so that whatever else the machine does falls
// on all of them. Figures are medians of the rounds, with the least and the
// greatest; ratios compare cases within one round, and are medians too. All
// traffic is on 127.0.0.1.
package auth

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
)

// options say how much to measure.
type options struct {
	rounds   int
	limit    time.Duration // after it no more rounds begin
	connects int           // of one case in one round
	messages int           // of one case in one round
	json     string        // file
	watchers int           // subscribers of each algorithm that wait for their end, at a time
}

// Main measures what args, the flags of the command line, ask for and prints it.
// After -h it returns [flag.ErrHelp].
func Main(args []string) error {
	var o options
	f := flag.NewFlagSet("auth", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 5, "how often to measure every case")
	f.DurationVar(&o.limit, "limit", 3*time.Minute, "begin no round that would probably end after this time")
	f.IntVar(&o.connects, "connects", 100, "connections of a case in a round")
	f.IntVar(&o.messages, "messages", 400, "messages of a case in a round; ten times as many where the token is remembered")
	f.IntVar(&o.watchers, "watchers", 10, "subscribers of each algorithm in a round whose tokens end")
	f.StringVar(&o.json, "json", "", "write the figures to this `file` as well, which go run ./bench draw can draw")
	if err := f.Parse(args); err != nil {
		return err
	}
	return run(o)
}

func run(o options) error {
	dir, err := os.MkdirTemp("", "notifyd-auth-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{options: o}
	if err := b.start(dir); err != nil {
		return err
	}
	defer b.server.Stop()
	r, err := b.measure()
	if err != nil {
		return err
	}
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return r.print(os.Stdout)
}

// bench is the server under measurement, and the keys whose tokens it takes.
type bench struct {
	options
	server *rig.Server
	keys   map[string]authz.Key
}

func (b *bench) start(dir string) error {
	bin, err := rig.Build(dir)
	if err != nil {
		return err
	}
	args := []string{"--auth.strategies", "message,first-message,header,subprotocol,ticket,query"}
	b.keys = make(map[string]authz.Key)
	for _, alg := range Algorithms {
		key, file, err := rig.NewKey(dir, alg)
		if err != nil {
			return err
		}
		b.keys[alg] = key
		args = append(args, "--auth.keys", file)
	}
	b.server, err = rig.Start(bin, args...)
	return err
}

// measure does all rounds, the first of which only warms up.
func (b *bench) measure() (*Report, error) {
	began := time.Now()
	cases := append(b.connectCases(), b.publishCases()...)
	var ends ends
	rounds := 0
	for i := range b.rounds + 1 {
		roundBegan := time.Now()
		for at := range cases {
			c := cases[(at+i*len(cases)/(b.rounds+1))%len(cases)]
			us, err := b.cost(c)
			if err != nil {
				return nil, fmt.Errorf("%s %s %s: %w", c.Name, c.Token, c.Alg, err)
			}
			if i > 0 {
				c.rounds = append(c.rounds, us)
			}
		}
		if i > 0 {
			rounds++
			if err := b.expire(&ends); err != nil {
				return nil, fmt.Errorf("expiry: %w", err)
			}
			if err := b.revoke(&ends); err != nil {
				return nil, fmt.Errorf("revocation: %w", err)
			}
		}
		now := time.Now()
		fmt.Fprintf(os.Stderr, "round %d of %d: %v\n", i, b.rounds, now.Sub(roundBegan).Round(100*time.Millisecond))
		if rounds > 0 && now.Sub(began)+now.Sub(roundBegan) > b.limit {
			break
		}
	}
	return b.report(rounds, cases, ends)
}
