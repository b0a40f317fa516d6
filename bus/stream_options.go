package bus

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/notifyd/notifyd/wire"
)

// StreamOptions declare a stream: topics whose events are kept. At least one of MaxAge, MaxPerTopic and MaxBytes
// bounds it; the oldest events go first.
type StreamOptions struct {
	// Name is up to 32 of a-z, A-Z, 0-9, - and _.
	Name string
	// Topics are topics and patterns. No two streams may have a topic in common.
	Topics []string
	// MaxAge is how long events are kept; 0: no bound. At least 100 ms, which is how exact NATS is.
	MaxAge time.Duration
	// MaxPerTopic is how many events of a topic are kept, 1: the last value of each; 0: no bound.
	MaxPerTopic int64
	// MaxBytes bounds what is stored, headers included; 0: no bound.
	MaxBytes int64
	// Storage is "file" or "memory". It cannot be changed once the stream is there. Default "file".
	Storage string
	// Replicas is how many members of a cluster have a copy, 1 to 5. Default 1.
	Replicas int
	// DuplicateWindow is how long a msg_id is remembered. Default 2 minutes, or MaxAge if that is shorter.
	DuplicateWindow time.Duration
	// TTL lets a publish say how long its event lives. It cannot be switched off once the stream is there (ADR-43 of
	// NATS).
	TTL bool
	// Epoch, if not empty, is up to 10 of a-z, A-Z, 0-9, - and _, and a part of the stream's epoch: with another one than
	// before, clients learn that positions of before mean nothing. It is for a store that was put back to an older copy.
	Epoch string
}

const (
	maxStreamName = 32
	maxReplicas   = 5 // of JetStream
	// minStreamTime is the shortest MaxAge and DuplicateWindow that NATS takes.
	minStreamTime          = 100 * time.Millisecond
	defaultDuplicateWindow = 2 * time.Minute
)

// The names of Storage.
const (
	StorageFile   = "file"
	StorageMemory = "memory"
)

func (o *StreamOptions) setDefaults() {
	if o.Storage == "" {
		o.Storage = StorageFile
	}
	o.Replicas = max(o.Replicas, 1)
	if o.DuplicateWindow == 0 {
		o.DuplicateWindow = defaultDuplicateWindow
		if o.MaxAge > 0 {
			o.DuplicateWindow = min(o.DuplicateWindow, o.MaxAge)
		}
	}
}

// checkStreams says what is wrong with the streams, whatever NATS they are for.
func (o *Options) checkStreams(p *problems) {
	for i, s := range o.Streams {
		field := func(name string) string { return fmt.Sprintf("Streams[%d].%s", i, name) }
		s.check(p, field)
		for k, other := range o.Streams[:i] {
			if s.Name == other.Name {
				p.add(field("Name"), s.Name, fmt.Errorf("stream %d has this name, too", k), "give each stream a name of its own")
			}
			if a, b := overlap(s.Topics, other.Topics); a != "" {
				p.add(field("Topics"), a, fmt.Errorf("has topics in common with %q of the stream %s", b, other.Name), "let each topic belong to one stream")
			}
		}
		if s.Replicas > 1 && o.URL == "" && o.Embedded.ClusterListen == "" {
			p.add(field("Replicas"), strconv.Itoa(s.Replicas), errors.New("the embedded NATS is one server"), "use 1, or set %s and its siblings, or %s", "Embedded.ClusterListen", "URL")
		}
		if n := len(o.Embedded.Routes); s.Replicas > 1 && n > 0 && s.Replicas > n+1 {
			p.add(field("Replicas"), strconv.Itoa(s.Replicas), fmt.Errorf("the cluster has %d members at most", n+1), "use fewer replicas, or list the other members in %s", "Embedded.Routes")
		}
	}
}

func (o *StreamOptions) check(p *problems, field func(string) string) {
	if !validStreamName(o.Name) {
		p.add(field("Name"), o.Name, errors.New("not a name of a stream"), fmt.Sprintf("use 1 to %d of a-z, A-Z, 0-9, - and _", maxStreamName))
	}
	if len(o.Topics) == 0 {
		p.add(field("Topics"), "", errors.New("a stream needs topics"), `list topics and patterns, such as "orders.>"`)
	}
	for k, topic := range o.Topics {
		if !wire.ValidPattern(topic) {
			p.add(field("Topics"), topic, errors.New("not a topic or pattern"), `write such as "orders.7", "orders.*" or "orders.>"`)
			continue
		}
		if a, b := overlap([]string{topic}, o.Topics[:k]); a != "" {
			p.add(field("Topics"), a, fmt.Errorf("has topics in common with %q", b), "list the wider one alone")
		}
	}
	if o.MaxAge == 0 && o.MaxPerTopic == 0 && o.MaxBytes == 0 {
		p.add(field("MaxAge"), "", errors.New("a stream without a bound fills the disk"), "set this, %s or %s", field("MaxPerTopic"), field("MaxBytes"))
	}
	for _, t := range []struct {
		name string
		v    time.Duration
	}{{"MaxAge", o.MaxAge}, {"DuplicateWindow", o.DuplicateWindow}} {
		if t.v != 0 && t.v < minStreamTime {
			p.add(field(t.name), t.v.String(), errors.New("too short"), fmt.Sprintf("use %v or more", minStreamTime))
		}
	}
	if o.MaxAge > 0 && o.DuplicateWindow > o.MaxAge {
		p.add(field("DuplicateWindow"), o.DuplicateWindow.String(), errors.New("is longer than events are kept"), "use at most what %s is", field("MaxAge"))
	}
	for _, n := range []struct {
		name string
		v    int64
	}{{"MaxPerTopic", o.MaxPerTopic}, {"MaxBytes", o.MaxBytes}} {
		if n.v < 0 {
			p.add(field(n.name), strconv.FormatInt(n.v, 10), errors.New("out of range"), "use 1 or more, or 0 for no bound")
		}
	}
	if o.Storage != "" && o.Storage != StorageFile && o.Storage != StorageMemory {
		p.add(field("Storage"), o.Storage, errors.New("no such storage"), "use file or memory")
	}
	if o.Epoch != "" && (len(o.Epoch) > maxEpochPart || !validStreamName(o.Epoch)) {
		p.add(field("Epoch"), o.Epoch, errors.New("not a part of an epoch"), fmt.Sprintf("use up to %d of a-z, A-Z, 0-9, - and _", maxEpochPart))
	}
	if o.Replicas < 0 || o.Replicas > maxReplicas {
		p.add(field("Replicas"), strconv.Itoa(o.Replicas), errors.New("out of range"), fmt.Sprintf("use 1 to %d", maxReplicas))
	}
}

func validStreamName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c == '-', c == '_', '0' <= c && c <= '9', 'a' <= c|0x20 && c|0x20 <= 'z':
		default:
			return false
		}
	}
	return len(name) > 0 && len(name) <= maxStreamName
}

// overlap gives a pattern of each list that have a topic in common, or "".
func overlap(list, others []string) (string, string) {
	for _, a := range list {
		for _, b := range others {
			if wire.ValidPattern(a) && wire.ValidPattern(b) && wire.Overlap(a, b) {
				return a, b
			}
		}
	}
	return "", ""
}

// natsStreamName is the name that JetStream has for a stream: it allows less in one than in a subject.
func natsStreamName(prefix, name string) string {
	return strings.NewReplacer(".", "-", "/", "-", `\`, "-").Replace(prefix) + "-" + name
}

// republished is the prefix of the subjects under which a stream passes on what it has stored.
func republished(prefix, name string) string { return prefix + ".st." + name + "." }

// config is the stream as JetStream is to have it.
func (o *StreamOptions) config(prefix string) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:        natsStreamName(prefix, o.Name),
		Description: "notifyd: stream " + o.Name,
		// The oldest go when a bound is reached.
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxAge:            o.MaxAge,
		MaxMsgsPerSubject: -1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		Storage:           jetstream.FileStorage,
		Replicas:          o.Replicas,
		Duplicates:        o.DuplicateWindow,
		AllowDirect:       true,
		AllowMsgTTL:       o.TTL,
		Metadata:          epochMetadata(o.Epoch, ""),
		RePublish:         &jetstream.RePublish{Source: ">", Destination: republished(prefix, o.Name) + ">"},
	}
	for _, t := range o.Topics {
		c.Subjects = append(c.Subjects, prefix+".ev."+t)
	}
	if o.MaxPerTopic > 0 {
		c.MaxMsgsPerSubject = o.MaxPerTopic
	}
	if o.MaxBytes > 0 {
		c.MaxBytes = o.MaxBytes
	}
	if o.Storage == StorageMemory {
		c.Storage = jetstream.MemoryStorage
	}
	return c
}
