package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/notifyd/notifyd/authz"
)

// pub prints where a stream has put an event, and streams what it keeps.
func TestStreamsCommand(t *testing.T) {
	file, key := keyFile(t)
	s := serveHere(t, "--auth.keys="+file, "--data-dir="+t.TempDir(),
		`--streams=[{"name":"orders","topics":"orders.>","max_age":"1h","ttl":true}]`)
	publisher := []string{"--url=" + s.url, "--token=" + mint(t, key, authz.Claims{Publish: []string{">"}})}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pub", "orders.7", "1", "--msg-id=a", "--ttl=1h"}, `{"seq":1}` + "\n"},
		{[]string{"pub", "orders.7", "1", "--msg-id=a"}, `{"seq":1,"duplicate":true}` + "\n"},
		{[]string{"pub", "orders.7", "-", "--msg-id=b"}, `{"seq":2}` + "\n" + `{"seq":3}` + "\n"},
		{[]string{"pub", "orders.7", "-", "--msg-id=b", "--http"}, `{"seq":2,"duplicate":true}` + "\n" + `{"seq":3,"duplicate":true}` + "\n"},
		{[]string{"pub", "other", "1"}, ""},
	} {
		if r := invoke(t, nil, "10\n11\n", append(c.args, publisher...)...); r.code != exitOK || r.stdout != c.want {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
	table := regexp.MustCompile(`^STREAM +EPOCH +FIRST +LAST +EVENTS +BYTES +POSITION +LAG\norders +[a-z0-9]+ +1 +3 +3 +\d+ +- +-\n$`)
	if r := invoke(t, nil, "", "streams", "--admin="+s.admin); r.code != exitOK || !table.MatchString(r.stdout) {
		t.Errorf("%+v", r)
	}
	if r := invoke(t, nil, "", "streams", "--json", "--admin="+s.admin+"/"); r.code != exitOK || !strings.Contains(r.stdout, `"last":3,"events":3,`) || !strings.Contains(r.stdout, `"stored":3,"duplicates":3,`) {
		t.Errorf("%+v", r)
	}
	// The port for clients knows no such path.
	other := "http" + strings.TrimSuffix(strings.TrimPrefix(s.url, "ws"), "/v1/ws")
	if r := invoke(t, nil, "", "streams", "--admin="+other); r.code != exitFailed || !strings.Contains(r.stderr, "is it the admin listener of a node?") {
		t.Errorf("%+v", r)
	}
}
