package main

import (
	"reflect"
	"time"

	"github.com/notifyd/notifyd/node"
)

// streamConfig is one element of streams: topics whose events are kept, and for how long.
type streamConfig struct {
	Name            string        `yaml:"name"`             // the JetStream stream is called PREFIX-NAME
	Topics          texts         `yaml:"topics"`           // topics and patterns; no two streams have a topic in common
	MaxAge          time.Duration `yaml:"max_age"`          // 0: no bound; one of the three is required
	MaxPerTopic     int64         `yaml:"max_per_topic"`    // 0: no bound
	MaxBytes        storageSize   `yaml:"max_bytes"`        // 0: no bound
	Storage         string        `yaml:"storage"`          // file (the default) or memory
	Replicas        int           `yaml:"replicas"`         // 1 (the default) to 5
	DuplicateWindow time.Duration `yaml:"duplicate_window"` // how long a msg_id is remembered; 0: 2m, or max_age
	TTL             bool          `yaml:"ttl"`              // a publish may say how long its event lives
	Epoch           string        `yaml:"epoch"`            // another one after the store was put back to an older copy
}

// streamList is written as YAML, of which JSON is a part: in the file as it stands, elsewhere as text.
type streamList []streamConfig

// UnmarshalText says all that is wrong with a list.
func (l *streamList) UnmarshalText(text []byte) (err error) {
	*l, err = decodeList[streamConfig](text)
	return err
}

// options says to a bus what is configured.
func (l streamList) options() (all []node.StreamOptions) {
	for _, s := range l {
		all = append(all, node.StreamOptions{
			Name: s.Name, Topics: s.Topics, MaxAge: s.MaxAge, MaxPerTopic: s.MaxPerTopic, MaxBytes: int64(s.MaxBytes),
			Storage: s.Storage, Replicas: s.Replicas, DuplicateWindow: s.DuplicateWindow, TTL: s.TTL, Epoch: s.Epoch,
		})
	}
	return all
}

// streamMember is the name in the configuration of a field of [node.StreamOptions].
func streamMember(field string) string {
	f, ok := reflect.TypeFor[streamConfig]().FieldByName(field)
	if !ok {
		return field
	}
	return f.Tag.Get("yaml")
}

// onDisk is the first stream that wants to outlive a restart, nil: none.
func (l streamList) onDisk() *streamConfig {
	for i := range l {
		if l[i].Storage != node.StorageMemory {
			return &l[i]
		}
	}
	return nil
}
