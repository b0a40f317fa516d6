package node_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/internal/testkit"
	"github.com/notifyd/notifyd/node"
)

// A stream that is there is told with its position; one that JetStream does not make keeps the node from being ready.
func TestStreamsOfANode(t *testing.T) {
	_, auth := trusted(t)
	streams := []bus.StreamOptions{{Name: "orders", Topics: []string{"orders.>"}, MaxPerTopic: 1}}
	n := start(t, node.Options{AdminListen: "127.0.0.1:0", Auth: auth, Bus: bus.Options{Streams: streams}})
	testkit.Eventually(t, "the node is ready", func() bool { code, _ := get(t, n, "/readyz"); return code == http.StatusOK })
	_, body := get(t, n, "/streams")
	var all []node.StreamStatus
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all) != 1 {
		t.Fatal(body, err)
	}
	if s := all[0]; s.Name != "orders" || !s.Ready || s.Problem != "" || s.Epoch == "" || s.First != 1 || s.Last != 0 {
		t.Errorf("%+v", s)
	}
	_, body = get(t, n, "/metrics")
	for _, want := range []string{"notifyd_ready 1", `notifyd_stream_ready{stream="orders"} 1`, `notifyd_stream_created_timestamp_seconds{stream="orders"} 1.`} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s in the metrics", want)
		}
	}

	without := start(t, node.Options{AdminListen: "127.0.0.1:0", Auth: auth, Bus: bus.Options{
		URL: testkit.ServeNATS(t, natsserver.Options{}), Streams: streams,
	}})
	testkit.Eventually(t, "the node says what is missing", func() bool {
		code, body := get(t, without, "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "the stream orders is not there yet: ") && strings.Contains(body, "JetStream")
	})
	if _, body := get(t, without, "/metrics"); !strings.Contains(body, "\nnotifyd_ready 0\n") {
		t.Error("the metric says that it is ready")
	}
	_, body = get(t, without, "/streams")
	if err := json.Unmarshal([]byte(body), &all); err != nil || all[0].Ready || all[0].Problem == "" {
		t.Error(body, err)
	}
}
