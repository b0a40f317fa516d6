package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// question asks a loop for a sign of life. There is one at a time, however many ask: a
// loop that hangs must not collect them.
type question struct {
	mu       sync.Mutex
	answered chan struct{} // nil: none is under way; guarded by mu
}

// ask returns what is closed in the loop's next turn, or when it has stopped.
func (l *Loop) ask() <-chan struct{} {
	q := &l.question
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.answered != nil {
		return q.answered
	}
	answered := make(chan struct{})
	if !l.Post(func() {
		q.mu.Lock()
		q.answered = nil
		q.mu.Unlock()
		close(answered)
	}) {
		close(answered)
		return answered
	}
	q.answered = answered
	return answered
}

// Health waits until each loop has begun a turn or has stopped. When ctx ends sooner,
// it returns an error that names the loops that did not. Any goroutine but a loop's may
// call it.
func (e *Engine) Health(ctx context.Context) error {
	answers := make([]<-chan struct{}, len(e.loops))
	for i, l := range e.loops {
		answers[i] = l.ask()
	}
	return hanging(ctx, answers)
}

// hanging waits for all channels and, once ctx has ended, names the loops whose channel
// is still open.
func hanging(ctx context.Context, ended []<-chan struct{}) error {
	var errs []error
	for i, c := range ended {
		select {
		case <-c:
			continue
		case <-ctx.Done():
		}
		select {
		case <-c:
		default:
			errs = append(errs, fmt.Errorf("loop %d hangs", i))
		}
	}
	return errors.Join(errs...)
}
