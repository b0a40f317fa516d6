package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/authz"
)

// The states of a step.
const (
	stateOK      = "ok"
	stateFailed  = "failed"
	stateSkipped = "skipped"
)

// finding is what came of a step.
type finding struct {
	Step         string `json:"step"`
	State        string `json:"state"`
	Detail       string `json:"detail"`
	Milliseconds int64  `json:"ms"`

	fault *fault // when it has failed
}

// diagnosis is what doctor says at the end.
type diagnosis struct {
	URL    string     `json:"url"`
	OK     bool       `json:"ok"`
	Steps  []*finding `json:"steps"`
	Cause  string     `json:"cause,omitempty"`
	Remedy string     `json:"remedy,omitempty"`
}

// fault says that a step has failed: what was seen, why that is so, in one sentence, and what to do.
type fault struct {
	seen, cause, remedy string
	ofTime              bool // a wrong clock may be the cause of it
}

func (f *fault) Error() string { return f.seen }

// skip says why a step was not made.
type skip string

func (s skip) Error() string { return string(s) }

// examination is one run of doctor. Its fields are those of the command, what was given, and what the steps have found
// out for those after them.
type examination struct {
	*doctorCmd
	ctx      context.Context
	url      *url.URL // ws or wss
	token    string   // "": none
	verifier *authz.Verifier
	refusal  *authz.Refusal   // what verifier has to say
	now      func() time.Time // this machine's clock

	addresses []string // of the host, without the port
	address   string   // that a connection could be made to
	client    *http.Client

	wantsCertificate *atomic.Bool // the server has asked for a client's certificate

	plain     *httpAnswer // to a GET of the endpoint
	socket    *socket     // that subscribes and publishes; nil: there is none
	carried   bool        // socket was opened with the token, so that a subscribe needs none
	asked     bool        // the server has said over HTTP what it thinks of the token
	accepted  bool        // and it takes it
	seen      authz.Inspection
	topic     string // that was subscribed to; "": none
	durable   bool   // a stream keeps it
	nonce     []byte // that was published; nil: nothing was
	published time.Time

	skewKnown bool
	skew      time.Duration // the server's clock against ours
}

// step is one of the way. It returns what it saw, or a fault, or a skip.
type step struct {
	name  string
	after string // the step that has to be ok or skipped before; "": none
	run   func(*examination, context.Context) (string, error)
}

// steps are all, in their order.
func (x *examination) steps() []step {
	list := []step{
		{"name", "", (*examination).resolve},
		{"tcp", "name", (*examination).connect},
		{"tls", "tcp", (*examination).secure},
		{"http", "tls", (*examination).ask},
		{"ready", "", (*examination).askReady},
		{"handshake", "http", (*examination).shakeHands},
		{"clock", "http", (*examination).compareClocks},
		{"origin", "handshake", (*examination).comeAsPage},
		{"token", "handshake", (*examination).judgeToken},
	}
	for _, s := range x.Strategy {
		list = append(list, step{s, "token", func(x *examination, ctx context.Context) (string, error) { return x.present(ctx, s) }})
	}
	return append(list,
		step{"subscribe", "token", (*examination).subscribe},
		step{"publish", "subscribe", (*examination).publish},
		step{"delivery", "publish", (*examination).awaitEvent},
		step{"events", "token", (*examination).stream},
		step{"idle", "handshake", (*examination).keepStill},
	)
}

// names is how wide the longest name of a step is.
func (x *examination) names() (width int) {
	for _, s := range x.steps() {
		width = max(width, len(s.name))
	}
	return width
}

// shown is the URL without what it may hold of secrets.
func (x *examination) shown() string { return x.url.String() }

// examine makes the steps, and tells each finding at once.
func (x *examination) examine(tell func(*finding)) *diagnosis {
	d := &diagnosis{URL: x.shown(), OK: true}
	failed := map[string]string{} // the step that a step could not do without, or the step itself
	for _, s := range x.steps() {
		if x.ctx.Err() != nil { // interrupted
			break
		}
		f := x.make(s, failed)
		if f.State == stateFailed {
			d.OK = false
		}
		d.Steps = append(d.Steps, f)
		tell(f)
	}
	if f := d.worst(); f != nil {
		d.Cause, d.Remedy = f.cause, f.remedy
	}
	return d
}

// make makes one step.
func (x *examination) make(s step, failed map[string]string) *finding {
	f := &finding{Step: s.name, State: stateOK}
	if why, blocked := failed[s.after]; blocked {
		f.State, f.Detail, failed[s.name] = stateSkipped, "because "+why+" has failed", why
		return f
	}
	bound := x.Timeout
	if s.name == "idle" {
		bound += x.Idle
	}
	ctx, cancel := context.WithTimeout(x.ctx, bound)
	defer cancel()
	began := time.Now()
	detail, err := s.run(x, ctx)
	f.Milliseconds = time.Since(began).Milliseconds()
	var why skip
	switch {
	case errors.As(err, &why):
		f.State, detail = stateSkipped, string(why)
	case err != nil:
		if !errors.As(err, &f.fault) {
			f.fault = unexplained(err)
		}
		f.State, detail, failed[s.name] = stateFailed, f.fault.seen, s.name
		f.fault.cause, f.fault.remedy = x.clean(f.fault.cause), x.clean(f.fault.remedy)
	}
	f.Detail = x.clean(detail)
	return f
}

// clean keeps the token out of what is shown, and makes one line of it.
func (x *examination) clean(text string) string {
	if x.token != "" {
		text = strings.ReplaceAll(text, x.token, "[token]")
	}
	return strings.Join(strings.Fields(redact(text)), " ")
}

// unexplained is a fault of which nothing more is known.
func unexplained(err error) *fault {
	return &fault{seen: err.Error(), cause: err.Error() + ".", remedy: "Look at the node's log, at log.level debug."}
}

// worst is the fault that is the cause: the first one. The clocks are the cause only of what depends on time, or if
// nothing else has failed.
func (d *diagnosis) worst() (first *fault) {
	var clock *fault
	for _, f := range d.Steps {
		switch {
		case f.fault == nil:
		case f.Step == "clock":
			clock = f.fault
		case first == nil:
			first = f.fault
		}
	}
	if clock != nil && (first == nil || first.ofTime) {
		return clock
	}
	return first
}

// end closes what is open.
func (x *examination) end() {
	if x.socket != nil {
		x.socket.close()
	}
	if x.client != nil {
		x.client.CloseIdleConnections()
	}
}

// timedOut reports whether err is the end of a step's time.
func timedOut(ctx context.Context, err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil
}

func (x *examination) noAnswer(what string) *fault {
	return &fault{
		seen:   fmt.Sprintf("%s within %v", what, x.Timeout),
		cause:  fmt.Sprintf("%s takes the connection and does not answer.", x.url.Host),
		remedy: "Look at what listens there, and at the proxy in front of it: does it wait for a server that does not answer?",
	}
}
