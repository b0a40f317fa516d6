package validate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads a compose file as docker compose does, with its schema.
func load(t *testing.T, text string) (*types.Project, error) {
	t.Helper()
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  "..",
		Environment: types.Mapping{"NATS_PASSWORD": "a", "GRAFANA_PASSWORD": "b"},
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

// checkCluster says what the schema would not find in compose-cluster.yaml: names that lead nowhere, files that are not
// there, ports that everybody reaches, images that change.
func checkCluster(p *types.Project) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	// host checks "name:port" in what service says: in its environment, or in a file.
	host := regexp.MustCompile(`[\w-]+-\d:\d+`)
	names := func(service, text string) {
		for _, address := range host.FindAllString(text, -1) {
			if name, _, _ := strings.Cut(address, ":"); p.Services[name].Name == "" {
				wrong("%s: there is no %s", service, name)
			}
		}
	}
	for name, s := range p.Services {
		if s.Build == nil && !regexp.MustCompile(`^[\w/]+:v?\d+\.\d+\.\d+$`).MatchString(s.Image) {
			wrong("%s: the image %s is not pinned", name, s.Image)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				wrong("%s: port %s is open to everybody", name, port.Published)
			}
		}
		for _, value := range s.Environment {
			if value != nil {
				names(name, *value)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind || filepath.Base(v.Source) == "keys" {
				continue
			}
			info, err := os.Stat(v.Source)
			if err != nil || !v.ReadOnly {
				wrong("%s: %s is not there, or the service may write it (%v)", name, v.Source, err)
			} else if !info.IsDir() {
				text, err := os.ReadFile(v.Source)
				if err != nil {
					wrong("%v", err)
				}
				names(name, string(text))
			}
		}
		if !strings.HasPrefix(name, "notifyd-") {
			continue
		}
		if grace := s.StopGracePeriod; grace == nil || time.Duration(*grace) < 35*time.Second {
			wrong("%s is killed before a stop may end: %v", name, grace)
		}
		if !s.ReadOnly || len(s.Ports) > 0 || len(s.Volumes) != 1 || s.Volumes[0].Target != "/etc/notifyd/keys" {
			wrong("%s may do more than it has to, or keys are not mounted as a folder", name)
		}
		if network := p.Networks["default"].Ipam.Config; len(network) != 1 || *s.Environment["NOTIFYD_TRUSTED_PROXIES"] != network[0].Subnet {
			wrong("%s does not trust the network of nginx", name)
		}
	}
	if _, ok := p.Services["prometheus"]; !ok {
		wrong("no Prometheus")
	}
	return errors.Join(errs...)
}

func TestComposeCluster(t *testing.T) {
	file, err := os.ReadFile("../compose-cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	check := func(text string) error {
		p, err := load(t, text)
		if err == nil {
			err = checkCluster(p)
		}
		return err
	}
	text := string(file)
	if err := check(text); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ old, new string }{
		{"nats://nats-3:4222", "nats://nats-4:4222"},
		{"image: nats:2.15.2", "image: nats:latest"},
		{"nginx:1.28.0", "nginx"},
		{"./nats/nats.conf", "./nats/nats.yaml"},
		{"nginx.conf:ro", "nginx.conf"},
		{"127.0.0.1:3000:3000", "3000:3000"},
		{"notifyd-2: *notifyd", "notifyd-3: *notifyd"},
		{"subnet: 172.30.0.0/24", "subnet: 172.31.0.0/24"},
		{"keys:/etc/notifyd/keys:ro", "keys/keys.json:/etc/notifyd/keys/keys.json:ro"},
		{"stop_grace_period: 40s", "stop_grace_period: 10s"},
		{"read_only: true", "read_only: false"},
		{"NATS_PASSWORD:?", "NATS_PASWORD:?"},
		{"depends_on: [nats-1", "depends_on: [nats-0"},
		{"- grafana:/var", "- graphs:/var"},
	} {
		broken := strings.ReplaceAll(text, c.old, c.new)
		if broken == text {
			t.Errorf("no %q in it", c.old)
		}
		if check(broken) == nil {
			t.Errorf("with %q it passes", c.new)
		}
	}
}

// Grafana finds Prometheus and the dashboard where compose-cluster.yaml puts them, and its file names are those that exist.
func TestProvisioning(t *testing.T) {
	var sources struct {
		APIVersion  int
		Datasources []struct {
			Name, Type, Access, URL string
			IsDefault               bool
			JSONData                struct{ TimeInterval string }
		}
	}
	readYAML(t, "../grafana/provisioning/datasources/prometheus.yaml", &sources)
	var boards struct {
		APIVersion int
		Providers  []struct {
			Name, Type string
			Options    struct{ Path string }
		}
	}
	readYAML(t, "../grafana/provisioning/dashboards/notifyd.yaml", &boards)
	file, err := os.ReadFile("../compose-cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := load(t, string(file))
	if err != nil {
		t.Fatal(err)
	}
	mounted := func(path string) bool {
		return slices.ContainsFunc(p.Services["grafana"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == path })
	}
	if u := sources.Datasources[0].URL; u != "http://prometheus:9090" || sources.Datasources[0].Type != "prometheus" {
		t.Errorf("%+v", sources)
	}
	if path := boards.Providers[0].Options.Path; !mounted(path+"/notifyd.json") || !mounted("/etc/grafana/provisioning") {
		t.Errorf("the dashboard is not in %s, or nothing is provisioned", path)
	}
}
