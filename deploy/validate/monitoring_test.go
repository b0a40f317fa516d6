package validate

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"sigs.k8s.io/yaml"
)

// An alert is one of deploy/prometheus/alerts.yaml.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []alert
		}
	}
	readYAML(t, "../prometheus/alerts.yaml", &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no alerts")
	}
	return all
}

// readYAML reads a file; members that into lacks are errors.
func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = yaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// Each alert looks at metrics that there are, is explained in docs/monitoring.md, and has a case in which it fires and one in
// which it does not.
func TestAlerts(t *testing.T) {
	all, docs := served(t), monitoringDoc(t)
	var cases struct {
		RuleFiles          []string `json:"rule_files"`
		EvaluationInterval string   `json:"evaluation_interval"`
		Tests              []struct {
			Name, Interval string
			InputSeries    []struct{ Series, Values string } `json:"input_series"`
			Cases          []struct {
				Alert  string `json:"alertname"`
				At     string `json:"eval_time"`
				Expect []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	readYAML(t, "../prometheus/alerts_test.yaml", &cases)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range cases.Tests {
		for _, c := range test.Cases {
			fires[c.Alert] = fires[c.Alert] || len(c.Expect) > 0
			quiet[c.Alert] = quiet[c.Alert] || len(c.Expect) == 0
		}
	}
	for _, a := range alerts(t) {
		if err := examine(a.Expr, all); err != nil {
			t.Errorf("%s: %v", a.Alert, err)
		}
		if !fires[a.Alert] || !quiet[a.Alert] {
			t.Errorf("%s: no case in alerts_test.yaml in which it fires, or none in which it does not", a.Alert)
		}
		if !strings.Contains(docs, "\n| `"+a.Alert+"` | ") {
			t.Errorf("%s has no row in docs/monitoring.md", a.Alert)
		}
		if s := a.Labels["severity"]; s != "critical" && s != "warning" || a.Annotations["summary"] == "" {
			t.Errorf("%s has no severity or no summary", a.Alert)
		}
	}
	for name := range fires {
		if !slices.ContainsFunc(alerts(t), func(a alert) bool { return a.Alert == name }) {
			t.Errorf("a case for %s, which is no alert", name)
		}
	}
}

func monitoringDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// promtool reads the rules and the configuration, and plays the cases, by the commands in docs/monitoring.md.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("NOTIFYD_E2E") == "required" {
			t.Fatal("must not be left out: there is no promtool here")
		}
		t.Skip("left out: there is no promtool here; the expressions are read all the same")
	}
	run := func(folder string, args ...string) ([]byte, error) {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = folder
		return cmd.CombinedOutput()
	}
	commands := []string{"promtool check config prometheus.yaml"}
	for line := range strings.Lines(monitoringDoc(t)) {
		if strings.HasPrefix(line, "promtool ") {
			commands = append(commands, line)
		}
	}
	if len(commands) != 3 {
		t.Errorf("%q", commands)
	}
	for _, command := range commands {
		if out, err := run("../prometheus", strings.Fields(command)[1:]...); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	// The cases notice an alert that never fires, and one that always does.
	text, err := os.ReadFile("../prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../prometheus")); err != nil {
		t.Fatal(err)
	}
	for what, with := range map[string]string{"never": "vector(1) > 2", "always": "vector(1)"} {
		changed := string(text)
		for _, a := range alerts(t) {
			rule := regexp.MustCompile(`(- alert: ` + a.Alert + `\n +expr: )(?s:.*?)(\n +(?:for|labels): )`)
			changed = rule.ReplaceAllString(changed, "${1}"+with+"${2}")
		}
		if err := os.WriteFile(dir+"/alerts.yaml", []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := run(dir, "test", "rules", "alerts_test.yaml")
		for _, a := range alerts(t) {
			if !strings.Contains(string(out), "alertname: "+a.Alert+",") {
				t.Errorf("%s fires %s, and the cases pass\n%s", a.Alert, what, out)
			}
		}
	}
}

// board is what these tests look at of deploy/grafana/notifyd.json.
type board struct {
	Panels []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct{ Expr, LegendFormat string }
	}
}

func readBoard(t *testing.T) (text []byte, b board) {
	t.Helper()
	text, err := os.ReadFile("../grafana/notifyd.json")
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text, b
}

// The dashboard has the members that Grafana demands, and no others.
func TestDashboardSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	faults := func(text string) string {
		var d dashboard.Dashboard //nolint:staticcheck // the format of a file that every Grafana imports
		if err := d.UnmarshalJSONStrict([]byte(text)); err != nil {
			return err.Error() // of no faults it is an error without text
		}
		return ""
	}
	file, _ := readBoard(t)
	text := string(file)
	if f := faults(text); f != "" {
		t.Error(f)
	}
	for _, c := range []struct{ old, new string }{
		{`"gridPos"`, `"gridpos"`},
		{`"fieldConfig"`, `"fieldConfiguration"`},
		{`"legendFormat"`, `"legend"`},
		{`"h": 8`, `"h": "8"`},
		{`"schemaVersion"`, `"schema"`},
		{`"drawStyle": "line"`, `"drawStyle": 1`},
		{`"calcs"`, `"calculations"`},
	} {
		broken := strings.ReplaceAll(text, c.old, c.new)
		if broken == text {
			t.Errorf("no %s in it", c.old)
		}
		if faults(broken) == "" {
			t.Errorf("with %s it passes", c.new)
		}
	}
}

// Each panel asks for metrics that there are, explains itself, has a row in docs/monitoring.md, and lies on no other.
func TestDashboardPanels(t *testing.T) {
	all, docs := served(t), monitoringDoc(t)
	_, b := readBoard(t)
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$job", "notifyd")
	ids, cells := map[int]bool{}, map[[2]int]string{}
	queries := 0
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[cell]; other != "" || cell[0] >= 24 {
					t.Errorf("%s lies on %q or outside", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if row := fmt.Sprintf("\n| %s | ", p.Title); !strings.Contains(docs, row) || p.Description == "" {
			t.Errorf("%s is not explained", p.Title)
		}
		for _, target := range p.Targets {
			queries++
			if err := examine(variables.Replace(target.Expr), all); err != nil {
				t.Errorf("%s: %s: %v", p.Title, target.Expr, err)
			}
			if !strings.Contains(target.Expr, "instance=~\"$instance\"") {
				t.Errorf("%s: %s heeds no choice of a node", p.Title, target.Expr)
			}
		}
	}
	if queries < 50 {
		t.Errorf("%d queries", queries)
	}
}
