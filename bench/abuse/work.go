//go:build linux

package abuse

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/authz"
)

// task is what the process of an attack reads. Key is what its issuer would sign its tokens with.
type task struct {
	Name  string
	Addr  string
	Key   authz.Key
	Short bool
}

// note is a line that it writes: that the attack is in full swing, and at the end how often it got which answer.
type note struct {
	Begun bool              `json:"begun,omitempty"`
	Got   map[string]uint64 `json:"got,omitempty"`
	Error string            `json:"error,omitempty"`
}

// Work is the process of one attack. It reads which one, and attacks until the input ends.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	if err := yieldProcessors(); err != nil {
		return err
	}
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	// The key is read apart: its type knows how to be written, not how to be read.
	var t struct {
		Name, Addr string
		Key        json.RawMessage
		Short      bool
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return err
	}
	key, err := authz.ParseKey(t.Key)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		stop()
	}()
	say := json.NewEncoder(out)
	for _, a := range List {
		if a.Name == t.Name {
			at := newAttacker(ctx, t.Addr, key, t.Short, a.wants, func() { _ = say.Encode(note{Begun: true}) })
			end := note{}
			if err := a.run(at); err != nil && ctx.Err() == nil {
				end.Error = err.Error()
			}
			<-ctx.Done()
			end.Got = at.answers()
			return say.Encode(end)
		}
	}
	return fmt.Errorf("%q is none of the abuses", t.Name)
}

// yieldProcessors gives each thread of this process the lowest priority; threads to come have that of their maker.
func yieldProcessors() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, 19); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// worker is the process of an attack, seen from the other side.
type worker struct {
	cmd   *exec.Cmd
	in    io.Closer
	begun chan struct{}
	last  chan note // the last word, or none
}

func hire(cmd *exec.Cmd, t task) (*worker, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &worker{cmd: cmd, in: in, begun: make(chan struct{}), last: make(chan note, 1)}
	go func() {
		defer close(w.last)
		read := json.NewDecoder(out)
		for {
			var n note
			if read.Decode(&n) != nil {
				return
			}
			if n.Begun {
				close(w.begun)
				continue
			}
			w.last <- n
			return
		}
	}()
	if err := json.NewEncoder(in).Encode(t); err != nil {
		_, stopErr := w.stop()
		return nil, errors.Join(err, stopErr)
	}
	return w, nil
}

// stop ends the attack and returns what it got.
func (w *worker) stop() (map[string]uint64, error) {
	_ = w.in.Close()
	n, ok := <-w.last
	err := w.cmd.Wait()
	if !ok {
		return nil, errors.Join(errors.New("the process of the attack ended without a word"), err)
	}
	if n.Error != "" {
		return n.Got, errors.New(n.Error)
	}
	return n.Got, err
}
