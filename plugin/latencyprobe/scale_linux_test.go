package latencyprobe

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcpu"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// Limits of the cost of 10,000 targets by tcp, or 1,000 by https, every 10 s.
const (
	scaleInterval = 10 * time.Second
	maxCores      = 0.2
	maxMemory     = 100 // MiB, of the whole process
	maxLate       = 50  // ms, of 99 % of the probes
	closedPort    = 1   // nothing listens there
)

func BenchmarkScaleTCP(b *testing.B) {
	port := serverProcess(b, "tcp").Port()
	scale(b, 10000, 0, "tcp", fmt.Sprint(port))
}

// BenchmarkScaleFailingTCP has 5 % of the targets fail, which a watch ranks by.
func BenchmarkScaleFailingTCP(b *testing.B) {
	port := serverProcess(b, "tcp").Port()
	scale(b, 10000, 500, "tcp", fmt.Sprint(port))
}

// BenchmarkScaleHTTPS verifies certificates. A process reads its trusted
// certificates once, so that no test may verify one before: run it with -run
// xxx.
func BenchmarkScaleHTTPS(b *testing.B) {
	file := filepath.Join(b.TempDir(), "cert.pem")
	b.Setenv("LATENCYPROBE_CERT", file)
	b.Setenv("SSL_CERT_FILE", file)
	port := serverProcess(b, "https").Port()
	scale(b, 1000, 0, fmt.Sprintf("https://example.com:%d/", port))
}

func BenchmarkScaleICMP(b *testing.B) {
	if err := prober.ICMPAllowed(); err != nil {
		b.Skip(err)
	}
	scale(b, 1000, 0, "icmp")
}

// scale measures the cost of n targets on loopback, of which some refuse connections. An
// operation is an interval, in which each target is probed once.
func scale(b *testing.B, n, failing int, method ...string) {
	b.Helper()
	p, err := prober.Parse(method)
	if err != nil {
		b.Fatal(err)
	}
	l := &LatencyProbe{probes: map[string]*settings{
		"":       {rtt: p, interval: scaleInterval, timeout: defaultTimeout},
		"closed": {rtt: prober.TCP{Port: closedPort}, interval: scaleInterval, timeout: defaultTimeout},
	}}
	w := l.Watch()
	defer w.Close()
	all := make([]Target, n)
	addr := netip.MustParseAddr("127.1.0.1")
	for i := range all {
		all[i] = Target{Name: addr.String(), Addr: addr}
		if i < failing {
			all[i].Probe = "closed"
		}
		addr = addr.Next()
	}
	w.Set(all)
	time.Sleep(maxFirstDelay + defaultTimeout + scaleInterval) // until intervals are spread

	before, cpu := readStartDelay(b), testcpu.Time(b)
	samples, lost := totals(w, all)
	b.ResetTimer()
	time.Sleep(time.Duration(b.N) * scaleInterval)
	b.StopTimer()
	cores := (testcpu.Time(b) - cpu).Seconds() / b.Elapsed().Seconds()
	after, memory := readStartDelay(b), residentMiB(b)
	ended, failed := totals(w, all)

	late := quantile(before, after, 0.99) * 1000
	b.ReportMetric(cores, "cores")
	b.ReportMetric(memory, "MiB")
	b.ReportMetric(late, "late-p99-ms")
	b.ReportMetric(float64(ended-samples)/b.Elapsed().Seconds(), "probes/s")
	if cores > maxCores || memory > maxMemory || late > maxLate {
		b.Errorf("Expected at most %v cores, %v MiB and %v ms, got %.3f, %.0f and %v", maxCores, maxMemory, maxLate, cores, memory, late)
	}
	got, want, refused := ended-samples, uint64(b.N*n), uint64(b.N*failing)
	if failures := failed - lost; got < want*9/10 || failures < refused*9/10 || failures > refused*11/10+got/100 {
		b.Errorf("Expected some %d probes, of which %d fail, got %d and %d: %s", want, refused, got, failures, w.Status(all[n-1]).Reason)
	}
}

func totals(w *Watch, all []Target) (samples, lost uint64) {
	for _, t := range all {
		s := w.Status(t)
		samples += s.Samples
		lost += s.Lost
	}
	return samples, lost
}

// readStartDelay reads the histogram of the delay of probes.
func readStartDelay(b *testing.B) *dto.Histogram {
	b.Helper()
	var m dto.Metric
	if err := startDelay.(prometheus.Metric).Write(&m); err != nil {
		b.Fatal(err)
	}
	return m.GetHistogram()
}

// quantile returns the upper bound of the bucket of the quantile q of the
// observations between two readings.
func quantile(before, after *dto.Histogram, q float64) float64 {
	want := q * float64(after.GetSampleCount()-before.GetSampleCount())
	for i, bucket := range after.GetBucket() {
		if float64(bucket.GetCumulativeCount()-before.GetBucket()[i].GetCumulativeCount()) >= want {
			return bucket.GetUpperBound()
		}
	}
	return scaleInterval.Seconds()
}

// residentMiB returns the most memory that this process has had.
func residentMiB(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

func init() {
	servers["tcp"] = func() error {
		l, err := listenLoopback()
		if err != nil {
			return err
		}
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			conn.Close()
		}
	}
	servers["https"] = func() error {
		s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // has a certificate
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if err := os.WriteFile(os.Getenv("LATENCYPROBE_CERT"), block, 0o600); err != nil {
			return err
		}
		l, err := listenLoopback()
		if err != nil {
			return err
		}
		server := &http.Server{Handler: s.Config.Handler, TLSConfig: s.TLS, ReadHeaderTimeout: time.Minute}
		return server.ServeTLS(l, "", "")
	}
}

// listenLoopback listens on all addresses of the loopback interface, and prints
// the address.
func listenLoopback() (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	fmt.Println(l.Addr())
	return l, nil
}
