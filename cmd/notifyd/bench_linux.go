package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/load"
)

type benchCmd struct {
	Fanout            fanoutCmd            `cmd:"" help:"One publisher, many subscribers to its topic."`
	Pairs             pairsCmd             `cmd:"" help:"Many topics, each with one publisher and one subscriber."`
	ManyPublishers    manyPublishersCmd    `cmd:"" help:"Many publishers to one topic with one subscriber."`
	ManySubscriptions manySubscriptionsCmd `cmd:"" help:"Connections with many subscriptions each."`
	Idle              idleCmd              `cmd:"" help:"Connections that subscribe and then receive nothing."`
	Storm             stormCmd             `cmd:"" help:"Connect, subscribe and drop, as fast as it goes."`
	Slow              slowCmd              `cmd:"" help:"Like fanout; in a second pass a tenth of the subscribers stop reading."`
	Flood             floodCmd             `cmd:"" help:"Like pairs; in a second pass a client floods with bad tokens."`
	Beside            besideCmd            `cmd:"" help:"Like pairs; in a second pass beside a fan-out to many."`
	HTTP              httpCmd              `cmd:"" name:"http" help:"Publishers that send HTTP requests, of one event and of many, beside those with WebSockets."`
	Durable           durableCmd           `cmd:"" help:"Publishers to durable topics that await that each event is stored."`
	Replay            replayCmd            `cmd:"" help:"Read a stream: one client, then many at the same position."`
	Resume            resumeCmd            `cmd:"" help:"Like pairs with durable topics; in a second pass clients come back that missed events."`
	Abuse             abuseCmd             `cmd:"" help:"Attack a server in many ways; see what two honest clients notice."`
	Worker            workerCmd            `cmd:"" hidden:"" help:"Receive for another bench, which started this process."`
	Plain             plainCmd             `cmd:"" hidden:"" help:"Be NATS alone for another bench, which started this process."`
	Abuser            abuserCmd            `cmd:"" hidden:"" help:"Attack for another bench, which started this process."`
}

// Help is shown by --help.
func (benchCmd) Help() string {
	return `Without --url it starts a notifyd of its own and measures that.

    notifyd bench fanout
    notifyd bench fanout -n 10000 --window 1,8,32 --json > fanout.json
    notifyd bench pairs --rate 1000,3000 --json > pairs.json
    notifyd bench slow --rate 30 --serve=--limits.pending-bytes=4MiB
    notifyd bench flood --rate 3000
    notifyd bench beside --rate 200
    notifyd bench fanout --fresh --alg ES256
    notifyd bench http -w 1,16 --batch 100
    notifyd bench durable --window 1,32
    notifyd bench replay --events 50000
    notifyd bench resume -n 5000 --behind 100
    notifyd bench abuse --only tickets,close-storm
    notifyd bench idle --url ws://10.0.0.7:8080/v1/ws --key key.jwk

A --window is a closed loop: that many messages of a topic are written at once, the next when all subscribers have them. A --rate is an open loop: that many publishes a second in all, whether the server keeps up or not; latency counts from when each was due. Given several, each is measured in turn, on the same connections.

µs/delivery is the processor time of the server's process divided by deliveries; it holds on machines that others use too. For a server that was started elsewhere on this machine, --pid says which process that is. "own" is the generator's.

More than 20,000 connections to an address in 127.0.0.0/8 come from several addresses there; elsewhere --source names them. Every connection needs a descriptor here and one in the server (ulimit -n). Where one process may not have enough, several share the subscribers (--processes).`
}

// benchFlags are what all scenarios have.
type benchFlags struct {
	URL       string        `help:"The server's WebSocket endpoint. Empty: start one." placeholder:"ws://HOST:PORT/v1/ws" name:"url"`
	PID       int           `help:"The process of the server at --url, if it runs here, for its costs." name:"pid"`
	Token     string        `help:"Token for everything, which must permit 'bench.>'; or NOTIFYD_TOKEN." placeholder:"JWT"`
	Key       string        `help:"Private key to make tokens with, JWK or PEM, if the server is at --url." placeholder:"FILE"`
	Iss       string        `help:"Issuer of the tokens made." placeholder:"ISS"`
	Aud       []string      `help:"Audience of the tokens made. Repeatable." placeholder:"AUD" sep:"none"`
	Bin       string        `help:"The notifyd to start. Empty: this one." placeholder:"FILE"`
	Alg       string        `help:"Algorithm of the key that is made for the server started: EdDSA, ES256, RS256 or HS256." enum:"EdDSA,ES256,RS256,HS256" default:"${alg}"`
	Serve     []string      `help:"A flag for the server started, such as --serve=--loops=2. Repeatable." placeholder:"FLAG" sep:"none"`
	Source    []netip.Addr  `help:"Address to connect from, 20,000 connections each. Repeatable." placeholder:"IP"`
	Processes int           `help:"Processes that share the subscribers. 0: as many as the limit of descriptors demands."`
	Duration  time.Duration `help:"How long to measure." short:"d" default:"10s"`
	JSON      bool          `help:"Print everything measured as JSON." name:"json"`
}

// loadFlags say how events are published.
type loadFlags struct {
	Window []int         `help:"Closed loop: messages of a topic in flight. Several: one after the other. Default: ${load}." short:"w"`
	Rate   []float64     `help:"Open loop: publishes a second in all." short:"r"`
	Size   int           `help:"Bytes of data in each event." default:"128"`
	Fresh  bool          `help:"Make a new token for each message."`
	Warmup time.Duration `help:"How long to run before measuring." default:"1s"`
}

// trafficFlags are what scenarios have in which events flow to subscribers.
type trafficFlags struct {
	loadFlags `embed:""`
	SSE       bool `help:"Subscribe to Server-Sent Events instead of WebSocket." name:"sse"`
}

// keptFlags are what scenarios of durable topics have.
type keptFlags struct {
	External bool `help:"Start a nats-server as a process of its own, whose costs count as well."`
}

type fanoutCmd struct {
	N            int `help:"Subscribers." short:"n" default:"1000"`
	trafficFlags `embed:""`
	benchFlags   `embed:""`
}

// Run measures.
func (c *fanoutCmd) Run(p *process) error {
	return c.run(p, load.Fanout(c.N), &c.trafficFlags)
}

type pairsCmd struct {
	N            int `help:"Topics." short:"n" default:"100"`
	trafficFlags `embed:""`
	benchFlags   `embed:""`
}

// Run measures.
func (c *pairsCmd) Run(p *process) error {
	return c.run(p, load.Pairs(c.N), &c.trafficFlags)
}

type manyPublishersCmd struct {
	N            int `help:"Publishers." short:"n" default:"1000"`
	trafficFlags `embed:""`
	benchFlags   `embed:""`
}

// Run measures.
func (c *manyPublishersCmd) Run(p *process) error {
	return c.run(p, load.ManyPublishers(c.N), &c.trafficFlags)
}

type manySubscriptionsCmd struct {
	N             int `help:"Connections." short:"n" default:"100"`
	Subscriptions int `help:"Subscriptions of each." short:"s" default:"100"`
	trafficFlags  `embed:""`
	benchFlags    `embed:""`
}

// Run measures.
func (c *manySubscriptionsCmd) Run(p *process) error {
	return c.run(p, load.ManySubscriptions(c.N, c.Subscriptions), &c.trafficFlags)
}

type idleCmd struct {
	N          int  `help:"Connections." short:"n" default:"15000"`
	SSE        bool `help:"Subscribe to Server-Sent Events instead of WebSocket." name:"sse"`
	benchFlags `embed:""`
}

// Run measures.
func (c *idleCmd) Run(p *process) error {
	plan := load.Idle(c.N)
	plan.Events = c.SSE
	return c.run(p, plan, nil)
}

type stormCmd struct {
	N          int `help:"Connections of each wave." short:"n" default:"5000"`
	benchFlags `embed:""`
}

// Run measures.
func (c *stormCmd) Run(p *process) error {
	return c.run(p, load.Storm(c.N), nil)
}

type slowCmd struct {
	N            int `help:"Subscribers." short:"n" default:"1000"`
	trafficFlags `embed:""`
	benchFlags   `embed:""`
}

// Run measures.
func (c *slowCmd) Run(p *process) error {
	return c.run(p, load.Slow(c.N), &c.trafficFlags)
}

// floodRate is the load of flood, unless one is given: a window would measure the
// flood's share of the processors, and not what it does to others.
const floodRate = 1000

type floodCmd struct {
	N            int `help:"Topics." short:"n" default:"100"`
	trafficFlags `embed:"" set:"load=--rate 1000"`
	benchFlags   `embed:"" set:"alg=ES256"`
}

// Run measures.
func (c *floodCmd) Run(p *process) error {
	if len(c.Window)+len(c.Rate) == 0 {
		c.Rate = []float64{floodRate}
	}
	return c.run(p, load.Flood(c.N), &c.trafficFlags)
}

// besideRate is the load of beside, unless one is given: with a window, those that
// wait for others would publish less.
const besideRate = 200

type besideCmd struct {
	N            int `help:"Topics." short:"n" default:"10"`
	Many         int `help:"Subscribers of the fan-out, to which ten events a second go." default:"8000"`
	trafficFlags `embed:"" set:"load=--rate 200"`
	benchFlags   `embed:""`
}

// Run measures.
func (c *besideCmd) Run(p *process) error {
	if len(c.Window)+len(c.Rate) == 0 {
		c.Rate = []float64{besideRate}
	}
	return c.run(p, load.Beside(c.N, c.Many), &c.trafficFlags)
}

type httpCmd struct {
	N          int           `help:"Subscribers of the topic. 0: nobody receives." short:"n" default:"1"`
	Window     []int         `help:"Connections that publish, each with one request in flight. Several: one after the other." short:"w" default:"16"`
	Batch      int           `help:"Events in a request of lines." default:"100"`
	Size       int           `help:"Bytes of data in each event." default:"128"`
	Fresh      bool          `help:"Make a new token for each request, and for each of its lines."`
	Warmup     time.Duration `help:"How long to run before measuring." default:"1s"`
	SSE        bool          `help:"Subscribe to Server-Sent Events instead of WebSocket." name:"sse"`
	benchFlags `embed:""`
}

// Run measures.
func (c *httpCmd) Run(p *process) error {
	if c.N < 0 {
		return usagef("-n: %d; use 0 or more", c.N)
	}
	if c.Batch < 2 {
		return usagef("--batch: %d; use 2 or more", c.Batch)
	}
	plan := load.HTTP(c.N, c.Batch)
	plan.Events = c.SSE
	return c.measure(p, load.Options{Plan: plan}, &loadFlags{Window: c.Window, Size: c.Size, Fresh: c.Fresh, Warmup: c.Warmup})
}

type durableCmd struct {
	N          int `help:"Publishers, each to a topic of its own." short:"n" default:"10"`
	loadFlags  `embed:""`
	keptFlags  `embed:""`
	benchFlags `embed:""`
}

// Run measures.
func (c *durableCmd) Run(p *process) error {
	return c.runKept(p, load.Durable(c.N), &c.loadFlags, c.keptFlags)
}

type replayCmd struct {
	N          int `help:"Clients that begin at the same position." short:"n" default:"1000"`
	Events     int `help:"Events that the stream keeps. Many clients read only the last of them." default:"50000"`
	Size       int `help:"Bytes of data in each event." default:"128"`
	keptFlags  `embed:""`
	benchFlags `embed:""`
}

// Run measures.
func (c *replayCmd) Run(p *process) error {
	return c.runKept(p, load.Replay(c.N, c.Events), &loadFlags{Size: c.Size, Window: []int{liveWindow}, Warmup: time.Second}, c.keptFlags)
}

// liveWindow is the load of the live events that a replay is compared with.
const liveWindow = 32

type resumeCmd struct {
	N          int `help:"Clients that come back within a second." short:"n" default:"5000"`
	Behind     int `help:"Events that each of them missed." default:"100"`
	Topics     int `help:"Topics with a publisher and a live subscriber each." default:"10"`
	loadFlags  `embed:"" set:"load=--rate 200"`
	keptFlags  `embed:""`
	benchFlags `embed:""`
}

// Run measures.
func (c *resumeCmd) Run(p *process) error {
	if len(c.Window)+len(c.Rate) == 0 {
		c.Rate = []float64{besideRate}
	}
	return c.runKept(p, load.Resume(c.Topics, c.N, c.Behind), &c.loadFlags, c.keptFlags)
}

// run measures a plan; t is nil where nothing is published.
func (c *benchFlags) run(p *process, plan load.Plan, t *trafficFlags) error {
	if t == nil {
		return c.measure(p, load.Options{Plan: plan}, nil)
	}
	plan.Events = t.SSE
	return c.measure(p, load.Options{Plan: plan}, &t.loadFlags)
}

// runKept measures a plan with durable topics, beside NATS alone.
func (c *benchFlags) runKept(p *process, plan load.Plan, l *loadFlags, kept keptFlags) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := load.Options{Plan: plan, Plain: func() *exec.Cmd {
		cmd := exec.Command(self, "bench", "plain")
		cmd.Stderr = os.Stderr // a panic's
		return cmd
	}}
	serve := *c
	serve.Serve = append([]string{load.StreamFlag()}, c.Serve...)
	if kept.External {
		if c.URL != "" {
			return usagef("--external: the server at --url has its NATS already; leave one of the two out")
		}
		if o.NATS, err = load.StartNATS(o.Plain); err != nil {
			return err
		}
		defer o.NATS.Stop()
		serve.Serve = append(serve.Serve, "--nats.url="+o.NATS.URL)
	}
	return serve.measure(p, o, l)
}

// plainCmd is NATS without notifyd for a bench, which says on its standard input what to do.
type plainCmd struct{}

// Run does that.
func (*plainCmd) Run(p *process) error { return load.PlainWork(p.ctx, os.Stdin, os.Stdout) }

// measure runs what o says; l is nil where nothing is published.
func (c *benchFlags) measure(p *process, o load.Options, l *loadFlags) error {
	o.Server, o.URL, o.Sources, o.Duration = "notifyd", c.URL, c.Source, c.Duration
	if c.Duration <= 0 {
		return usagef("--duration: %v; use a second or more", c.Duration)
	}
	if l != nil {
		if err := l.options(&o); err != nil {
			return err
		}
	}
	if err := c.setProcesses(p, &o); err != nil {
		return err
	}
	stop, err := c.server(&o, l != nil && l.Fresh)
	if err != nil {
		return err
	}
	defer stop()
	clearBar := func() {}
	if terminal(p.stderr) {
		o.Progress, clearBar = load.Bar(p.stderr)
	}
	results, err := load.Run(p.ctx, o)
	clearBar()
	if err != nil {
		return err
	}
	return c.report(p, results)
}

// setProcesses decides how many processes there are, and how one is started.
func (c *benchFlags) setProcesses(p *process, o *load.Options) error {
	switch {
	case c.Processes < 0:
		return usagef("--processes: %d; use 0 or more", c.Processes)
	case c.Processes > 0:
		o.Processes = c.Processes
	default:
		if o.Processes = o.Plan.Processes(); o.Processes == 1 {
			break
		}
		if c.URL == "" {
			return usagef("%d connections need more descriptors than a process may have here, and so does the server that would be started: raise the limit (ulimit -n), or name a server elsewhere with --url", o.Plan.Connections+o.Plan.Publishers)
		}
		_, _ = fmt.Fprintf(p.stderr, "notifyd: %d connections need more descriptors than a process may have here (ulimit -n): %d processes share the subscribers\n", o.Plan.Connections+o.Plan.Publishers, o.Processes)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Worker = func() *exec.Cmd {
		cmd := exec.Command(self, "bench", "worker")
		cmd.Stderr = os.Stderr // a panic's
		if target, ok := o.Target.(*load.Notifyd); ok {
			cmd.Env = append(os.Environ(), "NOTIFYD_TOKEN="+target.Token) // not for all who can list processes
		}
		return cmd
	}
	return nil
}

// workerCmd is one of several processes of a bench. It is told everything but
// the token on its standard input.
type workerCmd struct {
	Token string
}

// Run receives until the standard input ends.
func (c *workerCmd) Run(p *process) error {
	return load.Work(p.ctx, &load.Notifyd{Token: c.Token}, os.Stdin, os.Stdout)
}

func (t *loadFlags) options(o *load.Options) error {
	if t.Size < load.MinSize {
		return usagef("--size: %d; use %d or more", t.Size, load.MinSize)
	}
	if t.Warmup < 0 {
		return usagef("--warmup: %v; use 0s or more", t.Warmup)
	}
	windows := t.Window
	if len(windows)+len(t.Rate) == 0 {
		windows = []int{32}
	}
	for _, w := range windows {
		if w < 1 {
			return usagef("--window: %d; use 1 or more", w)
		}
		o.Loads = append(o.Loads, load.Load{Window: w})
	}
	for _, r := range t.Rate {
		if !(r > 0) {
			return usagef("--rate: %g; use more than 0", r)
		}
		o.Loads = append(o.Loads, load.Load{Rate: r})
	}
	o.Size, o.Warmup = t.Size, t.Warmup
	return nil
}

// tokenTTL is how long the tokens are good that are made for a run.
const tokenTTL = 24 * time.Hour

// server starts one unless there is one, and says in o how to speak to it.
func (c *benchFlags) server(o *load.Options, fresh bool) (stop func(), err error) {
	var key authz.Key
	stop = func() {}
	switch {
	case c.URL == "":
		bin := c.Bin
		if bin == "" {
			if bin, err = os.Executable(); err != nil {
				return stop, err
			}
		}
		if o.URL, key, o.Process, stop, err = load.Serve(bin, c.Alg, c.Serve); err != nil {
			return stop, fmt.Errorf("%s: %w", bin, err)
		}
		if o.NATS != nil {
			o.Process = load.Together{o.Process, load.RunningProcess(o.NATS.PID)}
		}
	case c.Key != "":
		text, err := os.ReadFile(c.Key)
		if err != nil {
			return stop, usagef("--key: %w", err)
		}
		if key, err = authz.ParseKey(text); err != nil {
			return stop, usagef("--key: %s: %w", c.Key, err)
		}
	case fresh:
		return stop, usagef("--fresh makes a token for each message: give the server's key with --key")
	case c.Token == "":
		return stop, usagef("no token: give --key, or --token (or NOTIFYD_TOKEN) for a token that permits 'bench.>'")
	default:
		o.Target = &load.Notifyd{Token: c.Token}
	}
	if o.Process == nil && c.PID > 0 {
		o.Process = load.RunningProcess(c.PID)
	}
	if o.Target == nil {
		claims := authz.Claims{Subject: "bench", Issuer: c.Iss, Audience: c.Aud}
		if o.Target, err = load.NewNotifyd(key, claims, tokenTTL, fresh); err != nil {
			stop()
			return stop, usageError{err}
		}
	}
	return stop, nil
}

func (c *benchFlags) report(p *process, results []load.Result) error {
	if !c.JSON {
		return load.WriteTable(p.stdout, results)
	}
	out := json.NewEncoder(p.stdout)
	out.SetIndent("", "  ")
	return out.Encode(load.Report{Date: time.Now().UTC().Truncate(time.Second), Version: versionText(), Machine: load.Machine(), Results: results})
}

// terminal says whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
