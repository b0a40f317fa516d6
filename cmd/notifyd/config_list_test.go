package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStreamList(t *testing.T) {
	for text, want := range map[string]streamList{
		"":     nil,
		"[]":   nil,
		"null": nil,
		`[{"name":"a","topics":["b","c.>"],"max_age":"1h","max_per_topic":2,"max_bytes":"3GiB","storage":"memory","replicas":3,"duplicate_window":"4s","ttl":true}]`: {{
			Name: "a", Topics: texts{"b", "c.>"}, MaxAge: time.Hour, MaxPerTopic: 2, MaxBytes: 3 << 30, Storage: "memory", Replicas: 3, DuplicateWindow: 4 * time.Second, TTL: true,
		}},
		"- {name: 7, topics: b, max_bytes: 5, max_age: 0, replicas: ~}":                            {{Name: "7", Topics: texts{"b"}, MaxBytes: 5}},
		"- &first {name: a, topics: b, max_age: 1h}\n- {<<: *first, name: c, topics: d}\n- *first": {{Name: "a", Topics: texts{"b"}, MaxAge: time.Hour}, {Name: "c", Topics: texts{"d"}, MaxAge: time.Hour}, {Name: "a", Topics: texts{"b"}, MaxAge: time.Hour}},
	} {
		var got streamList
		if err := got.UnmarshalText([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"{name: a}":         "cannot unmarshal !!map; write a list whose elements have name, topics, ",
		"a":                 "cannot unmarshal !!str `a`; write a list",
		"[{":                "did not find expected node content; write a list",
		"[]\n---\n[]":       "more than one document; write one list",
		"[{name: a}, ~, 5]": "[2]: cannot unmarshal !!int `5`; write name, topics, ",
		"[{max_age: 1h30}]": `[0].max_age: "1h30" is not a time; write one such as 72h or 90s`,
	} {
		var got streamList
		if err := got.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
