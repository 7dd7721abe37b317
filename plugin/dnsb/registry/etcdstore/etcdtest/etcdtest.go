// Package etcdtest runs real etcd servers for tests.
package etcdtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// Server is one member of an etcd cluster, of one member unless Cluster says
// otherwise. It ends with the test.
type Server struct {
	URL     string // for clients
	Member  string // name and address for the other members, as in Cluster
	Cluster string // all members, separated by commas
	Args    []string
	Client  *clientv3.Client

	t    *testing.T
	name string
	dir  string
	peer string
	cmd  *exec.Cmd
}

// New prepares an etcd on ports of its own, without TLS.
func New(t *testing.T) *Server {
	t.Helper()
	return NewMember(t, "one", nil)
}

// NewMember prepares a member of a cluster on ports of its own. With a TLS
// configuration, which is that of the client, its URL is https.
func NewMember(t *testing.T, name string, conf *tls.Config) *Server {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("etcd is not installed")
	}
	scheme := "http"
	if conf != nil {
		scheme = "https"
	}
	s := &Server{t: t, name: name, dir: memoryDir(t), URL: scheme + "://" + freeAddress(t), peer: "http://" + freeAddress(t)}
	s.Member = name + "=" + s.peer
	s.Cluster = s.Member
	var err error
	s.Client, err = clientv3.New(clientv3.Config{Endpoints: []string{s.URL}, TLS: conf, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Client.Close(); s.Kill() })
	return s
}

// memoryDir returns a directory in memory, if there is one: etcd waits for its
// disk, and its data need not outlive the machine.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "etcd") //nolint:usetesting // not where TempDir is
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// freeAddress returns an address of this machine that nobody takes while the
// server is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testport.Free(t))
}

// Start starts the server and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.Launch()
	s.Ready()
}

// Launch starts the server.
func (s *Server) Launch() {
	s.t.Helper()
	s.cmd = exec.Command("etcd", "--data-dir", s.dir, "--name", s.name, "--log-level", "error",
		"--listen-client-urls", s.URL, "--advertise-client-urls", s.URL,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", s.Cluster) // #nosec G204 -- a test
	s.cmd.Args = append(s.cmd.Args, s.Args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// Ready waits until the server answers.
func (s *Server) Ready() {
	s.t.Helper()
	Wait(s.t, "etcd to start", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := s.Client.Get(ctx, "any")
		return err == nil
	})
}

// Kill ends the server as a loss of power would.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Lose makes the server lose its data. It must not run.
func (s *Server) Lose() { s.dir = memoryDir(s.t) }

// Keys returns all values below a prefix, by the rest of the key.
func (s *Server) Keys(prefix string) map[string]string {
	s.t.Helper()
	response, err := s.Client.Get(s.t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		s.t.Fatal(err)
	}
	all := make(map[string]string)
	for _, kv := range response.Kvs {
		all[strings.TrimPrefix(string(kv.Key), prefix)] = string(kv.Value)
	}
	return all
}

// patience is how long Wait waits: longer than anything takes on a busy machine.
const patience = 2 * time.Minute

// Wait waits until ok, and fails the test when that takes too long.
func Wait(t *testing.T, event string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("Waited %s for %s", patience, event)
		}
	}
}
