// Package kubernetes tests the manifests for Kubernetes.
package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// objects are those of a variant, by kind and name.
type objects map[string]any

// build makes the objects of a variant. Fields that the API does not know are errors.
func build(t *testing.T, variant string) objects {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), variant)
	if err != nil {
		t.Fatal(err)
	}
	all := make(objects)
	for _, r := range resources.Resources() {
		var object any
		switch kind := r.GetApiVersion() + " " + r.GetKind(); kind {
		case "v1 Namespace":
			object = new(core.Namespace)
		case "v1 Service":
			object = new(core.Service)
		case "v1 ConfigMap":
			object = new(core.ConfigMap)
		case "apps/v1 Deployment":
			object = new(apps.Deployment)
		case "apps/v1 StatefulSet":
			object = new(apps.StatefulSet)
		case "policy/v1 PodDisruptionBudget":
			object = new(policy.PodDisruptionBudget)
		case "monitoring.coreos.com/v1 ServiceMonitor":
			object = new(monitoring.ServiceMonitor)
		default:
			t.Fatalf("Expected a known kind, got %s", kind)
		}
		if err := yaml.UnmarshalStrict([]byte(r.MustYaml()), object); err != nil {
			t.Errorf("%s %s: %v", r.GetKind(), r.GetName(), err)
		}
		if r.GetKind() != "Namespace" && r.GetNamespace() != "coredns-dnslb" {
			t.Errorf("%s %s: Expected the namespace coredns-dnslb, got %q", r.GetKind(), r.GetName(), r.GetNamespace())
		}
		all[r.GetKind()+" "+r.GetName()] = object
	}
	return all
}

// workload is what a server runs as.
type workload struct {
	name     string
	replicas int32
	selector map[string]string
	template core.PodTemplateSpec
	claims   []string
}

func (all objects) workloads() []workload {
	var found []workload
	for _, object := range all {
		switch o := object.(type) {
		case *apps.Deployment:
			found = append(found, workload{o.Name, *o.Spec.Replicas, o.Spec.Selector.MatchLabels, o.Spec.Template, nil})
		case *apps.StatefulSet:
			w := workload{o.Name, *o.Spec.Replicas, o.Spec.Selector.MatchLabels, o.Spec.Template, nil}
			for _, claim := range o.Spec.VolumeClaimTemplates {
				w.claims = append(w.claims, claim.Name)
			}
			found = append(found, w)
		}
	}
	return found
}

func matches(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}

// buildProgram builds the program.
func buildProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "coredns-dnslb")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// TestReadmeCorefile checks the server block for the CoreDNS of the cluster.
func TestReadmeCorefile(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "~~~ corefile\n")
	block, _, ok := strings.Cut(rest, "~~~")
	if !ok {
		t.Fatal("Expected a Corefile")
	}
	dir := t.TempDir()
	write(t, dir, "Corefile", block)
	if out, err := exec.Command(buildProgram(t), "-validate", "-conf", filepath.Join(dir, "Corefile")).CombinedOutput(); err != nil {
		t.Errorf("Expected a valid Corefile, got %v: %s", err, out)
	}
}

func TestManifests(t *testing.T) {
	program := buildProgram(t)
	for _, variant := range []string{"loadbalancer", "hostnetwork"} {
		t.Run(variant, func(t *testing.T) {
			all := build(t, variant)
			workloads := all.workloads()
			if len(workloads) != 3 {
				t.Fatalf("Expected a DNS-B and two nodes, got %d workloads", len(workloads))
			}
			for _, w := range workloads {
				checkWorkload(t, all, w)
				checkSecurity(t, w, variant == "hostnetwork")
				validate(t, program, all, w)
			}
			checkSelectors(t, all, workloads, variant)
		})
	}
}

// checkWorkload checks that what the pod refers to exists.
func checkWorkload(t *testing.T, all objects, w workload) {
	t.Helper()
	if w.replicas != 1 || !matches(w.selector, w.template.Labels) {
		t.Errorf("%s: Expected one pod with the labels of the selector, got %d, %v", w.name, w.replicas, w.template.Labels)
	}
	container := w.template.Spec.Containers[0]
	ports := make(map[string]bool)
	for _, p := range container.Ports {
		ports[p.Name] = true
	}
	for what, probe := range map[string]*core.Probe{"/health": container.LivenessProbe, "/ready": container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet.Path != what || !ports[probe.HTTPGet.Port.String()] {
			t.Errorf("%s: Expected a probe of %s at a port of the container, got %+v", w.name, what, probe)
		}
	}
	volumes := w.claims
	for _, v := range w.template.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, m := range container.VolumeMounts {
		if !slices.Contains(volumes, m.Name) {
			t.Errorf("%s: Expected a volume %s", w.name, m.Name)
		}
	}
	if container.Image != "registry.example.org/coredns-dnslb:1.0.0" {
		t.Errorf("%s: Expected the image of the overlay, got %s", w.name, container.Image)
	}
	if env := container.EnvFrom[0].ConfigMapRef.Name; all["ConfigMap "+env] == nil {
		t.Errorf("%s: Expected the ConfigMap %s", w.name, env)
	}
}

func checkSecurity(t *testing.T, w workload, hostNetwork bool) {
	t.Helper()
	pod, container := w.template.Spec, w.template.Spec.Containers[0]
	s := container.SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser != 65532 || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, []core.Capability{"NET_BIND_SERVICE"}) {
		t.Errorf("%s: Expected a pod without root and with one capability, got %+v, %+v", w.name, pod.SecurityContext, s)
	}
	if pod.HostNetwork != hostNetwork || *s.AllowPrivilegeEscalation != hostNetwork || (len(pod.SecurityContext.Sysctls) == 0) != hostNetwork {
		t.Errorf("%s: Expected either sysctls or the network of the machine, got %+v, %+v", w.name, pod.SecurityContext, s)
	}
	if hostNetwork && len(pod.NodeSelector) != 1 {
		t.Errorf("%s: Expected a machine of its own, got %v", w.name, pod.NodeSelector)
	}
}

// checkSelectors checks which pods services, budgets and the monitor have.
func checkSelectors(t *testing.T, all objects, workloads []workload, variant string) {
	t.Helper()
	selected := func(selector map[string]string) (names []string) {
		for _, w := range workloads {
			if matches(selector, w.template.Labels) {
				names = append(names, w.name)
			}
		}
		slices.Sort(names)
		return names
	}
	for _, name := range []string{"node-par1", "node-par2", "dnsb-b1"} {
		service, ok := all["Service "+name].(*core.Service)
		if !ok || !slices.Equal(selected(service.Spec.Selector), []string{name}) {
			t.Errorf("Expected a service of %s alone, got %+v", name, service)
			continue
		}
		local := service.Spec.Type == core.ServiceTypeLoadBalancer && service.Spec.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal
		if local != (variant == "loadbalancer") {
			t.Errorf("%s: Expected the addresses of resolvers to be kept, got %+v", name, service.Spec)
		}
	}
	for name, want := range map[string][]string{"nodes": {"node-par1", "node-par2"}, "dnsb": {"dnsb-b1"}} {
		budget, ok := all["PodDisruptionBudget "+name].(*policy.PodDisruptionBudget)
		if !ok || budget.Spec.MaxUnavailable.IntValue() != 1 || !slices.Equal(selected(budget.Spec.Selector.MatchLabels), want) {
			t.Errorf("Expected one of %v to be evicted at a time, got %+v", want, budget)
		}
	}
	monitor, metrics := all["ServiceMonitor coredns-dnslb"].(*monitoring.ServiceMonitor), all["Service metrics"].(*core.Service)
	if !matches(monitor.Spec.Selector.MatchLabels, metrics.Labels) || monitor.Spec.Endpoints[0].Port != metrics.Spec.Ports[0].Name || len(selected(metrics.Spec.Selector)) != 3 {
		t.Errorf("Expected the monitor to find all pods, got %+v, %+v", monitor, metrics)
	}
}

// validate runs -validate in a directory with the files that the pod has.
func validate(t *testing.T, program string, all objects, w workload) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(program, "-validate", "-conf", "Corefile")
	cmd.Dir, cmd.Env = dir, os.Environ()
	for name, value := range all["ConfigMap "+w.template.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name].(*core.ConfigMap).Data {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	name := strings.TrimPrefix(strings.TrimPrefix(w.name, "node-"), "dnsb-")
	for _, source := range w.template.Spec.Volumes[0].Projected.Sources {
		switch {
		case source.ConfigMap != nil:
			files, ok := all["ConfigMap "+source.ConfigMap.Name].(*core.ConfigMap)
			if !ok {
				t.Fatalf("%s: Expected the ConfigMap %s", w.name, source.ConfigMap.Name)
			}
			for file, text := range files.Data {
				write(t, dir, file, strings.ReplaceAll(text, "/var/lib/coredns-dnslb/", dir+"/"))
			}
		case source.Secret != nil && source.Secret.Name != "keys-"+name:
			t.Errorf("%s: Expected keys of its own, got %s", w.name, source.Secret.Name)
		}
	}
	keys := ""
	for _, node := range []string{"par1", "par2"} {
		keys += key(node + ".key.gslb.example.org")
	}
	write(t, dir, "keys", keys)
	write(t, dir, name+".key", key(name+".key.gslb.example.org"))
	write(t, dir, "views.key", key("views.key.gslb.example.org"))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "Corefile: ok\n") {
		t.Errorf("%s: Expected a valid Corefile, got %v: %s", w.name, err, out)
	}
}

func key(name string) string {
	return fmt.Sprintf("key %q {\n\talgorithm hmac-sha256;\n\tsecret \"cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==\";\n};\n", name)
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
