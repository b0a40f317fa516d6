//go:build linux

package load

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Plan is who is connected to what.
type Plan struct {
	Name          string
	Topics        int
	Connections   int // that subscribe
	Subscriptions int // of each of them
	Publishers    int // connections that publish
	Stalled       int // of the subscribing connections: stop reading, in a second pass
	// Events: those that subscribe are sent Server-Sent Events instead of frames.
	Events bool
	// Storm opens and drops the connections again and again; nothing is published.
	Storm bool
	// Flood has a second pass, in which one more client sends bad publishes.
	Flood bool
	// Beside has a second pass, beside a fan-out to so many connections. In both an idle
	// connection pings.
	Beside int

	// Batch, if more than 0, measures HTTP requests of one event and of so many, beside frames. Each load's window is how
	// many connections publish.
	Batch int
	// Answered has those that publish await the answer to each event, and not that subscribers have it. Post, if more
	// than 0, has them publish so many events in each HTTP request.
	Answered bool
	Post     int

	// Of durable topics.

	// Stored counts the answers that an event is stored as deliveries to those that
	// publish. Nobody subscribes.
	Stored bool
	// Replay has the connections read so many events that a stream keeps.
	Replay int
	// Returning has a second pass, while so many clients come back at once, each with
	// Behind events to catch up on.
	Returning, Behind int
}

// maxShared is how many publishers a plan has at most where topics may share
// them: each costs a descriptor here and in the server.
const maxShared = 1000

// Fanout has one publisher, and n subscribers to its one topic.
func Fanout(n int) Plan {
	return Plan{Name: "fanout", Topics: 1, Connections: n, Subscriptions: 1, Publishers: 1}
}

// Pairs has n topics with one subscriber each, and a publisher each up to 1,000.
func Pairs(n int) Plan {
	return Plan{Name: "pairs", Topics: n, Connections: n, Subscriptions: 1, Publishers: min(n, maxShared)}
}

// ManyPublishers has n publishers to one topic with one subscriber.
func ManyPublishers(n int) Plan {
	return Plan{Name: "many-publishers", Topics: 1, Connections: 1, Subscriptions: 1, Publishers: n}
}

// ManySubscriptions has n connections with so many subscriptions each, to topics
// that are theirs alone.
func ManySubscriptions(n, subscriptions int) Plan {
	return Plan{Name: "many-subscriptions", Topics: n * subscriptions, Connections: n, Subscriptions: subscriptions, Publishers: min(n, maxShared)}
}

// idleTopics is how many topics idle connections are spread over.
const idleTopics = 100

// Idle has n connections that subscribe and then receive nothing.
func Idle(n int) Plan {
	return Plan{Name: "idle", Topics: idleTopics, Connections: n, Subscriptions: 1}
}

// Storm opens n connections at once, subscribes them, drops them, and again.
func Storm(n int) Plan {
	return Plan{Name: "storm", Topics: idleTopics, Connections: n, Subscriptions: 1, Storm: true}
}

// Slow is a fanout to n, of whom a tenth stop reading after a first pass.
func Slow(n int) Plan {
	p := Fanout(n)
	p.Name, p.Stalled = "slow", n/10
	return p
}

// Flood is pairs, and then once more while a client floods the server with
// publishes whose tokens have a bad signature.
func Flood(n int) Plan {
	p := Pairs(n)
	p.Name, p.Flood = "flood", true
	return p
}

// Beside is pairs, and then once more beside a fan-out to many others, of ten events a
// second. In both passes an idle connection pings.
func Beside(n, many int) Plan {
	p := Pairs(n)
	p.Name, p.Beside = "beside", many
	return p
}

// HTTP measures publishers that post one event a request, and batch events a request, beside publishers with frames. n
// connections subscribe to their topic.
func HTTP(n, batch int) Plan {
	return Plan{Name: "http", Topics: 1, Connections: n, Subscriptions: 1, Batch: batch}
}

// Post has publishers to one topic that await the answer to so many events, which are an HTTP request; or 0: frames.
// Connections subscribe.
func Post(publishers, events, connections int) Plan {
	return Plan{Name: "post", Topics: 1, Connections: connections, Subscriptions: 1, Publishers: publishers, Answered: true, Post: events}
}

// Durable has n publishers, each to a topic of its own, that await an answer to each
// event, which says that it is stored.
func Durable(n int) Plan {
	return Plan{Name: "durable", Topics: n, Subscriptions: 1, Publishers: n, Stored: true}
}

// Replay has one client, and then n at the same position, read what is stored of a topic: events, of which the n
// read no more than bring replayDeliveries together.
func Replay(n, events int) Plan {
	return Plan{Name: "replay", Topics: 1, Connections: n, Subscriptions: 1, Replay: events}
}

// replayDeliveries is how many events all clients together read that begin at the same position.
const replayDeliveries = 5_000_000

// Resume is pairs of durable topics, and then once more while clients come back within a second, each so many
// events behind, wave after wave.
func Resume(n, clients, behind int) Plan {
	p := Pairs(n)
	p.Name, p.Returning, p.Behind = "resume", clients, behind
	return p
}

// resumeTopics is how many topics the clients share that come back.
const resumeTopics = 100

// Kept says whether the topics are durable.
func (p Plan) Kept() bool { return p.Stored || p.Replay > 0 || p.Returning > 0 }

// alone says whether there may be publishers and nobody that subscribes.
func (p Plan) alone() bool { return p.Stored || p.Answered || p.Batch > 0 }

func (p Plan) check() error {
	switch {
	case p.Topics < 1 || p.Connections < 1 && !p.alone() || p.Subscriptions < 1 || p.Publishers < 0:
		return fmt.Errorf("%s: needs at least one of everything", p.Name)
	case p.Topics > maxTopics:
		return fmt.Errorf("%s: %d topics; %d can be told apart", p.Name, p.Topics, maxTopics)
	case p.Name == "beside" && p.Beside < 1:
		return fmt.Errorf("%s: needs at least one in the fan-out", p.Name)
	case p.Name == "replay" && p.Replay < 1:
		return fmt.Errorf("%s: needs at least one event", p.Name)
	case p.Name == "resume" && (p.Returning < 1 || p.Behind < 1):
		return fmt.Errorf("%s: needs at least one client that comes back, and one event that it missed", p.Name)
	case p.Name == "slow" && p.Stalled < 1:
		return fmt.Errorf("%s: needs ten subscribers or more, so that a tenth is one", p.Name)
	}
	return nil
}

// warm is how many connections are opened before those that are measured.
func (p Plan) warm() int {
	if p.Publishers > 0 || p.Storm || p.Replay > 0 || p.Batch > 0 {
		return 0
	}
	return min(p.Connections, p.Topics)
}

// others is how many connections there are besides those that the plan measures.
func (p Plan) others() int {
	if p.Beside == 0 {
		return p.Returning
	}
	return p.Beside + 2 // what publishes to them, and what pings
}

// Processes is how many processes the limit of descriptors demands: 1 where this
// one may have enough, else so many that each has its share of the subscribers.
func (p Plan) Processes() int {
	if p.Connections == 0 || p.Replay > 0 || p.Batch > 0 {
		return 1 // nothing to share
	}
	own := p.Publishers + p.warm() + p.others()
	if enoughDescriptors(p.Connections+own) == nil || enoughDescriptors(own) != nil {
		return 1 // if that is not enough either, Run says what is missing
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max <= spareDescriptors {
		return 1
	}
	each := int(limit.Max) - spareDescriptors
	return max(2, (p.Connections+each-1)/each)
}

// spareDescriptors is what the process needs besides its connections: pipes,
// epoll, and the connections that are being opened, each of which is duplicated.
const spareDescriptors = 100

// enoughDescriptors raises the limit if that is allowed, or says what to do.
func enoughDescriptors(connections int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	need := uint64(connections + spareDescriptors)
	if need <= limit.Cur {
		return nil
	}
	raised := unix.Rlimit{Cur: need, Max: max(need, limit.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d connections need %d descriptors, and this process may have %d: raise the limit (ulimit -n %d), here and for the server", connections, need, limit.Max, need)
	}
	return nil
}

// names are the topics by number. Each run has its own: what a run before left
// behind in the server is not in its way.
func (p Plan) names(run string) []string {
	if p.Kept() {
		run = keptWord + "." + run
	}
	names := make([]string, p.Topics)
	for i := range names {
		names[i] = "bench." + run + "." + strconv.Itoa(i)
	}
	return names
}

// topics numbers what a connection subscribes to.
func (p Plan) topics(connection int) []int {
	topics := make([]int, p.Subscriptions)
	for i := range topics {
		topics[i] = (connection*p.Subscriptions + i) % p.Topics
	}
	return topics
}

// readers says, by topic, how many of the subscribing connections from first up
// to end read it.
func (p Plan) readers(first, end int) []int {
	readers := make([]int, p.Topics)
	if p.Stored {
		for t := range readers {
			readers[t] = 1 // the answer
		}
	}
	for i := first; i < end; i++ {
		for _, t := range p.topics(i) {
			readers[t]++
		}
	}
	return readers
}

// round says, by topic, how many deliveries a window of its publishers brings to
// so many readers.
func (p Plan) round(window int, readers []int) []int {
	expect := make([]int, p.Topics)
	for t, writers := range p.writers(make([]*conn, p.Publishers)) {
		expect[t] = window * len(writers) * readers[t]
	}
	return expect
}

// writers says, by topic, which of the publishing connections publish to it.
func (p Plan) writers(publishers []*conn) [][]*conn {
	writers := make([][]*conn, p.Topics)
	for i := range max(p.Topics, len(publishers)) {
		writers[i%p.Topics] = append(writers[i%p.Topics], publishers[i%len(publishers)])
	}
	return writers
}
