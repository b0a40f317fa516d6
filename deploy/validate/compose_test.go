package validate

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads a compose file as docker compose does, with its schema.
func load(t *testing.T, text string) (*types.Project, error) {
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  "..",
		ConfigFiles: []types.ConfigFile{{Filename: "../compose.yaml", Content: []byte(text)}},
	}, func(o *loader.Options) { o.SetProjectName("notifyd", true) })
}

func TestCompose(t *testing.T) {
	file, err := os.ReadFile("../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	p, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	s := p.Services["notifyd"]
	if grace := s.StopGracePeriod; grace == nil || time.Duration(*grace) < 35*time.Second {
		t.Errorf("it is killed before a stop may end: %v", grace)
	}
	if len(s.Ports) != 1 || s.Ports[0].HostIP != "127.0.0.1" || s.Ports[0].Target != 8080 {
		t.Errorf("ports: %+v", s.Ports)
	}
	if !s.ReadOnly || len(s.Volumes) != 2 {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct{ old, new string }{
		{"read_only: true", "readonly: true"},
		{"read_only: true", "read_only: maybe"},
		{"stop_grace_period: 40s", "stop_grace_period: soon"},
		{"    volumes:\n", "    volume:\n"},
		{"- data:/data", "- other:/data"},
		{"127.0.0.1:8080:8080", "127.0.0.1:8080:web"},
		{"services:", "service:"},
		{"nofile: 1048576", "nofile: many"},
	} {
		broken := strings.Replace(text, c.old, c.new, 1)
		if broken == text {
			t.Errorf("no %q in it", c.old)
		}
		if _, err := load(t, broken); err == nil {
			t.Errorf("with %q it passes", c.new)
		}
	}
}
