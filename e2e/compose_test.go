//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// composed is deploy/compose-cluster.yaml, run as processes: there is no Docker here. Each service gets its own configuration
// and environment, with other addresses and folders.
type composed struct {
	services map[string]struct {
		Environment map[string]string
		Volumes     []string
	}
	replace *strings.Replacer
	at      map[string]string // "service:port" to the address here
	dir     string
}

func compose(t *testing.T, keys issuer) *composed {
	t.Helper()
	text, err := os.ReadFile("../deploy/compose-cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services yaml.Node
	}
	c := &composed{dir: t.TempDir(), at: map[string]string{}}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if err := file.Services.Decode(&c.services); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{
		"nats-1:4222", "nats-2:4222", "nats-3:4222", "nats-1:6222", "nats-2:6222", "nats-3:6222", "notifyd-1:8080", "notifyd-2:8080",
		"notifyd-1:9090", "notifyd-2:9090", "nginx:8080", "prometheus:9090",
	} {
		c.at[port] = freeAddress(t)
	}
	// What compose takes from .env, and what lies elsewhere here.
	others := []string{
		"${NATS_PASSWORD:?see the top of this file}", "secret", "172.30.0.0/24", "127.0.0.0/8",
		"/etc/notifyd/keys/keys.json", keys.public,
	}
	for _, name := range slices.Sorted(maps.Keys(c.at)) {
		others = append(others, name, c.at[name])
	}
	c.replace = strings.NewReplacer(others...)
	return c
}

// mounted gives the file that a service has at path, changed for this machine.
func (c *composed) mounted(t *testing.T, service, path string, more ...string) string {
	t.Helper()
	for _, v := range c.services[service].Volumes {
		from, rest, _ := strings.Cut(v, ":")
		if to, _, _ := strings.Cut(rest, ":"); to == path {
			text, err := os.ReadFile(filepath.Join("../deploy", from))
			if err != nil {
				t.Fatal(err)
			}
			return c.replace.Replace(strings.NewReplacer(more...).Replace(string(text)))
		}
	}
	t.Fatalf("%s has no %s", service, path)
	return ""
}

// environment is that of a service.
func (c *composed) environment(service string) []string {
	env := os.Environ()
	for name, value := range c.services[service].Environment {
		env = append(env, name+"="+c.replace.Replace(value))
	}
	return env
}

func (c *composed) nats(t *testing.T, name string) *member {
	t.Helper()
	folder := filepath.Join(c.dir, name)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	text := c.mounted(t, name, "/etc/nats/nats.conf", "0.0.0.0:4222", c.at[name+":4222"], "0.0.0.0:6222", c.at[name+":6222"], "/data", folder)
	config := write(t, folder, "nats.conf", text)
	return &member{name: name, command: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(c.environment(name), natsConfig+"="+config)
		return cmd
	}}
}

func (c *composed) notifyd(t *testing.T, name string) *member {
	t.Helper()
	text, err := os.ReadFile("../deploy/notifyd.yaml") // as the image has it
	if err != nil {
		t.Fatal(err)
	}
	config := write(t, c.dir, name+".yaml", c.replace.Replace(strings.NewReplacer("0.0.0.0:8080", name+":8080", "0.0.0.0:9090", name+":9090").Replace(string(text))))
	return &member{name: name, command: func() *exec.Cmd {
		cmd := exec.Command(binary(t), "serve", "--config", config)
		cmd.Env = c.environment(name)
		return cmd
	}}
}

// The cluster of compose-cluster.yaml keeps what it acknowledged, and goes on, when one of each is killed.
func TestComposeCluster(t *testing.T) {
	t.Parallel()
	keys := newIssuer(t)
	c := compose(t, keys)
	prometheus := program(t, "prometheus")
	var servers, nodes []*member
	for i := range 3 {
		servers = append(servers, c.nats(t, fmt.Sprint("nats-", i+1)))
		servers[i].start(t)
	}
	for i := range 2 {
		nodes = append(nodes, c.notifyd(t, fmt.Sprint("notifyd-", i+1)))
		nodes[i].start(t)
	}
	text := c.mounted(t, "nginx", "/etc/nginx/nginx.conf", "listen 8080", "listen nginx:8080")
	proxy := &member{name: "nginx", command: func() *exec.Cmd { return startNginx(t, nil, c.dir, "", text) }}
	proxy.start(t)
	c.observe(t, prometheus)

	l := startLoadOf(t, keys, []string{"ws://" + c.at["nginx:8080"] + "/v1/ws"}, "orders")
	l.goesOn(t, 50)
	for _, m := range []*member{servers[0], nodes[0], proxy} {
		m.process.kill()
		if m != proxy {
			l.goesOn(t, 50)
		}
		m.start(t)
		l.goesOn(t, 50)
	}
	c.observed(t)
	c.drawn(t)
	l.finish(t, "notifyd:secret@"+c.at["nats-2:4222"])
}

// observe starts Prometheus with its configuration, which looks more often here.
func (c *composed) observe(t *testing.T, prometheus string) {
	t.Helper()
	write(t, c.dir, "alerts.yaml", c.mounted(t, "prometheus", "/etc/prometheus/alerts.yaml"))
	config := write(t, c.dir, "prometheus.yaml", c.mounted(t, "prometheus", "/etc/prometheus/prometheus.yml", "interval: 15s", "interval: 1s"))
	start(t, "prometheus", exec.Command(prometheus, "--config.file="+config, "--web.listen-address="+c.at["prometheus:9090"],
		"--storage.tsdb.path="+filepath.Join(c.dir, "prometheus"), "--log.level=warn"))
}

// ask asks Prometheus for JSON.
func (c *composed) ask(path string, into any) bool {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + c.at["prometheus:9090"] + path)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(into) == nil
}

// drawn waits until each panel of the dashboard has something to show; those of faults ("> 0") may be empty.
func (c *composed) drawn(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/notifyd.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$job", "notifyd")
	for _, p := range board.Panels {
		eventually(t, "the panel "+p.Title+" shows something", func() bool {
			shown := p.Type == "row"
			for _, target := range p.Targets {
				var a struct {
					Status string
					Data   struct{ Result []any }
				}
				if !c.ask("/api/v1/query?query="+url.QueryEscape(variables.Replace(target.Expr)), &a) || a.Status != "success" {
					return false
				}
				shown = shown || len(a.Data.Result) > 0 || strings.HasSuffix(target.Expr, ") > 0")
			}
			return shown
		})
	}
}

// observed waits until Prometheus has seen both nodes ready, and has read the alerts.
func (c *composed) observed(t *testing.T) {
	t.Helper()
	eventually(t, "Prometheus sees both nodes", func() bool {
		var a struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  []any
				}
			}
		}
		return c.ask("/api/v1/query?query=notifyd_ready==1", &a) && len(a.Data.Result) == 2 && a.Data.Result[0].Metric["job"] == "notifyd"
	})
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health string }
			}
		}
	}
	eventually(t, "Prometheus has evaluated the alerts", func() bool {
		n := 0
		ok := c.ask("/api/v1/rules", &rules)
		for _, g := range rules.Data.Groups {
			for _, r := range g.Rules {
				ok = ok && r.Health == "ok"
				n++
			}
		}
		return ok && n > 20
	})
}
