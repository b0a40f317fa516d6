//go:build linux

package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

const (
	// natsTime bounds what is asked of NATS.
	natsTime = time.Minute
	// plainName is what works without notifyd, in the results.
	plainName = "nats.go"
)

// NATS is a nats-server in a process of its own, beside notifyd.
type NATS struct {
	URL  string
	PID  int
	stop func()
}

// Stop kills one that StartNATS has started, and removes what it has stored.
func (n *NATS) Stop() { n.stop() }

// plainJob is what a process is to do with NATS alone; it comes on its standard input. Exactly one of Serve, Window and
// Events is set.
type plainJob struct {
	Dir string // for what is stored
	// Serve: be a NATS server until the input ends.
	Serve bool
	// URL is the server to use; "": one in this process. PID is that server's.
	URL string
	PID int

	Size             int // bytes of an event
	Window           int // publish, with so many events that are not acknowledged
	Warmup, Duration time.Duration
	Events           int // store so many events, and read them
}

// plainAnswer comes back on its standard output.
type plainAnswer struct {
	URL    string  // of the server
	Result *Result // of the job
	Error  string
}

// StartNATS starts a nats-server. plain makes a command that calls [PlainWork].
func StartNATS(plain func() *exec.Cmd) (*NATS, error) {
	dir, err := os.MkdirTemp("", "notifyd-bench-nats-")
	if err != nil {
		return nil, err
	}
	cmd := plain()
	answer, stop, err := ask(context.Background(), cmd, plainJob{Dir: dir, Serve: true})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &NATS{URL: answer.URL, PID: cmd.Process.Pid, stop: func() {
		stop()
		_ = os.RemoveAll(dir)
	}}, nil
}

// ask starts a process for a job and reads its answer. The process is there until stop is called, or ctx ends.
func ask(ctx context.Context, cmd *exec.Cmd, job plainJob) (answer plainAnswer, stop func(), err error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return answer, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return answer, nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return answer, nil, err
	}
	unwatch := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	stop = func() {
		unwatch()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	if err = json.NewEncoder(in).Encode(job); err == nil {
		err = json.NewDecoder(out).Decode(&answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		stop()
		return answer, nil, fmt.Errorf("NATS without notifyd: %w", err)
	}
	return answer, stop, nil
}

// plain does a job with NATS alone, with the server of the run or one of its own.
func (r *run) plain(ctx context.Context, job plainJob) (Result, error) {
	dir, err := os.MkdirTemp("", "notifyd-bench-plain-")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	job.Dir = dir
	if r.NATS != nil {
		job.URL, job.PID = r.NATS.URL, r.NATS.PID
	}
	answer, stop, err := ask(ctx, r.Plain(), job)
	if err != nil {
		return Result{}, errors.Join(ctx.Err(), err)
	}
	stop()
	res := *answer.Result
	res.Scenario = r.Plan.Name
	return res, nil
}

// PlainWork does the job on its standard input, with NATS and its Go client and without notifyd.
func PlainWork(ctx context.Context, in io.Reader, out io.Writer) error {
	var job plainJob
	if err := json.NewDecoder(in).Decode(&job); err != nil {
		return err
	}
	answer := plainAnswer{}
	p, err := newPlain(job)
	if err == nil {
		defer p.close()
		answer.URL = p.url
		switch {
		case job.Window > 0:
			answer.Result, err = p.publish(ctx)
		case job.Events > 0:
			answer.Result, err = p.read(ctx)
		}
	}
	if err != nil {
		answer.Error = err.Error()
	}
	if err := json.NewEncoder(out).Encode(answer); err != nil || !job.Serve {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// plain is NATS without notifyd: a server in this process or elsewhere, and a client of it.
type plain struct {
	plainJob
	url    string
	server *server.Server // nil: elsewhere
	conn   *nats.Conn
	js     jetstream.JetStream

	refused atomic.Pointer[error] // the last event that was not stored
}

func newPlain(job plainJob) (p *plain, err error) {
	p = &plain{plainJob: job, url: job.URL}
	if job.URL == "" {
		p.server, err = server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, DontListen: !job.Serve, NoSigs: true, NoLog: true, JetStream: true, StoreDir: job.Dir,
		})
		if err != nil {
			return nil, err
		}
		p.server.Start()
		if !p.server.ReadyForConnections(natsTime) {
			return nil, errors.New("nats-server is not ready")
		}
		p.url = p.server.ClientURL()
	}
	if job.Serve {
		return p, nil
	}
	var options []nats.Option
	if p.server != nil {
		options = append(options, nats.InProcessServer(p.server))
	}
	if p.conn, err = nats.Connect(p.url, options...); err != nil {
		return nil, err
	}
	refused := func(_ jetstream.JetStream, _ *nats.Msg, err error) { p.refused.Store(&err) }
	p.js, err = jetstream.New(p.conn, jetstream.WithPublishAsyncMaxPending(max(job.Window, fillWindow)), jetstream.WithPublishAsyncErrHandler(refused))
	return p, err
}

func (p *plain) close() {
	if p.conn != nil {
		p.conn.Close()
	}
	if p.server != nil {
		p.server.Shutdown()
	}
}

// spent is the processor time of this process and, if that is another one, of the server.
func (p *plain) spent() (time.Duration, error) {
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return 0, err
	}
	spent := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	if p.PID == 0 {
		return spent, nil
	}
	server, err := rig.Process(p.PID).CPU()
	return spent + server, err
}

// stream makes the stream, with the bounds that StreamFlag has.
func (p *plain) stream(ctx context.Context) (jetstream.Stream, error) {
	return p.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "plain", Subjects: []string{"plain.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxBytes: 1 << 30,
	})
}

// store publishes an event. Whether all were stored, finish says.
func (p *plain) store(data []byte) error {
	_, err := p.js.PublishAsync("plain.topic", data, jetstream.WithStallWait(natsTime))
	return err
}

func (p *plain) finish() error {
	select {
	case <-p.js.PublishAsyncComplete():
	case <-time.After(natsTime):
		return errors.New("NATS does not acknowledge")
	}
	if err := p.refused.Load(); err != nil {
		return *err
	}
	return nil
}

// publish measures PublishAsync.
func (p *plain) publish(ctx context.Context) (*Result, error) {
	if _, err := p.stream(ctx); err != nil {
		return nil, err
	}
	data := newData(p.Size, 0)
	for until := time.Now().Add(p.Warmup); time.Now().Before(until); {
		if err := p.store(data); err != nil {
			return nil, err
		}
	}
	return p.measured("PublishAsync", func() (events int, err error) {
		for until := time.Now().Add(p.Duration); time.Now().Before(until); events++ {
			if err := p.store(data); err != nil {
				return 0, err
			}
		}
		return events, p.finish()
	})
}

// read measures an ordered consumer.
func (p *plain) read(ctx context.Context) (*Result, error) {
	stream, err := p.stream(ctx)
	if err != nil {
		return nil, err
	}
	data := newData(p.Size, 0)
	for range p.Events {
		if err := p.store(data); err != nil {
			return nil, err
		}
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.measured("ordered consumer", func() (int, error) {
		c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
		if err != nil {
			return 0, err
		}
		messages, err := c.Messages()
		if err != nil {
			return 0, err
		}
		defer messages.Stop()
		for range p.Events {
			if _, err := messages.Next(jetstream.NextMaxWait(natsTime)); err != nil {
				return 0, err
			}
		}
		return p.Events, nil
	})
}

// measured says what it took to do so much with events.
func (p *plain) measured(name string, do func() (events int, err error)) (*Result, error) {
	before, err := p.spent()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	events, err := do()
	if err != nil {
		return nil, err
	}
	seconds := time.Since(began).Seconds()
	after, err := p.spent()
	if err != nil {
		return nil, err
	}
	spent := float64((after - before).Nanoseconds()) / 1e3
	cores, rate := spent/1e6/seconds, float64(events)/seconds
	res := &Result{Server: plainName, Load: name, Connections: 1, Topics: 1, Size: p.Size, Seconds: seconds, ServerCores: &cores}
	if p.Events > 0 {
		res.Delivered, res.DeliveriesPerSecond, res.CPUPerDelivery = uint64(events), rate, each(&spent, events)
	} else {
		res.Publishers, res.Published, res.PublishesPerSecond, res.CPUPerPublish = 1, uint64(events), rate, each(&spent, events)
	}
	return res, nil
}
