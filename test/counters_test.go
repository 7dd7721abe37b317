package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// countersCorefile has a DNS-B and a node with all that is counted. Nothing answers the
// node.
const countersCorefile = `
gslb.example.org:%[1]s {
	bind 127.0.0.1
	tsig {
		secret par1.key. Y291bnRlcnMtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=
	}
	latencyprobe {
		state %[2]s/nodes
	}
	dnsb {
		ns      b1 127.0.0.1
		accept  par1.key. par1 any for svc.gslb.example.org survey
		node    nyc1 127.0.0.4
		cut     nyc nyc1
		map     %[2]s/map
		export  %[2]s/export
		store   db %[2]s/db
		admin   %[2]s/admin
		survey
	}
	prometheus 127.0.0.1:%[3]s
}
svc.gslb.example.org:%[1]s {
	bind 127.0.0.2
	tsig {
		secret views.key. dmlld3MtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=
	}
	latencyprobe {
		rtt    tcp 1
		state  %[2]s/servers
		record %[2]s/record
	}
	dnslb {
		server   fra 127.0.0.1 beside par1
		service  www.svc.gslb.example.org fra
		services %[2]s/services
		admin    %[2]s/admin
		node     par1 127.0.0.2
		near     %[2]s/near
		register 127.0.0.3:1
		key      %[2]s/key
		deputy   nyc1
		view-key views.key.
		client-subnets
		survey
	}
	prometheus 127.0.0.1:%[3]s
}
`

// TestCountersBegin checks that each counter of the program that has a label has its
// samples from the start, so that increase() of Prometheus sees the first one.
func TestCountersBegin(t *testing.T) {
	dir, metrics := t.TempDir(), freePort(t)
	for name, text := range map[string]string{
		"map": "198.51.100.0/24 par1\n", "services": "service ftp.svc.gslb.example.org fra\n", "near": "203.0.113.0/24\n",
		"key":      "key \"par1.key.\" {\n\talgorithm hmac-sha256;\n\tsecret \"Y291bnRlcnMtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=\";\n};\n",
		"Corefile": fmt.Sprintf(countersCorefile, freePort(t), dir, metrics),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, "-conf", filepath.Join(dir, "Corefile"))
	s.waitFor("Ranked", 30*time.Second)
	samples := scrape(t, "http://127.0.0.1:"+metrics+"/metrics")
	counters := labeledCounters(t)
	if len(counters) < 20 {
		t.Fatalf("Expected the counters of the program, got %v", counters)
	}
	for _, name := range counters {
		begun := false
		for sample := range samples {
			begun = begun || strings.HasPrefix(sample, "coredns_") && strings.Contains(sample, "_"+name+"{")
		}
		if !begun {
			t.Errorf("Expected %s from the start", name)
		}
	}
	for _, source := range []string{"admin", "services", "registration"} {
		for _, name := range []string{"last_reload_successful", "last_reload_success_timestamp_seconds"} {
			sample := fmt.Sprintf(`coredns_dnslb_%s{node="par1",source=%q,zone="svc.gslb.example.org."}`, name, source)
			if samples[sample] == 0 {
				t.Errorf("Expected %s", sample)
			}
		}
	}
	for _, source := range []string{"admin", "map"} {
		for _, name := range []string{"last_reload_successful", "last_reload_success_timestamp_seconds"} {
			sample := fmt.Sprintf(`coredns_dnsb_%s{source=%q,zone="gslb.example.org."}`, name, source)
			if samples[sample] == 0 {
				t.Errorf("Expected %s", sample)
			}
		}
	}
}

// labeledCounters returns the names of the counters in the source of the program that
// have labels, without the words that all of a plugin begin with.
func labeledCounters(t *testing.T) (names []string) {
	t.Helper()
	for _, dir := range []string{"../internal", "../plugin"} {
		if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if name := labeledCounter(n); name != "" {
					names = append(names, name)
				}
				return true
			})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	return names
}

// labeledCounter returns the name of the counter that a call of NewCounterVec makes, else
// "".
func labeledCounter(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 2 {
		return ""
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	options, literal := call.Args[0].(*ast.CompositeLit)
	if !ok || !literal || f.Sel.Name != "NewCounterVec" {
		return ""
	}
	for _, e := range options.Elts {
		field := e.(*ast.KeyValueExpr)
		if text, ok := field.Value.(*ast.BasicLit); ok && field.Key.(*ast.Ident).Name == "Name" {
			name, _ := strconv.Unquote(text.Value)
			return name
		}
	}
	return ""
}
