package server

import (
	"sync"
	"sync/atomic"
)

// pool is a bounded number of goroutines for what blocks or costs much, with a
// queue that is bounded in number and in bytes: connections that come, ask and
// go leave their questions behind. Its methods may be called from any goroutine.
type pool struct {
	workers sync.WaitGroup

	mu     sync.Mutex
	some   sync.Cond
	queue  []job // guarded by mu
	bytes  int   // of the jobs in queue; guarded by mu
	closed bool  // guarded by mu
}

const (
	// poolJobs and poolBytes bound what waits for a pool.
	poolJobs  = 1 << 15
	poolBytes = 64 << 20
	// jobBytes is what a job takes beside the bytes that it names.
	jobBytes = 256
)

// job is work for a pool.
type job struct {
	size int          // the bytes that it holds
	gone *atomic.Bool // nobody wants its result any more; nil: somebody always does
	run  func()
}

func (p *pool) start(workers int) {
	p.some.L = &p.mu
	for range workers {
		p.workers.Go(p.work)
	}
}

// push queues a job. It returns false when the queue is full.
func (p *pool) push(j job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	j.size += jobBytes
	if len(p.queue) >= poolJobs || p.bytes+j.size > poolBytes {
		return false
	}
	p.bytes += j.size
	p.queue = append(p.queue, j)
	p.some.Signal()
	return true
}

// work is a worker.
func (p *pool) work() {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.some.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		j := p.queue[0]
		p.queue[0] = job{}
		p.queue = p.queue[1:]
		p.bytes -= j.size
		p.mu.Unlock()
		if j.gone == nil || !j.gone.Load() {
			j.run()
		}
	}
}

// waiting is the length of the queue.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

func (p *pool) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.some.Broadcast()
	p.workers.Wait()
}
