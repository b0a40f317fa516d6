package validate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// manifest is one file of Kubernetes objects.
type manifest struct {
	workload  string // its kind
	name      string
	replicas  *int32
	pods      metav1.ObjectMeta
	pod       corev1.PodSpec
	selector  *metav1.LabelSelector
	claims    []corev1.PersistentVolumeClaim
	services  []corev1.Service
	disrupted []policyv1.PodDisruptionBudget
	metrics   []string // that autoscalers look at; check fills it
	scaled    []autoscalingv2.HorizontalPodAutoscaler
}

// decode reads a file as the API server does with strict field validation: unknown and repeated members are errors, and so
// are values of another type.
func decode(text []byte) (*manifest, error) {
	m := &manifest{}
	for docs := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text))); ; {
		doc := make([]byte, 1<<20)
		n, err := docs.Read(doc)
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		if err := m.add(doc[:n]); err != nil {
			return nil, err
		}
	}
}

func (m *manifest) add(doc []byte) error {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &kind); err != nil {
		return err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "apps/v1 StatefulSet":
		var o appsv1.StatefulSet
		if err := strict(doc, &o); err != nil {
			return err
		}
		m.workload, m.name, m.replicas = kind.Kind, o.Name, o.Spec.Replicas
		m.pods, m.pod, m.selector, m.claims = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec, o.Spec.Selector, o.Spec.VolumeClaimTemplates
	case "apps/v1 Deployment":
		var o appsv1.Deployment
		if err := strict(doc, &o); err != nil {
			return err
		}
		m.workload, m.name, m.replicas = kind.Kind, o.Name, o.Spec.Replicas
		m.pods, m.pod, m.selector = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec, o.Spec.Selector
	case "v1 Service":
		var o corev1.Service
		if err := strict(doc, &o); err != nil {
			return err
		}
		m.services = append(m.services, o)
	case "policy/v1 PodDisruptionBudget":
		var o policyv1.PodDisruptionBudget
		if err := strict(doc, &o); err != nil {
			return err
		}
		m.disrupted = append(m.disrupted, o)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		var o autoscalingv2.HorizontalPodAutoscaler
		if err := strict(doc, &o); err != nil {
			return err
		}
		m.scaled = append(m.scaled, o)
	default:
		return fmt.Errorf("%s %s: not a kind that is known here", kind.APIVersion, kind.Kind)
	}
	return nil
}

// strict reads a document as the API server does: names count with their case.
func strict(doc []byte, into any) error {
	text, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return err
	}
	unknown, err := json.UnmarshalStrict(text, into)
	return errors.Join(append(unknown, err)...)
}

// check says what the API server would not find: names that lead nowhere, and a time to stop that is too short.
func (m *manifest) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.workload == "" || len(m.services) == 0 || len(m.pod.Containers) != 1 {
		return errors.New("no workload of one container behind a service")
	}
	selects := func(what string, s *metav1.LabelSelector) {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(m.pods.Labels)) {
			wrong("%s does not select the pods (%v)", what, err)
		}
	}
	selects(m.workload, m.selector)
	c := m.pod.Containers[0]
	port := func(what string, name intstr.IntOrString) {
		if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name.StrVal || p.ContainerPort == name.IntVal }) {
			wrong("%s: no port %s", what, name.String())
		}
	}
	for _, s := range m.services {
		selects("the service", &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		for _, p := range s.Spec.Ports {
			port("the service", p.TargetPort)
		}
	}
	for _, d := range m.disrupted {
		selects("the budget", d.Spec.Selector)
	}
	for _, s := range m.scaled {
		if to := s.Spec.ScaleTargetRef; to.Kind != m.workload || to.Name != m.name || m.replicas != nil {
			wrong("the autoscaler scales %s %s, or the workload sets replicas too", to.Kind, to.Name)
		}
		if s.Spec.MinReplicas == nil || *s.Spec.MinReplicas < 2 || s.Spec.MaxReplicas <= *s.Spec.MinReplicas {
			wrong("the autoscaler goes below two nodes, or never above")
		}
		for _, metric := range s.Spec.Metrics {
			if metric.Pods == nil || metric.Pods.Target.AverageValue == nil {
				wrong("the autoscaler does not count by pod")
				continue
			}
			m.metrics = append(m.metrics, metric.Pods.Metric.Name)
		}
	}
	if len(m.scaled) == 0 && m.replicas == nil {
		wrong("how many nodes?")
	}
	probe := func(what, path string, p *corev1.Probe) {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != path {
			wrong("the %s probe does not ask %s", what, path)
			return
		}
		port(what, p.HTTPGet.Port)
	}
	probe("startup", "/healthz", c.StartupProbe)
	probe("liveness", "/healthz", c.LivenessProbe)
	probe("readiness", "/readyz", c.ReadinessProbe)
	if scrape := m.pods.Annotations["prometheus.io/port"]; !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return fmt.Sprint(p.ContainerPort) == scrape && p.Name == "admin" }) {
		wrong("Prometheus is told the port %s", scrape)
	}
	var volumes []string
	for _, v := range m.pod.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, v := range m.claims {
		volumes = append(volumes, v.Name)
	}
	for _, v := range c.VolumeMounts {
		if v.SubPath != "" {
			wrong("with subPath a new %s does not arrive", v.Name)
		}
		if !slices.Contains(volumes, v.Name) {
			wrong("no volume %s", v.Name)
		}
	}
	if s := c.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
		wrong("the container may do more than it has to")
	}
	stop, err := stopTime(c.Env)
	if err != nil {
		wrong("%v", err)
	} else if grace := m.pod.TerminationGracePeriodSeconds; grace == nil || time.Duration(*grace)*time.Second < stop {
		wrong("the pod is killed before the %v that a stop may take", stop)
	}
	return errors.Join(errs...)
}

// stopTime is what docs/operations.md says that a stop may take.
func stopTime(env []corev1.EnvVar) (time.Duration, error) {
	set := map[string]string{}
	for _, e := range env {
		set[e.Name] = e.Value
	}
	delay, err := time.ParseDuration(cmp.Or(set["NOTIFYD_DRAIN_DELAY"], "0s"))
	if err != nil {
		return 0, err
	}
	window, err := time.ParseDuration(cmp.Or(set["NOTIFYD_DRAIN_WINDOW"], "5s"))
	return delay + window + 30*time.Second, err
}

var manifests = []string{"../kubernetes/all-in-one.yaml", "../kubernetes/cluster.yaml"}

func TestKubernetes(t *testing.T) {
	for _, name := range manifests {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := decode(text)
		if err == nil {
			err = m.check()
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each of these mistakes would be found.
func TestKubernetesMistakes(t *testing.T) {
	for _, name := range manifests {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		mistakes := []struct{ old, new string }{
			{"readOnlyRootFilesystem: true", "readonlyRootFilesystem: true"},
			{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
			{"allowPrivilegeEscalation: false", `allowPrivilegeEscalation: "no"`},
			{"runAsUser: 65532", "runAsUser: nobody"},
			{"runAsNonRoot: true", "runAsNonRoot: true\n        runAsNonRoot: true"},
			{"automountServiceAccountToken", "automountServiceAcountToken"},
			{"terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30"},
			{"terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 45s"},
			{"apiVersion: apps/v1", "apiVersion: apps/v2"},
			{"matchLabels: {app: notifyd}", "matchLabels: {app: notify}"},
			{"selector: {app: notifyd}", "selector: {app: notify}"},
			{"targetPort: ws", "targetPort: web"},
			{"port: admin", "port: administration"},
			{"path: /readyz", "path: /ready"},
			{"periodSeconds: 2", "periodSecond: 2"},
			{"name: keys, mountPath", "name: key, mountPath"},
			{"  ports:\n", "  port:\n"},
			{"startupProbe:", "startProbe:"},
			{"readOnly: true}", "readOnly: true, subPath: keys.json}"},
			{`io/port: "9090"`, `io/port: "8080"`},
		}
		if strings.HasSuffix(name, "cluster.yaml") {
			mistakes = append(mistakes, []struct{ old, new string }{
				{"spec:\n  strategy:", "spec:\n  replicas: 2\n  strategy:"},
				{"minReplicas: 2", "minReplicas: 1"},
				{"maxReplicas: 10", "maxReplicas: ten"},
				{"kind: Deployment, name: notifyd", "kind: StatefulSet, name: notifyd"},
				{"type: Pods\n      pods:", "type: Pods\n      pod:"},
				{`averageValue: "50k"`, `averageValue: "50 thousand"`},
				{"{type: AverageValue, averageValue", "{type: AverageValue, averageUtilization: 50} # "},
				{"topologyKey:", "topologykey:"},
				{"maxUnavailable: 1\n", "maxUnavailable: 1\n  maxUnavailible: 1\n"},
			}...)
		} else {
			mistakes = append(mistakes, struct{ old, new string }{"replicas: ", "replicas: some # "}, struct{ old, new string }{"  replicas: 1\n", ""})
		}
		for _, c := range mistakes {
			broken := strings.ReplaceAll(string(text), c.old, c.new)
			if broken == string(text) {
				t.Errorf("%s has no %q", name, c.old)
				continue
			}
			m, err := decode([]byte(broken))
			if err == nil {
				err = m.check()
			}
			if err == nil {
				t.Errorf("%s with %q passes", name, c.new)
			}
		}
	}
}

// The adapter gives the autoscaler the metric that it looks at, and a node has it.
func TestAutoscalerMetric(t *testing.T) {
	text, err := os.ReadFile("../kubernetes/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(text)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Rules struct {
			Custom []struct {
				SeriesQuery, MetricsQuery string
				Resources                 struct {
					Overrides map[string]struct{ Resource string }
				}
			}
		}
	}
	readYAML(t, "../kubernetes/prometheus-adapter.yaml", &values)
	all := served(t)
	var given []string
	for _, rule := range values.Rules.Custom {
		series, _, _ := strings.Cut(rule.SeriesQuery, "{")
		given = append(given, series)
		query := strings.NewReplacer("<<.Series>>", series, "<<.LabelMatchers>>", `job="notifyd"`, "<<.GroupBy>>", "instance").Replace(rule.MetricsQuery)
		if err := examine(query, all); err != nil {
			t.Error(err)
		}
		if rule.Resources.Overrides["pod"].Resource != "pod" || rule.Resources.Overrides["namespace"].Resource != "namespace" {
			t.Errorf("%+v", rule.Resources)
		}
	}
	if len(given) == 0 || !slices.Equal(m.metrics, given) {
		t.Errorf("the autoscaler looks at %q, the adapter has %q", m.metrics, given)
	}
}
